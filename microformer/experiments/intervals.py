"""How sure a difference is. Knows numbers and nothing of where they come from.

Every arm is trained with the same seeds, and a seed's data order and luck are shared by all arms. With y[a, s] the loss
of arm a under seed s, arm 0 the base, A arms besides and S seeds,

    y[a, s] = mean[a] + seed[s] + noise[a, s]        d[a, s] = y[a, s] − y[0, s]        v[a] = variance of d[a, ·]

An arm's difference to the base is the mean of its d, and its interval

    mean of d[a, ·]  ±  t · sqrt(v / S)        t: Student's, at 1 − 0.05 / (2 A), with f degrees
    v = (v[1] + … + v[A]) / A                  f = (S − 1) · (2 A)² / (A − 1 + (A + 1)²)

Pooled over the arms, three seeds say something; and A intervals at 1 − 0.05 / A each (Bonferroni) are all right
together 95 times in 100. The v[a] share the base's noise, so that they are fewer degrees than (S − 1) A: f is
Satterthwaite's (1946), for noise that is as large in every arm. With one arm this is the paired t interval.

An arm that is noisier than the others must not borrow their calm. So where

    var(y[a, ·] − mean of the other arms, the base too) / (1 + 1 / A)   over   the other arms' own noise

is above the quantile of F (S − 1 and (A − 1)(S − 1) degrees) at 1 − 0.2 / A, it is judged by its own v[a] with S − 1
degrees, if that is the wider. Chosen by simulation, 30,000 families each, of which were called different though nothing
was, and how often a difference of four times the noise was found (in brackets):

    3 arms                    3 seeds: so      by own v   two-way pool      5 seeds: so     by own v   two-way pool
    all alike                  2.3% (72%)    4.9% (34%)     4.0% (90%)      3.2% (98%)    4.7% (93%)    4.1% (100%)
    one three times noisier    4.2           4.9            7.0             3.6           4.7           6.9
    one ten times noisier      3.5           4.9           13.1             1.9           4.9          11.3
    the base three times       4.7           4.0            9.7             4.5           3.6          10.9
    the base ten times         6.1           2.8           14.2             4.4           2.3          12.9
    heavy tails (t of 3)       1.6 (79)      3.9 (48)       3.3 (91)        2.1 (96)      3.3 (93)      3.4 (98)

The two-way pool is that of a layout without interaction (Montgomery, "Design and Analysis of Experiments", chapter 4):
it finds more where all arms are alike, and one noisy arm makes it wrong once in eight.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, variance

# How often, in a hundred families of arms in which nothing is different, one may be called so.
_WRONG = 0.05
# How often one of the arms may be taken for noisier though all are alike.
_STANDS_OUT = 0.2
# More seeds than nobody would train to know.
_MOST_SEEDS = 50


@dataclass(frozen=True)
class Difference:
    """An arm beside the base.

    Args:
        mean: of the arm's losses.
        spread: half the width of that mean's own 95% interval; None where one seed gives none.
        difference: to the base's mean; below 0 is better.
        within: half the width of the difference's interval, corrected for the number of arms; None where one seed gives
            none; 0 for the base itself.
        more: how many more seeds would tell, by the difference and the noise as they are now; None where it is told, or
            more than 50 would be needed.
        same: whether each of its losses is the base's to the bit.
    """

    mean: float
    spread: float | None
    difference: float
    within: float | None
    more: int | None = None
    same: bool = False

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `can't tell` where the interval holds 0, or `the same` to the bit."""
        if self.same:
            return "the same"
        if self.within is None or abs(self.difference) <= self.within:
            return "can't tell"
        return "better" if self.difference < 0 else "worse"

    @property
    def said(self) -> str:
        """The verdict in words, and where there is none, what would bring it."""
        if self.verdict == "the same":
            return "the same to the bit"
        if self.verdict != "can't tell":
            return self.verdict
        if self.within is None:
            return "can't tell from one seed: 2 more give an interval"
        if self.more is not None:
            return f"can't tell yet: about {self.more} more seed{'' if self.more == 1 else 's'} would"
        return f"can't tell: any difference is below {_rounded_up(abs(self.difference) + self.within)}"


def compare(losses: Mapping[str, Sequence[float]]) -> dict[str, Difference]:
    """Each arm beside the first. The module's docstring has the formulas.

    Args:
        losses: for each arm its losses, in the same order of seeds. Any unit; less is better.

    Raises:
        ValueError: the arms have different numbers of losses, or none.
    """
    rows = {name: [float(loss) for loss in row] for name, row in losses.items()}
    base_name = next(iter(rows))
    base = rows[base_name]
    seeds = len(base)
    if not seeds or any(len(row) != seeds for row in rows.values()):
        raise ValueError("every arm needs a loss for each seed")
    # What is the base to the bit is no comparison, and has no noise to add to a pool.
    arms = [name for name, row in rows.items() if name != base_name and row != base]
    noise = _noise([rows[name] for name in arms], base) if arms and seeds > 1 else []
    found = {}
    for name, row in rows.items():
        difference, within, more = fmean(row) - fmean(base), None, None
        if name not in arms:
            within = 0.0
        elif noise:
            spread, share = noise[arms.index(name)]
            within = _within(spread, share, seeds, len(arms))
            needed = range(seeds + 1, seeds + _MOST_SEEDS + 1)
            if abs(difference) <= within:
                enough = (s for s in needed if abs(difference) > _within(spread, share, s, len(arms)))
                more = next((s - seeds for s in enough), None)
        spread = student(0.975, seeds - 1) * math.sqrt(variance(row) / seeds) if seeds > 1 else None
        same = name != base_name and name not in arms
        found[name] = Difference(fmean(row), spread, difference, within, more, same)
    return found


def _noise(arms: Sequence[Sequence[float]], base: Sequence[float]) -> list[tuple[float, float]]:
    """Of each arm the standard deviation of its difference to the base, and the degrees of freedom a seed brings."""
    number = len(arms)
    own = [variance([y - x for x, y in zip(base, arm, strict=True)]) for arm in arms]
    pool = fmean(own)
    share = (2 * number) ** 2 / (number - 1 + (number + 1) ** 2)
    found = []
    for arm, ours in zip(arms, own, strict=True):
        apart = _stands_out(arm, [base, *(other for other in arms if other is not arm)])
        alone = _within(math.sqrt(ours), 1.0, len(base), number) > _within(math.sqrt(pool), share, len(base), number)
        found.append((math.sqrt(ours), 1.0) if apart and alone else (math.sqrt(pool), share))
    return found


def _stands_out(arm: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Whether an arm is noisier than the others."""
    seeds, number = len(arm), len(others)
    if number == 1:
        return False
    of_seed = [fmean(column) for column in zip(*others, strict=True)]
    overall = fmean(of_seed)
    squares = sum((loss - fmean(row) - of_seed[s] + overall) ** 2 for row in others for s, loss in enumerate(row))
    rest = squares / ((number - 1) * (seeds - 1))
    ours = variance([loss - seed for loss, seed in zip(arm, of_seed, strict=True)]) / (1 + 1 / number)
    return ours > rest * fisher(1 - _STANDS_OUT / number, seeds - 1, (number - 1) * (seeds - 1))


def _within(spread: float, share: float, seeds: int, arms: int) -> float:
    return student(1 - _WRONG / (2 * arms), share * (seeds - 1)) * spread / math.sqrt(seeds)


def _rounded_up(value: float) -> str:
    """A bound in two digits, never below it."""
    if not value:
        return "0"
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / step - 1e-9) * step:.2g}"


@lru_cache(1024)
def student(probability: float, degrees: int | float) -> float:
    """The quantile of Student's t. probability: above ½; degrees: of freedom, 1 or more, not necessarily whole."""
    # T² is F with 1 and as many degrees.
    return math.sqrt(fisher(2 * probability - 1, 1, degrees))


@lru_cache(1024)
def fisher(probability: float, above: int | float, below: int | float) -> float:
    """The quantile of Fisher's F, with degrees of freedom of the numerator and of the denominator."""
    low, high = 0.0, 1.0
    while _beta(above * high / (above * high + below), above / 2, below / 2) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        less = _beta(above * middle / (above * middle + below), above / 2, below / 2) < probability
        low, high = (middle, high) if less else (low, middle)
    return high


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (Abramowitz and Stegun, 26.5.8)."""
    if x > (a + 1) / (a + b + 2):  # where the fraction is slow
        return 1 - _beta(1 - x, b, a)
    if x <= 0:
        return 0.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    # From its far end, where what is left out is nothing any more.
    fraction = 1.0
    for m in range(100, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        fraction = 1 + odd / (1 + even / fraction)
    return front / (a * fraction)
