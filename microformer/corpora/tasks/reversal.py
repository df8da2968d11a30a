"""Reversal: a row of symbols, and the same backwards.

    dgkapcmb>bmcpakgd;

A query must look further back the further it comes: by where it stands, and not by what stands before it.
"""

from dataclasses import dataclass
from typing import ClassVar

from microformer.corpora.tasks.base import Draw, Task
from microformer.errors import SettingsError

_SYMBOLS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Reversal(Task):
    """The task.

    Args:
        length: symbols in a row; any may come more than once.
        symbols: how many different ones there are.
    """

    about: ClassVar[str] = "symbols, and the same backwards"

    length: int = 8
    symbols: int = 16

    def __post_init__(self):
        if not 2 <= self.symbols <= len(_SYMBOLS) or not 2 <= self.length <= 2**12:
            raise SettingsError(
                f"CORPUS {self.name} can't be.", f"symbols is 2 to {len(_SYMBOLS)}, and length 2 to {2**12}."
            )

    @property
    def example(self) -> int:
        return 2 * self.length + 2

    @property
    def answer(self) -> int:
        return self.length + 1

    def made(self, draw: Draw) -> str:
        row = draw.some(_SYMBOLS[: self.symbols], self.length)
        return f"{row}>{row[::-1]};"
