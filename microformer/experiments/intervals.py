"""How sure a difference is. Knows numbers and nothing of where they come from.

Every arm is trained with the same seeds, and a seed's data order and luck are shared by all arms. With y[a, s] the loss
of arm a under seed s,

    y[a, s] = mean[a] + seed[s] + noise

and the noise is taken to be as large in every arm, so that its variance is pooled over all of them:

    s² = Σ (y[a, s] − mean[a] − mean[s] + mean)² / ((A − 1)(S − 1))
    difference to the base = mean[a] − mean[0]  ±  t · s · sqrt(2 / S)      t: Student's, with (A − 1)(S − 1) degrees

A two-way layout without interaction; Montgomery, "Design and Analysis of Experiments", chapter 4.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean


@dataclass(frozen=True)
class Difference:
    """An arm beside the base.

    Args:
        mean: of the arm's losses.
        difference: to the base's mean; below 0 is better.
        within: half the width of its 95% interval; None where one seed gives none; 0 for the base itself.
    """

    mean: float
    difference: float
    within: float | None

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `can't tell` where the interval holds 0."""
        if self.within is None or abs(self.difference) <= self.within:
            return "can't tell"
        return "better" if self.difference < 0 else "worse"


def compare(losses: Mapping[str, Sequence[float]]) -> dict[str, Difference]:
    """Each arm beside the first.

    Args:
        losses: for each arm its losses, in the same order of seeds.

    Raises:
        ValueError: the arms have different numbers of losses, or none.
    """
    rows = list(losses.values())
    seeds = len(rows[0])
    if not seeds or any(len(row) != seeds for row in rows):
        raise ValueError("every arm needs a loss for each seed")
    within = None
    degrees = (len(rows) - 1) * (seeds - 1)
    if degrees:
        of_seed = [mean(column) for column in zip(*rows, strict=True)]
        overall = mean(of_seed)
        squares = sum((loss - mean(row) - of_seed[s] + overall) ** 2 for row in rows for s, loss in enumerate(row))
        within = student(0.975, degrees) * math.sqrt(squares / degrees) * math.sqrt(2 / seeds)
    base = mean(rows[0])
    return {
        arm: Difference(mean(row), mean(row) - base, 0.0 if row is rows[0] else within) for arm, row in losses.items()
    }


def student(probability: float, degrees: int) -> float:
    """The quantile of Student's t. probability: above ½; degrees: of freedom, 1 or more."""
    low, high = 0.0, 1.0
    while _below(high, degrees) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _below(middle, degrees) < probability else (low, middle)
    return high


def _below(t: float, degrees: int) -> float:
    """P(T < t) for t ≥ 0, by the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    term = math.cos(angle) if degrees % 2 else 1.0
    total = term if degrees > 1 else 0.0
    for n in range(3 if degrees % 2 else 2, degrees, 2):
        term *= (n - 1) / n * math.cos(angle) ** 2
        total += term
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if degrees % 2 else math.sin(angle) * total
    return 0.5 + inside / 2
