"""Tasks: made texts whose answers are known, to see what a model can do. One file a task.

A task is a corpus by name, with arguments if wanted: CORPUS = "task:copy(length=8, distance=119)". Its text is a row of
examples, each as long as the others, with the answer at the same place in each. Only answers count in the loss, and an
example is solved where every symbol of its answer is the likeliest (exact match). A tenth of the examples is held out,
chosen by a hash of the example: whoever makes the task, wherever, holds out the same ones, and none is also learned
from.
"""

from collections.abc import Mapping

from microformer.corpora.tasks.addition import Addition
from microformer.corpora.tasks.base import HELD_OUT, PREFIX, Task
from microformer.corpora.tasks.brackets import Brackets
from microformer.corpora.tasks.copy import Copy
from microformer.corpora.tasks.induction import Induction
from microformer.corpora.tasks.markov import Markov
from microformer.corpora.tasks.modular import Modular
from microformer.corpora.tasks.reversal import Reversal
from microformer.corpora.tasks.sorting import Sorting
from microformer.models.grammar import one

__all__ = [
    "HELD_OUT", "PREFIX", "TASKS", "Addition", "Brackets", "Copy", "Induction", "Markov", "Modular", "Reversal",
    "Sorting", "Task", "find",
]  # fmt: skip

TASKS: Mapping[str, type[Task]] = {
    "addition": Addition, "brackets": Brackets, "copy": Copy, "induction": Induction, "markov": Markov,
    "modular": Modular, "reversal": Reversal, "sorting": Sorting,
}  # fmt: skip


def find(name: str) -> Task | None:
    """The task that a corpus's name means; None if it means none.

    Raises:
        SettingsError: a task that there is not, or arguments that it can't have.
    """
    return one(name.removeprefix(PREFIX), TASKS, f"CORPUS {PREFIX}") if name.startswith(PREFIX) else None
