"""A Markov chain whose entropy is known: how near does a model come to what nobody can go below?

    acbbacdbacca …        each symbol drawn by the probabilities that the one before it has

    entropy = − Σ_i π_i Σ_j P_ij ln P_ij,  π the share of each symbol in the long run

Shannon 1948, "A Mathematical Theory of Communication", section 7. The probabilities are drawn once, from the number of
symbols alone. There is no answer to be right about: what counts is the loss beside the entropy.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from microformer.corpora.tasks.base import Draw, Task
from microformer.errors import SettingsError

_SYMBOLS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Markov(Task):
    """The task.

    Args:
        symbols: how many there are.
        length: characters an example; its first one is given, and the rest counts.
    """

    about: ClassVar[str] = "a random walk whose entropy is known"
    examples: ClassVar[int] = 10_000

    symbols: int = 6
    length: int = 64

    def __post_init__(self):
        if not 2 <= self.symbols <= len(_SYMBOLS) or not 16 <= self.length <= 2**12:
            raise SettingsError(
                f"CORPUS {self.name} can't be.", f"symbols is 2 to {len(_SYMBOLS)}, and length 16 to {2**12}."
            )

    @property
    def example(self) -> int:
        return self.length

    @property
    def answer(self) -> int:
        return self.length - 1

    @cached_property
    def transitions(self) -> list[list[float]]:
        """P: for each symbol the probabilities of the next."""
        draw = Draw(f"markov {self.symbols}")
        rows = [[(0.05 + draw.below(10**6) / 10**6) ** 4 for _ in range(self.symbols)] for _ in range(self.symbols)]
        return [[weight / sum(row) for weight in row] for row in rows]

    @cached_property
    def shares(self) -> list[float]:
        """π: the share of each symbol in the long run, the π with π P = π."""
        found = [1 / self.symbols] * self.symbols
        for _ in range(1000):
            rows = list(zip(found, self.transitions, strict=True))
            found = [sum(share * row[at] for share, row in rows) for at in range(self.symbols)]
        return found

    @property
    def entropy(self) -> float:
        rows = (-sum(p * math.log(p) for p in row if p) for row in self.transitions)
        return sum(share * row for share, row in zip(self.shares, rows, strict=True))

    def made(self, draw: Draw) -> str:
        walk = [_drawn(self.shares, draw)]
        while len(walk) < self.length:
            walk.append(_drawn(self.transitions[walk[-1]], draw))
        return "".join(_SYMBOLS[at] for at in walk)


def _drawn(probabilities: list[float], draw: Draw) -> int:
    left = draw.below(2**52) / 2**52
    for at, probability in enumerate(probabilities):
        left -= probability
        if left < 0:
            return at
    return len(probabilities) - 1
