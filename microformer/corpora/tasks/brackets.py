"""Balanced brackets: does every bracket that opens close again, in the right order?

    ([]()[[]])>y;        ([)]([][])>n;

The language of Dyck with two kinds (Chomsky and Schützenberger 1963); for transformers Ebrahimi et al. 2020, "How Can
Self-Attention Networks Recognize Dyck-n Languages?". About half of the rows are balanced; in the others one bracket
is changed, or two have changed places, so that counting is not enough.
"""

from dataclasses import dataclass
from typing import ClassVar

from microformer.corpora.tasks.base import Draw, Task
from microformer.errors import SettingsError

_KINDS = ("()", "[]", "{}", "<>")


@dataclass(frozen=True)
class Brackets(Task):
    """The task.

    Args:
        length: brackets in a row, an even number.
        kinds: how many kinds there are.
    """

    about: ClassVar[str] = "whether a row of brackets is balanced"

    length: int = 16
    kinds: int = 2

    def __post_init__(self):
        if not 1 <= self.kinds <= len(_KINDS) or not 4 <= self.length <= 2**12 or self.length % 2:
            raise SettingsError(
                f"CORPUS {self.name} can't be.", f"kinds is 1 to {len(_KINDS)}, and length an even number from 4 on."
            )

    @property
    def example(self) -> int:
        return self.length + 3

    @property
    def answer(self) -> int:
        return 2

    def made(self, draw: Draw) -> str:
        row = self._balanced(draw)
        if draw.below(2):
            at, other = draw.below(self.length), draw.below(self.length)
            if draw.below(2):
                row[at], row[other] = row[other], row[at]
            else:
                row[at] = draw.some("".join(_KINDS[: self.kinds]), 1)
        return f"{''.join(row)}>{'y' if balanced(row) else 'n'};"

    def _balanced(self, draw: Draw) -> list[str]:
        row: list[str] = []
        waiting: list[str] = []
        while len(row) < self.length:
            must_close = len(waiting) == self.length - len(row)
            if waiting and (must_close or draw.below(2)):
                row.append(waiting.pop())
            else:
                opening, closing = _KINDS[draw.below(self.kinds)]
                row.append(opening)
                waiting.append(closing)
        return row


def balanced(row: list[str] | str) -> bool:
    """Whether every bracket that opens closes again, the last one first."""
    closing = {kind[0]: kind[1] for kind in _KINDS}
    waiting: list[str] = []
    for bracket in row:
        if bracket in closing:
            waiting.append(closing[bracket])
        elif not waiting or waiting.pop() != bracket:
            return False
    return not waiting
