"""Tasks: made texts whose answers are known, to see what a model can do. One file a task.

A task is a corpus by name, with arguments if wanted: CORPUS = "copy(length=8, distance=119)". Its text is a row of
examples, each as long as the others, with the answer at the same place in each. Only answers count in the loss, and an
example is solved where every symbol of its answer is the likeliest (exact match). A tenth of the examples is held out,
chosen by a hash of the example: whoever makes the task, wherever, holds out the same ones, and none is also learned
from.
"""

from collections.abc import Mapping

from microformer.corpora.tasks.base import HELD_OUT, Task
from microformer.corpora.tasks.copy import Copy
from microformer.models.grammar import one

__all__ = ["HELD_OUT", "TASKS", "Copy", "Task", "find"]

TASKS: Mapping[str, type[Task]] = {"copy": Copy}


def find(name: str) -> Task | None:
    """The task that a corpus's name means; None if it means none.

    Raises:
        SettingsError: arguments that the task can't have.
    """
    return one(name, TASKS, "CORPUS") if name.partition("(")[0].strip() in TASKS else None
