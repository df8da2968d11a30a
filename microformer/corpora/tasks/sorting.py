"""Sorting: symbols in any order, and the same in the alphabet's.

    fabacd>aabcdf;

minGPT's other demonstration (Karpathy 2020), there with 3 symbols, of which there are only 729 rows of six.
"""

from dataclasses import dataclass
from typing import ClassVar

from microformer.corpora.tasks.base import Draw, Task
from microformer.errors import SettingsError

_SYMBOLS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Sorting(Task):
    """The task.

    Args:
        length: symbols to sort; any may come more than once.
        symbols: how many different ones there are.
    """

    about: ClassVar[str] = "symbols, and the same in order"
    examples: ClassVar[int] = 50_000

    length: int = 6
    symbols: int = 10

    def __post_init__(self):
        if not 2 <= self.symbols <= len(_SYMBOLS) or not 2 <= self.length <= 256:
            raise SettingsError(
                f"CORPUS {self.name} can't be.", f"symbols is 2 to {len(_SYMBOLS)}, and length 2 to 256."
            )

    @property
    def example(self) -> int:
        return 2 * self.length + 2

    @property
    def answer(self) -> int:
        return self.length + 1

    def made(self, draw: Draw) -> str:
        row = draw.some(_SYMBOLS[: self.symbols], self.length)
        return f"{row}>{''.join(sorted(row))};"
