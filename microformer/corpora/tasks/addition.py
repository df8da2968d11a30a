"""Addition of two numbers, digit by digit as at school.

    47+85=132;        with reverse=1, the ones first, as they are found:        47+85=231;

minGPT's demonstration (Karpathy 2020); that the reversed sum is easier: Nogueira et al. 2021, "Investigating the
Limitations of Transformers with Simple Arithmetic Tasks". Numbers have all their digits, zeros before them too.
"""

from dataclasses import dataclass
from typing import ClassVar

from microformer.corpora.tasks.base import Draw, Task
from microformer.errors import SettingsError


@dataclass(frozen=True)
class Addition(Task):
    """The task.

    Args:
        digits: of each number.
        reverse: 1 for the sum's digits from the ones on, 0 as they are written.
    """

    about: ClassVar[str] = "the sum of two numbers of `digits` digits"

    digits: int = 2
    reverse: int = 0

    def __post_init__(self):
        if not 1 <= self.digits <= 12 or self.reverse not in (0, 1):
            raise SettingsError(
                f"CORPUS {self.name} can't be.", "digits is 1 to 12, and reverse 0 or 1; 1 digit has 100 sums."
            )

    @property
    def example(self) -> int:
        return 3 * self.digits + 4

    @property
    def answer(self) -> int:
        return self.digits + 2

    def made(self, draw: Draw) -> str:
        first, second = (draw.some("0123456789", self.digits) for _ in range(2))
        total = f"{int(first) + int(second):0{self.digits + 1}}"
        return f"{first}+{second}={total[::-1] if self.reverse else total};"
