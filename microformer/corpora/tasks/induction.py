"""Induction: a random row of symbols that is repeated, in periods of any length.

    kdbpe kdbpe kdbpe …        written without the spaces; what comes next stood after this symbol the last time

Olsson et al. 2022, "In-context Learning and Induction Heads". No symbol comes twice in a period, and periods differ, so
that neither a symbol alone nor a distance tells what comes next. It takes two layers: one to tell each position what
stands before it, one to find the position before which this symbol stood.
"""

from dataclasses import dataclass
from typing import ClassVar

from microformer.corpora.tasks.base import Draw, Task
from microformer.errors import SettingsError

_SYMBOLS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Induction(Task):
    """The task. The second half of an example counts, for a period is half of it at most.

    Args:
        length: characters an example; periods are a quarter to a half of it.
        symbols: how many different ones there are.
    """

    about: ClassVar[str] = "a random row of symbols, repeated; periods differ"

    length: int = 32
    symbols: int = 26

    def __post_init__(self):
        if not 2 <= self.symbols <= len(_SYMBOLS) or not 4 <= self.length <= 2 * self.symbols or self.length % 4:
            raise SettingsError(
                f"CORPUS {self.name} can't be.",
                f"symbols is 2 to {len(_SYMBOLS)}, and length a multiple of 4, and twice as many symbols at most.",
            )

    @property
    def example(self) -> int:
        return self.length

    @property
    def answer(self) -> int:
        return self.length // 2

    def made(self, draw: Draw) -> str:
        period = self.length // 4 + draw.below(self.length // 4 + 1)
        row = draw.different(_SYMBOLS[: self.symbols], period)
        return (row * self.length)[: self.length]
