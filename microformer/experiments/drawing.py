"""Pictures of searches and of scaling laws, in the manner of the others. Knows numbers, not where they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from microformer.pictures import AXIS, FAINT, INK, PALE, SOFT, STRONG, Label, Picture, place_labels, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Number = int | float
# Of a trial: its number or setting, its loss, how it ended.
Tried = tuple[Number | str | bool, Number, str]

_ACROSS = 4  # panels side by side


@dataclass(frozen=True)
class History(Picture):
    """Losses in the order in which they were found, and the best so far.

    Args:
        trials: number, loss and end of each; `ended` are drawn full, `pruned` hollow, others as crosses at the edge.
        y_label: what the loss is, with its unit.
        title: above the picture.
    """

    trials: Sequence[Tried]
    y_label: str
    title: str = ""

    @property
    def label(self) -> str:
        return f"{self.title}: {self.y_label} by trial"

    def draw(self, figure: Figure) -> None:
        axes = _titled(figure, self.title, self.y_label)
        axes.set_xlabel("trial", size=10, color=SOFT, labelpad=8)
        ended = [(number, loss) for number, loss, how in self.trials if how == "ended" and math.isfinite(loss)]
        if not ended:
            _nothing(axes)
            return
        from matplotlib.ticker import MaxNLocator

        low, high = _range([loss for _, loss in ended])
        numbers = [number for number, _, _ in self.trials if not isinstance(number, str)]
        room = 0.02 * max(1, max(numbers) - min(numbers))
        axes.set_xlim(min(numbers) - room, max(numbers) + room)
        axes.set_ylim(low - 0.08 * (high - low), high + 0.06 * (high - low))
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10]))
        _dots(axes, self.trials, high, STRONG[0])
        steps, best = [], math.inf
        for number, loss in sorted(ended):
            best = min(best, loss)
            steps.append((number, best))
        steps.append((max(numbers), best))
        axes.step(*zip(*steps, strict=True), where="post", color=INK, linewidth=1.6, zorder=2)
        loss = min(loss for _, loss in ended)
        others = {"pruned": "○ stopped early", "else": "× no loss"}
        there = {how if how == "pruned" else "else" for _, _, how in self.trials if how != "ended"}
        legend = "      ".join(word for how, word in others.items() if how in there)
        axes.text(1, 1.03, legend, size=9.5, color=SOFT, ha="right", va="bottom", transform=axes.transAxes)
        place_labels(
            figure,
            axes,
            [
                Label(f"best {loss:.4f}", loss, INK, "bold"),
            ],
        )


@dataclass(frozen=True)
class Panel:
    """One setting's values and the losses with them.

    Args:
        trials: value, loss and end of each.
        words: its choices, in order; None for numbers of a range.
        log: whether the range is one of ratios.
        importance: its share, if that is known.
    """

    trials: Sequence[Tried]
    words: Sequence[str] | None = None
    log: bool = False
    importance: float | None = None


@dataclass(frozen=True)
class Slices(Picture):
    """Losses by each setting, a panel each, in one scale.

    Args:
        panels: by the setting's name.
        y_label: what the loss is, with its unit.
        title: above the picture.
    """

    panels: Mapping[str, Panel]
    y_label: str
    title: str = ""

    @property
    def label(self) -> str:
        return f"{self.title}: {self.y_label} by setting"

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        rows = -(-len(self.panels) // _ACROSS)
        across = min(_ACROSS, len(self.panels))
        return (max(6.0, 1.0 + 3.0 * across), 0.9 + 3.0 * rows)

    def draw(self, figure: Figure) -> None:
        width, height = figure.get_size_inches()
        _title(figure, self.title, self.y_label)
        ended = [loss for panel in self.panels.values() for _, loss, how in panel.trials if how == "ended"]
        across = max(1, min(_ACROSS, len(self.panels)))
        rows = max(1, -(-len(self.panels) // across))
        low, high = _range(ended) if ended else (0.0, 1.0)
        each = (width - 0.9) / across
        tall = (height - 0.9) / rows
        for place, (name, panel) in enumerate(self.panels.items()):
            row, column = divmod(place, across)
            left, bottom = 0.7 + column * each, height - 0.9 - (row + 1) * tall + 0.85
            axes = figure.add_axes((left / width, bottom / height, (each - 0.25) / width, (tall - 1.0) / height))
            quiet(axes)
            share = "" if panel.importance is None else f"  {panel.importance:.0%}"
            axes.set_xlabel(f"{name}{share}", size=10, color=INK, labelpad=6)
            if not ended:
                _nothing(axes)
                continue
            axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
            if column:
                axes.set_yticklabels([])
            few = None if panel.log else _few([value for value, _, _ in panel.trials])
            if (words := panel.words or few) is not None:
                _words(axes, panel, words, high)
            else:
                _numbers(axes, panel, high)


def _few(values: Sequence[Number | str | bool]) -> list[str] | None:
    """Numbers that are so few that many trials have the same; None where they are more."""
    found = sorted({value for value in values if not isinstance(value, str)})
    return [str(value) for value in found] if 0 < len(found) <= 6 < len(values) else None


def _numbers(axes: Axes, panel: Panel, high: float) -> None:
    values = [float(value) for value, _, _ in panel.trials]
    if panel.log:
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_xscale("log")
        few = not values or max(values) / min(values) < 30
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=5))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        from matplotlib.ticker import MaxNLocator

        whole = all(value.is_integer() for value in values)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=whole))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.6g}")
    _dots(axes, panel.trials, high, STRONG[0])
    axes.margins(x=0.08)


def _words(axes: Axes, panel: Panel, words: Sequence[str], high: float) -> None:
    place = {word: number for number, word in enumerate(words)}
    of: dict[str, int] = {}
    moved: list[Tried] = []
    for value, loss, how in panel.trials:
        word = str(value)
        # Side by side, so that none hides another.
        of[word] = of.get(word, 0) + 1
        moved.append((place[word] + 0.5 * ((of[word] * 0.618) % 1 - 0.5), loss, how))
    _dots(axes, moved, high, STRONG[0])
    axes.set_xlim(-0.6, len(words) - 0.4)
    short = [word if len(word) <= 14 else f"{word[:9]}…{word[-4:]}" for word in words]
    axes.set_xticks(range(len(words)), short)
    if sum(map(len, short)) > 26:
        for label in axes.get_xticklabels():
            label.set(rotation=25, ha="right", size=8.5)
    for number in range(1, len(words)):
        axes.axvline(number - 0.5, color=FAINT, linewidth=1, zorder=0)


def _dots(axes: Axes, trials: Sequence[Tried], high: float, color: str) -> None:
    """Each trial at its loss; one above the picture at its edge."""
    top = high + 0.03 * (axes.get_ylim()[1] - high)
    kinds: dict[str, tuple[list[Number], list[Number]]] = {}
    for x, loss, how in trials:
        assert not isinstance(x, str)
        above = not math.isfinite(loss) or loss > high
        kind = ("above" if how == "ended" else how if how == "pruned" else "none") if above else how
        xs, ys = kinds.setdefault(kind, ([], []))
        xs.append(x)
        ys.append(top if above else loss)
    looks = {
        "ended": {"marker": "o", "color": color, "markersize": 5.5, "alpha": 0.8, "markeredgewidth": 0},
        "pruned": {"marker": "o", "color": "none", "markeredgecolor": PALE, "markersize": 5.5, "markeredgewidth": 1.2},
        "above": {"marker": "^", "color": color, "markersize": 6, "alpha": 0.8, "markeredgewidth": 0},
        "none": {"marker": "x", "color": SOFT, "markersize": 5.5, "markeredgewidth": 1.3},
    }
    for kind, (xs, ys) in kinds.items():
        axes.plot(xs, ys, linestyle="none", clip_on=False, zorder=3, **looks.get(kind, looks["none"]))
    ended = [(loss, x) for x, loss, how in trials if how == "ended"]
    if ended:
        loss, x = min(ended)
        ring = {"marker": "o", "markersize": 10, "color": "none", "markeredgecolor": INK, "markeredgewidth": 1.6}
        axes.plot([x], [loss], clip_on=False, zorder=5, **ring)


def _range(losses: Sequence[Number]) -> tuple[float, float]:
    """The losses that the picture's height is given to: a few that are far worse leave through its top."""
    ordered = sorted(losses)
    low, most, usual = ordered[0], ordered[-1], ordered[(len(ordered) - 1) * 3 // 4]
    high = most if most - low <= 4 * (usual - low) else low + 2.5 * (usual - low)
    # Nor must noise fill the picture where nothing differs.
    least = 0.005 * max(abs(low), 0.1)
    return (low, high) if high - low > least else ((low + high - least) / 2, (low + high + least) / 2)


def _titled(figure: Figure, title: str, y_label: str) -> Axes:
    width, height = figure.get_size_inches()
    _title(figure, title, y_label)
    axes = figure.add_axes((0.7 / width, 0.7 / height, 1 - 2.1 / width, 1 - 1.6 / height))
    quiet(axes)
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    return axes


def _title(figure: Figure, title: str, y_label: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(0.25 / width, 1 - 0.31 / height, title, size=14, weight="bold", color=INK, va="center")
    figure.text(0.25 / width, 1 - 0.63 / height, y_label, size=10, color=SOFT, va="center")


def _nothing(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, "nothing measured yet", size=13, color=SOFT, ha="center", transform=axes.transAxes)


@dataclass(frozen=True)
class Times(Picture):
    """Losses of several sizes against the time they were trained for.

    Args:
        sizes: by name, (seconds, loss) of each budget.
        seeds: name, seconds and loss of each training, where there are several of one size and budget.
        lines: by name, what the law says, (seconds, loss).
        band: seconds, and between which losses the law's lowest is.
        longest: the seconds up to which it was measured; beyond it lines are dashed.
        y_label: what the loss is, with its unit.
        title: above the picture.
    """

    sizes: Mapping[str, Sequence[tuple[Number, Number]]]
    seeds: Sequence[tuple[str, Number, Number]]
    lines: Mapping[str, Sequence[tuple[Number, Number]]]
    band: Sequence[tuple[Number, Number, Number]]
    longest: Number
    y_label: str
    title: str = ""

    @property
    def label(self) -> str:
        return f"{self.title}: {', '.join(self.sizes)}"

    def draw(self, figure: Figure) -> None:
        axes = _titled(figure, self.title, self.y_label)
        points = [point for own in self.sizes.values() for point in own]
        if not points:
            _nothing(axes)
            return
        from matplotlib.ticker import FixedLocator, NullLocator

        ends = [x for own in self.lines.values() for x, _ in own] or [x for x, _ in points]
        left, right = min(x for x, _ in points) / 1.15, max(ends) * 1.05
        seen = [loss for _, loss in points] + [low for _, low, _ in self.band]
        low, high = min(seen), max(seen)
        room = max(high - low, 0.01 * high)
        axes.set_xscale("log")
        axes.set_xlim(left, right)
        axes.set_ylim(low - 0.06 * room, high + 0.06 * room)
        axes.xaxis.set_major_locator(FixedLocator([x for x in _CLOCK if left <= x <= right]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda x, _: f"{x / 60:g} min" if x >= 60 else f"{x:g} s")
        axes.set_xlabel("time of training", size=10, color=SOFT, labelpad=8)
        if self.band:
            xs, lows, highs = zip(*self.band, strict=True)
            axes.fill_between(xs, lows, highs, color=PALE, alpha=0.4, linewidth=0, zorder=1)
            axes.text(
                1, 1.012, "shaded: the lowest, 95%", size=9, color=SOFT, ha="right", va="bottom",
                transform=axes.transAxes,
            )  # fmt: skip
        if self.longest < right / 1.1 and self.lines:
            axes.axvline(self.longest, color=AXIS, linewidth=1, zorder=1)
            axes.annotate(
                "beyond here: the law alone", (self.longest, 1.012), xycoords=("data", "axes fraction"),
                xytext=(4, 0), textcoords="offset points", size=9, color=SOFT, va="bottom", annotation_clip=False,
            )  # fmt: skip
        labels = []
        for number, (name, own) in enumerate(self.sizes.items()):
            color = STRONG[number % len(STRONG)]
            for size, x, loss in self.seeds:
                if size == name:
                    axes.plot([x], [loss], "o", color=color, markersize=3.5, alpha=0.35, markeredgewidth=0, zorder=3)
            line = self.lines.get(name, ())
            inside = [point for point in line if point[0] <= self.longest]
            beyond = [point for point in line if point[0] >= (inside[-1][0] if inside else 0)]
            joined = "none" if line else "-"
            axes.plot(
                *zip(*own, strict=True),
                marker="o",
                color=color,
                markersize=5.5,
                linestyle=joined,
                linewidth=1.4,
                zorder=4,
            )
            for part, style in ((inside, "-"), (beyond, (0, (4, 3)))):
                if len(part) > 1:
                    axes.plot(*zip(*part, strict=True), color=color, linewidth=1.5, linestyle=style, zorder=2)
            labels.append(Label(name, (line or own)[-1][1], color, "bold"))
        place_labels(figure, axes, labels)


# Times that one says.
_CLOCK = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600, 7200, 18000, 36000, 86400)
