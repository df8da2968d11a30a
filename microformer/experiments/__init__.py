"""Experiments: arms × seeds, trained one after the other, and one honest table of what made a difference.

arms        what is compared: names and the settings each changes
cells       the trainings themselves: one an arm and seed, resumed where they stopped, reused where they exist
intervals   paired differences to the first arm, with intervals
table       the result as Markdown, JSON and a picture
tokenizers  tokenizers beside one another on one text
"""

from microformer.experiments.arms import Arm
from microformer.experiments.cells import Cell, train_all
from microformer.experiments.intervals import Difference, compare
from microformer.experiments.table import markdown, write

__all__ = ["Arm", "Cell", "Difference", "compare", "markdown", "train_all", "write"]
