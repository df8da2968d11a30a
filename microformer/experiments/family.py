"""What a scaling has measured, and what follows: laws, and the best size for a time. Knows nothing of the trainings.

A time is that of the steps themselves; start, validations and end come on top. What is said of times that are longer
than the longest training is the law's, and nobody's measurement; and a law of loss and tokens is one of tokens never
seen before: from the fifth time through a text on they teach less (Muennighoff et al. 2023, "Scaling Data-Constrained
Language Models"), and a size whose loss rises again with a longer budget is past what this law describes.
"""

import html
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from microformer import files
from microformer.experiments import drawing, layout
from microformer.experiments.laws import EXPONENTS, Law, fit
from microformer.settings import Settings

MINUTES = (1, 5, 20, 60)
_FRESH = 4  # times through a text that are as good as new text
_RISES = 1.002  # a loss that is higher by less is luck


@dataclass(frozen=True, order=True)
class Size:
    """A model of a family: EMBED_DIM and NUM_LAYERS."""

    embed_dim: int
    num_layers: int

    def __str__(self) -> str:
        return f"{self.embed_dim}x{self.num_layers}"

    def changes(self, base: Settings) -> dict[str, Any]:
        """The settings that make it of the base: heads as wide as the base's or nearly, FF_DIM in its proportion."""
        model = base.model
        heads = _divisor(self.embed_dim, self.embed_dim * model.num_heads / model.embed_dim)
        found: dict[str, Any] = {
            "embed_dim": self.embed_dim,
            "num_layers": self.num_layers,
            "num_heads": heads,
            "ff_dim": max(1, round(self.embed_dim * model.ff_dim / model.embed_dim)),
        }
        if model.num_kv_heads != "auto":
            found["num_kv_heads"] = _divisor(heads, heads * model.num_kv_heads / model.num_heads)
        return found


def _divisor(number: int, wanted: int | float) -> int:
    """The divisor of a number that is nearest to what is wanted, as a ratio."""
    return min(
        (one for one in range(1, number + 1) if number % one == 0),
        key=lambda one: abs(math.log(one / max(wanted, 0.5))),
    )


@dataclass(frozen=True)
class Measured:
    """One training.

    Args:
        size: as `64x2`.
        level: the number of its budget, from 0.
        seed: its seed.
        run: its name.
        parameters: N.
        loss: of validation at its end, in nats a token.
        steps, tokens: what it learned from; tokens is D.
        seconds: what the steps took.
        tokens_per_second: during them.
    """

    size: str
    level: int
    seed: int
    run: str
    parameters: int
    loss: float
    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float


@dataclass(frozen=True)
class Best:
    """The best size for a time.

    Args:
        seconds: the time.
        size: the one with the lowest loss.
        between: the smallest and the largest that may be it: in 95% of the fits to losses drawn again.
        loss: of it, in nats a token; low, high: its 95% interval.
        longer: how many times the longest training the time is; 1 or less: within what was measured.
        times: how often the text is read in it.
        largest: whether the largest of the family may be best: a larger one may be better.
    """

    seconds: int | float
    size: str
    between: tuple[str, str]
    loss: float
    low: float
    high: float
    longer: float
    times: float
    largest: bool


@dataclass(frozen=True)
class Scaling:
    """A family of sizes, trained. A notebook that is handed one shows its tables and picture.

    Args:
        sizes: from the smallest on, as they were asked for.
        cells: the trainings.
        budget, used: seconds that were given, and taken.
        failed: the sizes that could not be trained on, and why.
        missing: trainings for which no time was left, on a machine that became slower.
        text_tokens: of the training part.
        base_name: what the base is called.
        folder: where it is kept.
    """

    sizes: tuple[Size, ...]
    cells: tuple[Measured, ...]
    budget: float
    used: float
    failed: Mapping[str, str] = field(default_factory=dict)
    missing: int = 0
    text_tokens: int = 0
    base_name: str | None = None
    folder: Path = Path()

    @cached_property
    def of(self) -> dict[str, list[Measured]]:
        """By size its trainings' means over seeds, the shortest first; the sizes by their parameters."""
        found: dict[str, list[Measured]] = {}
        for size in {one.size: one.parameters for one in sorted(self.cells, key=lambda one: one.parameters)}:
            own = [one for one in self.cells if one.size == size]
            levels = sorted({one.level for one in own})
            found[size] = [_mean([one for one in own if one.level == level]) for level in levels]
        return found

    @property
    def longest(self) -> float:
        """The seconds of the longest training."""
        return max((one.seconds for one in self.cells), default=0.0)

    @cached_property
    def rising(self) -> dict[str, int]:
        """The sizes whose loss is higher after more of a text that they have read before, and from which tokens on:
        they learn it by heart."""
        found = {}
        for size, own in self.of.items():
            least = math.inf
            for one in sorted(own, key=lambda one: one.tokens):
                if one.loss > _RISES * least and self._times(one.tokens) > 1:
                    found[size] = one.tokens
                    break
                least = min(least, one.loss)
        return found

    @cached_property
    def learning(self) -> list[Measured]:
        """The trainings that the law describes."""
        return [one for one in self.cells if one.tokens < self.rising.get(one.size, math.inf)]

    @cached_property
    def law(self) -> Law | None:
        """L(N, D), where three sizes and eight trainings or more are there to tell."""
        if len(self.learning) < 8:
            return None
        return fit([(one.parameters, one.tokens) for one in self.learning], [one.loss for one in self.learning])

    def frontier(self, quantity: str) -> list[tuple[float, float]]:
        """The lowest losses for what they cost, in the order of it.

        Args:
            quantity: `seconds`, or `compute`: 6 · N · D FLOPs.
        """
        points = sorted((cost(one, quantity), one.loss) for own in self.of.values() for one in own)
        found: list[tuple[float, float]] = []
        for x, loss in points:
            if not found or loss < found[-1][1]:
                found.append((x, loss))
        return found

    @cached_property
    def by_compute(self) -> Law | None:
        """L(C), of the frontier."""
        points = self.frontier("compute")
        return fit([(x,) for x, _ in points], [loss for _, loss in points])

    @cached_property
    def by_seconds(self) -> Law | None:
        """L(t), of the frontier."""
        points = self.frontier("seconds")
        return fit([(x,) for x, _ in points], [loss for _, loss in points])

    def speed(self, size: str) -> float:
        """Tokens a second of a size."""
        return statistics.median(one.tokens_per_second for one in self.cells if one.size == size)

    def best(self, seconds: int | float) -> Best | None:
        """The best size for a time; None where nothing can be said."""
        sizes = {size: own[0].parameters for size, own in self.of.items()}
        # One that learns by heart by then is past the law, and worse than it says.
        fit_for_it = [size for size in sizes if size not in self.rising or seconds < self._rises_at(size)]
        if not fit_for_it or not self.longest:
            return None
        longer = seconds / self.longest
        if self.law is None:
            return self._measured_best(seconds, fit_for_it)
        import numpy as np

        points = {size: (sizes[size], self.speed(size) * seconds) for size in fit_for_it}
        best = min(fit_for_it, key=lambda size: self.law(*points[size]))  # type: ignore[misc]
        drawn = np.stack([self.law.many(*points[size]) for size in fit_for_it])
        winners = np.sort(drawn.argmin(axis=0))
        low, high = (fit_for_it[winners[round(share * (len(winners) - 1))]] for share in (0.025, 0.975))
        interval = np.quantile(drawn.min(axis=0), [0.025, 0.975])
        return Best(
            seconds, best, (low, high), self.law(*points[best]), float(interval[0]), float(interval[1]), longer,
            self._times(points[best][1]), high == list(sizes)[-1],
        )  # fmt: skip

    def _measured_best(self, seconds: int | float, sizes: Sequence[str]) -> Best | None:
        """The best size between the times that were measured, by the line through each size's losses."""
        losses = {size: loss for size in sizes if (loss := _between(self.of[size], seconds)) is not None}
        if not losses:
            return None
        best = min(losses, key=lambda size: losses[size])
        times = self._times(self.speed(best) * seconds)
        return Best(
            seconds, best, (best, best), losses[best], math.nan, math.nan, seconds / self.longest, times,
            best == list(self.of)[-1],
        )  # fmt: skip

    def _times(self, tokens: int | float) -> float:
        """How often the text is read by so many tokens."""
        return tokens / max(1, self.text_tokens)

    def _rises_at(self, size: str) -> float:
        return self.rising[size] / self.speed(size)

    def bests(self) -> list[Best]:
        """The best size for 1, 5, 20 and 60 minutes, as far as something can be said."""
        return [found for minutes in MINUTES if (found := self.best(60 * minutes)) is not None]

    # ----------------------------------------------------------------------------------------------- how it is told

    def rows(self) -> list[dict[str, Any]]:
        """A row a size: parameters, speed, and the loss of each budget."""
        found = []
        for size, own in self.of.items():
            row: dict[str, Any] = {"size": size, "parameters": own[0].parameters, "tokens/s": self.speed(size)}
            losses = {one.level: one.loss for one in own}
            row |= {time: losses.get(level) for level, time in self._times_of_levels.items()}
            row["text read"] = f"{max(self._times(one.tokens) for one in own):.1f}×"
            found.append(row)
        return found

    @property
    def formats(self) -> dict[str, str]:
        """How the tables write the figures of a column; these columns stand to the right."""
        losses = dict.fromkeys(self._times_of_levels.values(), ".4f")
        return {"parameters": ",", "tokens/s": ",.0f", "loss": ".3f", "text read": "", **losses}

    @property
    def _times_of_levels(self) -> dict[int, str]:
        """How long the trainings of a budget took, in words."""
        return {
            level: f"{statistics.median(one.seconds for one in self.cells if one.level == level):,.0f} s"
            for level in sorted({one.level for one in self.cells})
        }

    def best_rows(self) -> list[dict[str, Any]]:
        """A row a time: the best size for it."""
        return [
            {
                "time": f"{one.seconds / 60:.0f} min",
                "best size": one.size,
                "between": "–" if math.isnan(one.low) else " and ".join(dict.fromkeys(one.between)),
                "loss": one.loss,
                "95%": "–" if math.isnan(one.low) else f"{one.low:.3f} to {one.high:.3f}",
                "": self._remark(one),
            }
            for one in self.bests()
        ]

    def _remark(self, best: Best) -> str:
        said = []
        if best.longer > 1.05:
            said.append(
                f"{best.longer:.0f} times the longest training" if best.longer >= 2 else "beyond what was trained"
            )
        if best.times > _FRESH:
            said.append(f"reads the text {best.times:,.0f} times")
        if best.largest:
            said.append("a larger one may be better")
        return "; ".join(said)

    def sentences(self) -> list[str]:
        """The laws, and what is to be known of them."""
        lines = []
        if self.law is not None:
            law, (alpha, beta) = self.law, self.law.exponents
            a, b, floor = law.exponent_interval(0), law.exponent_interval(1), law.floor_interval()
            lines.append(
                f"L(N, D) = {law.floor:.3f} + {law.factors[0]:.3g} / N^{alpha:.3f} + "
                f"{law.factors[1]:.3g} / D^{beta:.3f}, N parameters "
                f"and D tokens, is off by {law.error:.1%} over {law.cells} trainings."
            )
            lines.append(
                f"95%: E {floor[0]:.2f} to {floor[1]:.2f}, α {a[0]:.2f} to {a[1]:.2f}, β {b[0]:.2f} to {b[1]:.2f}."
            )
        else:
            lines.append("there are too few sizes or trainings for a law of size and data: three sizes, better five.")
        frontiers = (
            (self.by_compute, "C", "C = 6·N·D FLOPs"),
            (self.by_seconds, "t", "t seconds of this machine"),
        )
        for law, quantity, unit in frontiers:
            if law is None:
                continue
            low, high = law.exponent_interval(0)
            if EXPONENTS[0] < 0.99 * low and 1.01 * high < EXPONENTS[1]:  # else anything would fit
                lines.append(
                    f"the lowest losses: L({quantity}) = {law.floor:.3f} + {law.factors[0]:.3g} / "
                    f"{quantity}^{law.exponents[0]:.3f}, {unit}; 95%: exponent {low:.2f} to {high:.2f}."
                )
        for size, tokens in self.rising.items():
            lines.append(
                f"{size} gets worse from {self._rises_at(size):,.0f} s on, {self._times(tokens):.1f} times through the "
                "text: it learns it by heart. More text or DROPOUT would help; no law is fitted to that."
            )
        most = max((self._times(one.tokens) for one in self.cells), default=0.0)
        if most > _FRESH and not self.rising:
            lines.append(
                f"the text was read up to {most:.0f} times: from the fifth on it teaches less than new text would."
            )
        if self.missing:
            few = "1 training is" if self.missing == 1 else f"{self.missing} trainings are"
            lines.append(f"{few} missing: the machine became slower than it was when the time was divided.")
        lines += [f"{size} was left out: {reason}." for size, reason in self.failed.items()]
        return lines

    def markdown(self) -> str:
        """Tables and sentences, for a page."""
        tables = [layout.markdown(layout.texts(rows, self.formats), self.formats) for rows in self._tables()]
        return "".join(f"{table}\n" for table in tables) + "\n".join(self.sentences()) + "\n"

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "sizes": [str(size) for size in self.sizes],
            "budget": self.budget,
            "used": round(self.used, 1),
            "text_tokens": self.text_tokens,
            "laws": {
                name: None if law is None else {
                    "floor": law.floor, "factors": law.factors, "exponents": law.exponents, "error": law.error,
                    "cells": law.cells, "floor_95": law.floor_interval(),
                    "exponents_95": [law.exponent_interval(which) for which in range(len(law.exponents))],
                }
                for name, law in (("N, D", self.law), ("compute", self.by_compute), ("seconds", self.by_seconds))
            },
            "best": [_plain(one) for one in self.bests()],
            "gets_worse": self.rising,
            "failed": dict(self.failed),
            "cells": [asdict(one) for one in self.cells],
        }  # fmt: skip

    def picture(self) -> drawing.Times:
        """Losses against seconds."""
        law, band = self.law, None
        lines: dict[str, list[tuple[float, float]]] = {}
        if law is not None and self.cells:
            import numpy as np

            first = min(one.seconds for one in self.cells)
            xs = np.geomspace(first, max(60 * MINUTES[-1], 2 * self.longest), 80)
            drawn = {}
            for size, own in self.of.items():
                # Past where it rises the law is not the size's any more.
                until = self._rises_at(size) if size in self.rising else math.inf
                inside = [x for x in xs if x < until]
                quantities = [(own[0].parameters, self.speed(size) * x) for x in inside]
                lines[size] = [(float(x), law(*one)) for x, one in zip(inside, quantities, strict=True)]
                drawn[size] = [law.many(*one) for one in quantities]
            band = []
            for place, x in enumerate(xs):
                columns = [drawn[size][place] for size in drawn if place < len(drawn[size])]
                if columns:
                    low, high = np.quantile(np.stack(columns).min(axis=0), [0.025, 0.975])
                    band.append((float(x), float(low), float(high)))
        means = {size: [(one.seconds, one.loss) for one in own] for size, own in self.of.items()}
        seeds = [(one.size, one.seconds, one.loss) for one in self.cells]
        several = len(seeds) > sum(map(len, means.values()))
        return drawing.Times(
            means,
            seeds if several else [],
            lines,
            band or [],
            self.longest,
            "validation loss (nats per token)",
            "Loss against time, by size",
        )

    def write(self, folder: str | Path) -> None:
        """Writes table.md, scaling.json, and scaling.svg and .png.

        Raises:
            FileError: the folder can't be written to.
        """
        folder = Path(folder)
        files.write_text(folder / "table.md", self.markdown())
        files.write_json(folder / "scaling.json", self.to_json())
        self.picture().write(folder / "scaling.svg", folder / "scaling.png")

    def _repr_html_(self) -> str:
        tables = [layout.markup(layout.texts(rows, self.formats), self.formats) for rows in self._tables()]
        said = (f"<p>{html.escape(line)}</p>" for line in self.sentences())
        return "".join([*tables, *said, self.picture().svg()])

    def _tables(self) -> list[list[dict[str, Any]]]:
        return [rows for rows in (self.rows(), self.best_rows()) if rows]


def cost(one: Measured, quantity: str) -> float:
    """What a training cost: `seconds`, or `compute`: 6 · N · D FLOPs (Kaplan et al. 2020, 2.1: attention's own, which
    grows with the context, is left out)."""
    return one.seconds if quantity == "seconds" else 6.0 * one.parameters * one.tokens


def _mean(cells: Sequence[Measured]) -> Measured:
    """One size and budget, over its seeds."""
    first = cells[0]
    means = {
        name: statistics.fmean(getattr(one, name) for one in cells) for name in ("loss", "seconds", "tokens_per_second")
    }
    return Measured(**{**asdict(first), **means})


def _plain(best: Best) -> dict[str, Any]:
    values = asdict(best).items()
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values}


def _between(own: Sequence[Measured], seconds: int | float) -> float | None:
    """The loss at a time, on the line through its neighbours over the logarithm of time."""
    for before, after in itertools.pairwise(own):
        if before.seconds <= seconds <= after.seconds:
            share = math.log(seconds / before.seconds) / math.log(after.seconds / before.seconds)
            return before.loss + share * (after.loss - before.loss)
    return None
