"""Copying at a distance: a few symbols, a long wait, and the same symbols again.

    <dgkapcmb......................>dgkapcmb        each symbol `distance` characters after it came first

The task of Hochreiter and Schmidhuber 1997 and Graves et al. 2014, "Neural Turing Machines", as one text. No symbol
comes twice, so that the one before tells where one is. A model that sees fewer than `distance` tokens back, and
remembers nothing of what came before, can only guess: one right answer in symbols · (symbols − 1) · … .
"""

from dataclasses import dataclass
from typing import ClassVar

from microformer.corpora.tasks.base import Draw, Task
from microformer.errors import SettingsError

_SYMBOLS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Copy(Task):
    """The task.

    Args:
        length: symbols to copy.
        distance: characters from a symbol to its copy.
        symbols: how many different ones there are.
    """

    about: ClassVar[str] = "symbols, a wait, and the same symbols again, to be copied `distance` characters on"

    length: int = 8
    distance: int = 119
    symbols: int = 16

    def __post_init__(self):
        if not 2 <= self.symbols <= len(_SYMBOLS) or not 1 <= self.length <= self.symbols:
            raise SettingsError(
                f"CORPUS task:copy can't take {self.length} different ones of {self.symbols} symbols.",
                f"symbols is 2 to {len(_SYMBOLS)}, and length 1 to as many.",
            )
        if not self.length < self.distance <= 2**16:
            raise SettingsError(
                f"CORPUS task:copy can't have a distance of {self.distance} with {self.length} symbols.",
                f"it is {self.length + 1} to {2**16}.",
            )

    @property
    def example(self) -> int:
        return 1 + self.distance + self.length

    @property
    def answer(self) -> int:
        return self.length

    def made(self, draw: Draw) -> str:
        word = draw.different(_SYMBOLS[: self.symbols], self.length)
        return f"<{word}{'.' * (self.distance - self.length - 1)}>{word}"
