"""Arithmetic modulo a prime, in which a model first learns by heart and much later finds the rule.

    58+61=22;        modulo 97

Power et al. 2022, "Grokking: Generalization Beyond Overfitting on Small Algorithmic Datasets". The paper gives each
number a token of its own; here numbers are written in digits.
"""

from dataclasses import dataclass
from typing import ClassVar

from microformer.corpora.tasks.base import Draw, Task
from microformer.errors import SettingsError


@dataclass(frozen=True)
class Modular(Task):
    """The task.

    Args:
        modulus: p; numbers are 0 … p − 1.
        power: 1 for a + b, 2 for a² + b².
    """

    about: ClassVar[str] = "a + b modulo a prime"

    modulus: int = 97
    power: int = 1

    def __post_init__(self):
        if not 11 <= self.modulus <= 9999 or self.power not in (1, 2):
            raise SettingsError(f"CORPUS {self.name} can't be.", "modulus is 11 to 9999, and power 1 or 2.")

    @property
    def _digits(self) -> int:
        return len(str(self.modulus - 1))

    @property
    def example(self) -> int:
        return 3 * self._digits + 3

    @property
    def answer(self) -> int:
        return self._digits + 1

    def made(self, draw: Draw) -> str:
        first, second = draw.below(self.modulus), draw.below(self.modulus)
        result = (first**self.power + second**self.power) % self.modulus
        a, b, c = (f"{number:0{self._digits}}" for number in (first, second, result))
        return f"{a}{'+' if self.power == 1 else '&'}{b}={c};"
