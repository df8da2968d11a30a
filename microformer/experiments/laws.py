"""Scaling laws: what a loss comes to with the size of a model and what it learned from. Knows numbers alone.

    of size and data       L(N, D) = E + A / N^α + B / D^β         N: parameters, D: tokens learned from
    of one quantity        L(x)    = E + a / x^b                   x: compute in FLOPs, or seconds

E is the loss that no model gets below. Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", equation
2 and section 3.3 (its approach 3): the residuals of log L are made small in Huber's measure, from many starts. Huber's
width is 0.01 here and was 0.001 there: of small models the seed alone moves a loss by half a percent.

How sure it is: the residuals of the cells are drawn again with replacement, put on the fitted losses, and fitted anew
(Davison and Hinkley 1997, "Bootstrap Methods and their Application", 6.2.3): the cells were chosen, not drawn. They are
made larger by √(n / (n − p)) first, for a fit of p numbers leaves less than there was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from microformer.experiments.extra import needed

Number = int | float
_WIDTH = 0.01
_DRAWS = 200
# α, β and b: a term that falls slower is a constant, one that falls faster is gone.
EXPONENTS = (0.02, 3.0)


@dataclass(frozen=True)
class Law:
    """A fitted law.

    Args:
        exponents: of each quantity: α and β, or b.
        factors: A and B, or a.
        floor: E.
        units: what each quantity is divided by in the fit, its geometric mean.
        drawn: the same numbers, fitted to losses drawn again: a row each, as `_packed` has them.
        error: how far the fit is off the losses, as a share of them (root of the mean square).
        cells: how many it was fitted to.
    """

    exponents: tuple[float, ...]
    factors: tuple[float, ...]
    floor: float
    units: tuple[float, ...]
    drawn: Any
    error: float
    cells: int

    def __call__(self, *quantities: Number) -> float:
        """The loss at these quantities."""
        return float(_loss(self._packed(), self._scaled([quantities]))[0])

    def many(self, *quantities: Number) -> Any:
        """The loss at these quantities by each of the fits to losses drawn again. [draw]"""
        scaled = self._scaled([quantities])
        return np.array([_loss(row, scaled)[0] for row in self.drawn])

    def interval(self, *quantities: Number) -> tuple[float, float]:
        """Between which losses 95% of those fits are."""
        low, high = np.quantile(self.many(*quantities), [0.025, 0.975])
        return float(low), float(high)

    def exponent_interval(self, which: int) -> tuple[float, float]:
        """Between which numbers 95% of an exponent's fits are."""
        low, high = np.quantile(self.drawn[:, 2 + 2 * which], [0.025, 0.975])
        return float(low), float(high)

    def floor_interval(self) -> tuple[float, float]:
        """Between which numbers 95% of the floor's fits are."""
        low, high = np.quantile(np.exp(self.drawn[:, 0]), [0.025, 0.975])
        return float(low), float(high)

    def _packed(self) -> Any:
        packed = [np.log(self.floor)]
        for factor, exponent, unit in zip(self.factors, self.exponents, self.units, strict=True):
            packed += [np.log(factor) - exponent * np.log(unit), exponent]
        return np.array(packed)

    def _scaled(self, quantities: Sequence[Sequence[Number]]) -> Any:
        return np.log(np.asarray(quantities, dtype=float)) - np.log(np.asarray(self.units))


def fit(
    quantities: Sequence[Sequence[Number]], losses: Sequence[float], draws: int | None = None, seed: int = 0
) -> Law | None:
    """The law of some losses; None where they are too few to say anything about it.

    Args:
        quantities: for each loss (N, D), or (x,), all above 0.
        losses: above 0.
        draws: how often they are drawn again; None: 200 times.
        seed: of the draws: the same losses give the same law.
    """
    logs, wanted = np.log(np.asarray(quantities, dtype=float)), np.log(np.asarray(losses, dtype=float))
    number = 1 + 2 * logs.shape[1]
    # By fewer the residuals say nothing of the noise.
    if len(wanted) < number + 2 or any(len(set(column.round(6))) < 3 for column in logs.T):
        return None
    units = logs.mean(axis=0)
    scaled = logs - units
    best = min((_fitted(start, scaled, wanted) for start in _starts(logs.shape[1], wanted)), key=lambda one: one[1])[0]
    residuals = wanted - np.log(_loss(best, scaled))
    spread = (residuals - residuals.mean()) * np.sqrt(len(wanted) / (len(wanted) - number))
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(_DRAWS if draws is None else draws):
        again = np.log(_loss(best, scaled)) + random.choice(spread, len(wanted))
        drawn.append(_fitted(best, scaled, again)[0])
    return Law(
        exponents=tuple(float(one) for one in best[2::2]),
        factors=tuple(
            float(np.exp(log + exponent * unit))
            for log, exponent, unit in zip(best[1::2], best[2::2], units, strict=True)
        ),
        floor=float(np.exp(best[0])),
        units=tuple(float(np.exp(unit)) for unit in units),
        drawn=np.array(drawn),
        error=float(np.sqrt(np.mean(residuals**2))),
        cells=len(wanted),
    )


def _loss(packed: Any, scaled: Any) -> Any:
    """The losses at scaled logarithms of the quantities. packed: log E, then of each quantity log factor, exponent."""
    return np.exp(packed[0]) + np.exp(packed[1::2] - packed[2::2] * scaled).sum(axis=1)


def _starts(quantities: int, wanted: Any) -> list[Any]:
    least, usual = np.exp(wanted.min()), np.exp(wanted.mean())
    starts = []
    for share in (0.3, 0.7, 0.95):
        floor = share * least
        factor = np.log(max(usual - floor, 1e-3 * usual) / quantities)
        for first in (0.2, 0.5, 1.0):
            for other in (0.2, 0.5, 1.0) if quantities == 2 else (0.0,):
                exponents = (first, other)[:quantities]
                starts.append(np.array([np.log(floor), *(one for exponent in exponents for one in (factor, exponent))]))
    return starts


def _fitted(start: Any, scaled: Any, wanted: Any) -> tuple[Any, float]:
    """The numbers nearest to a start that make the residuals small, and how small."""
    optimize = needed("scipy.optimize")
    quantities = scaled.shape[1]
    low = [-20.0] + [-20.0, EXPONENTS[0]] * quantities
    high = [float(wanted.min())] + [20.0, EXPONENTS[1]] * quantities

    def residuals(packed: Any) -> Any:
        return np.log(_loss(packed, scaled)) - wanted

    def slopes(packed: Any) -> Any:
        terms = np.exp(packed[1::2] - packed[2::2] * scaled)
        whole = np.exp(packed[0]) + terms.sum(axis=1)
        columns = [np.exp(packed[0]) / whole]
        for which in range(quantities):
            share = terms[:, which] / whole
            columns += [share, -share * scaled[:, which]]
        return np.stack(columns, axis=1)

    inside = np.clip(start, np.array(low) + 1e-6, np.array(high) - 1e-6)
    found = optimize.least_squares(
        residuals, inside, slopes, bounds=(low, high), loss="huber", f_scale=_WIDTH, x_scale="jac",
        ftol=1e-7, xtol=1e-7, max_nfev=100,
    )  # fmt: skip
    return found.x, float(found.cost)
