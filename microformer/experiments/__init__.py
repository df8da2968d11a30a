"""Experiments: arms × seeds, trained one after the other or side by side, and one honest table of what made a
difference.

arms        what is compared: names and the settings each changes
cells       the trainings themselves: one an arm and seed, resumed where they stopped, reused where they exist
intervals   paired differences to the first arm, with intervals
table       the result in rows, and as a table in words
layout      such tables as Markdown and HTML
comparison  all of it: from a base and arms to the folder with table and picture
listing     the runs of a folder as a table: filtered, sorted, told apart, drawn
tokenizers  tokenizers beside one another on one text

Names are brought in when they are first used: a list of runs doesn't wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microformer.experiments.arms import Arm
    from microformer.experiments.cells import Cell, Point, code_hash, train_all, train_one
    from microformer.experiments.comparison import Comparison, compare_arms
    from microformer.experiments.intervals import Difference, compare
    from microformer.experiments.listing import Runs, differences, runs
    from microformer.experiments.table import markdown

__all__ = [
    "Arm", "Cell", "Comparison", "Difference", "Point", "Runs", "code_hash", "compare", "compare_arms", "differences",
    "markdown", "runs", "train_all", "train_one",
]  # fmt: skip

_HOMES = {
    "arms": ("Arm",),
    "cells": ("Cell", "Point", "code_hash", "train_all", "train_one"),
    "comparison": ("Comparison", "compare_arms"),
    "intervals": ("Difference", "compare"),
    "listing": ("Runs", "differences", "runs"),
    "table": ("markdown",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
