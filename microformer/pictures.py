"""Loss curves as SVG and PNG. Knows numbers and labels, not where they come from; needs no display.

A loss falls fast and then slowly, and what matters is the slow part: the picture's height belongs to it, and the
first, high losses leave through the top. matplotlib's objects are used directly, so that no state of a notebook or
of another picture is touched. The same numbers give the same bytes.
"""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from microformer.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Number = int | float  # the checker of types in the tests takes them apart
Point = tuple[Number, Number]
Range = tuple[Number, Number]

INK = "#1f2430"
SOFT = "#667085"
AXIS = "#c3c9d4"
GRID = "#eceff3"
STRONG = ("#1d4ed8", "#c2410c", "#047857", "#7c3aed", "#be185d", "#0e7490", "#a16207", "#475569")
PALE = "#8fb0e6"
FAINT = "#d9e4f6"
_PALE_INK = "#6f90c8"
# What a page may call these colours; where it calls them nothing they are as above.
_NAMES = {
    "#ffffff": "--paper", INK: "--ink", SOFT: "--soft", AXIS: "--axis", GRID: "--grid", PALE: "--pale",
    FAINT: "--faint", _PALE_INK: "--pale-ink", **{color: f"--line-{n}" for n, color in enumerate(STRONG, 1)},
}  # fmt: skip
# Longer names would push the curves aside: letters, in a wide picture and in a narrow one.
_LONGEST = (26, 13)


@dataclass(frozen=True)
class Label:
    """The words at the right end of a line, at the height of a loss."""

    text: str
    value: Number
    color: str
    weight: str = "normal"


class Picture(ABC):
    """Something that is drawn: as files, in a page, or in a notebook that is handed it."""

    size: ClassVar[Range] = (10.0, 5.625)  # inches

    @property
    @abstractmethod
    def label(self) -> str:
        """What it is, for who can't see it."""

    @abstractmethod
    def draw(self, figure: Figure) -> None:
        """Draws it on an empty figure, in the figure's own size."""

    def svg(self, width: Number | None = None, height: Number | None = None, prefix: str = "") -> str:
        """An SVG element to stand in a page, as wide as its place there.

        Its colours are the page's: `--ink`, `--soft`, `--line-1` and so on, where it has them.

        Args:
            width, height: in inches, at which the words have their size: 10 points. None: the picture's own.
            prefix: what its ids begin with, where several stand in one page.
        """
        with _plain_style():
            drawn = io.StringIO()
            self._figure(width, height).savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
        return _for_a_page(drawn.getvalue(), prefix, self.label)

    def write(self, path_svg: Path, path_png: Path) -> None:
        """Writes it as SVG (its text stays text) and PNG (160 pixels an inch), each whole or not at all.

        Raises:
            FileError: a picture can't be written.
        """
        with _plain_style():
            figure = self._figure(None, None)
            with atomic_file(path_svg) as partial:
                figure.savefig(partial, format="svg", metadata={"Date": None, "Creator": None})
            with atomic_file(path_png) as partial:
                figure.savefig(partial, format="png", metadata={"Software": None})

    def _figure(self, width: Number | None, height: Number | None) -> Figure:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width or self.size[0], height or self.size[1]), dpi=160)
        FigureCanvasAgg(figure)
        self.draw(figure)
        return figure

    def _repr_svg_(self) -> str:
        return self.svg()


@dataclass(frozen=True)
class Curves(Picture):
    """Curves of a loss, named where they end; a notebook that is handed them shows them.

    Args:
        series: by name, (x, loss) pairs in the order of x. Values that are not finite leave a gap.
        x_label: what x is, with its unit.
        y_label: what the loss is, with its unit.
        baselines: by name, losses to compare with: dashed lines, or a word at the edge for one far off the curves.
        title: above the picture.
        best: the (x, loss) to mark with its value.
        pale: the series that are noisy: drawn thin and pale, a long one with its running mean, the others strong;
            None: those whose name begins with "train".
        whole: whether the height is for all values, as where they are no losses.
    """

    series: Mapping[str, Sequence[Point]]
    x_label: str
    y_label: str
    baselines: Mapping[str, Number] = field(default_factory=dict)
    title: str = ""
    best: Point | None = None
    pale: frozenset[str] | None = None
    whole: bool = False

    @property
    def label(self) -> str:
        return self.title or self.y_label

    @property
    def faint(self) -> frozenset[str]:
        """The series that are drawn pale."""
        return frozenset(name for name in self.series if name.startswith("train")) if self.pale is None else self.pale

    @property
    def colors(self) -> dict[str, str]:
        """The colour of each series, as `#rrggbb`."""
        series = _finite(self.series)
        strong = [name for name in series if name not in self.faint]
        # Of more than there are colours, those that end lowest have one and a name; the others show the range.
        lowest = set(sorted(strong, key=lambda name: _last(series[name])[1])[: len(STRONG)])
        named = iter(STRONG)
        return {
            name: PALE if name in self.faint else next(named) if name in lowest else AXIS for name in series
        }  # fmt: skip

    def draw(self, figure: Figure) -> None:
        _draw(figure, self)


@dataclass(frozen=True)
class Panels(Picture):
    """Curves of several ways to do a thing, each done several times, side by side against different measures.

    The mean of a way's curves is drawn strong, each of them faint; the first way is the one the others are held
    against. The height is shared, and so are the colours, which the line above the panels names.

    Args:
        panels: by what x is, for each way by its name its curves: (x, loss) pairs in the order of x.
        y_label: what the loss is, with its unit.
        title: above the picture.
    """

    size: ClassVar[Range] = (12.0, 4.8)

    panels: Mapping[str, Mapping[str, Sequence[Sequence[Point]]]]
    y_label: str
    title: str = ""

    @property
    def label(self) -> str:
        return f"{self.title or self.y_label} against {', '.join(self.panels)}"

    def draw(self, figure: Figure) -> None:
        _draw_panels(figure, self)


def loss_curves(
    path_svg: Path,
    path_png: Path,
    series: Mapping[str, Sequence[Point]],
    *,
    x_label: str,
    y_label: str,
    baselines: Mapping[str, Number] | None = None,
    title: str = "",
    best: Point | None = None,
) -> None:
    """Draws curves of a loss and writes them, as `Curves` says. With nothing to draw, the frame says so.

    Raises:
        FileError: a picture can't be written.
    """
    Curves(series, x_label, y_label, baselines or {}, title, best).write(path_svg, path_png)


@contextmanager
def _plain_style() -> Iterator[None]:
    """Inside, matplotlib is as it is delivered, whatever the user made of it."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that the font lacks: boxes in the PNG, whole in the SVG; a user can't mend it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # A user's own matplotlibrc may ask for LaTeX or for white on black: this picture is the same everywhere.
        matplotlib.rcdefaults()
        # Nor is a run's name mathematics, even with a $ in it.
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "microformer", "text.parse_math": False})
        yield


def _for_a_page(svg: str, prefix: str, label: str) -> str:
    """The element of a picture's file, its colours by the page's names, its ids its own, as wide as its place."""
    svg = svg[svg.index("<svg") :]
    # The file's own rules would be the whole page's.
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", svg, count=1)
    named = f'<svg role="img" aria-label="{html.escape(label)}" style="width: 100%; height: auto; display: block"'
    svg = svg.replace("<svg", named, 1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)

    def colored(style: re.Match[str]) -> str:
        return re.sub(
            r"#[0-9a-f]{6}", lambda found: f"var({_NAMES[found[0]]}, {found[0]})" if found[0] in _NAMES else found[0],
            style[0],
        )  # fmt: skip

    return re.sub(r'style="[^"]*"', colored, svg).strip()


def _finite(series: Mapping[str, Sequence[Point]]) -> dict[str, list[Point]]:
    """The series that have a finite point, their other losses made NaN, which leaves a gap."""
    cleaned = {
        name: [(x, y if math.isfinite(y) else math.nan) for x, y in points if math.isfinite(x)]
        for name, points in series.items()
    }
    return {name: points for name, points in cleaned.items() if any(not math.isnan(y) for _, y in points)}


def _finite_values(baselines: Mapping[str, Number]) -> dict[str, Number]:
    return {name: value for name, value in baselines.items() if math.isfinite(value)}


def _draw(figure: Figure, curves: Curves) -> None:
    from matplotlib.ticker import MaxNLocator

    series, baselines, best = _finite(curves.series), _finite_values(curves.baselines), curves.best
    if best is not None and not all(map(math.isfinite, best)):
        best = None
    pale = curves.faint
    # In inches: words have one size, whatever the picture's is.
    width, height = figure.get_size_inches()
    top = 0.9 if curves.title else 0.6
    axes = figure.add_axes((0.6 / width, 0.7 / height, 1 - 2 / width, 1 - (0.7 + top) / height))
    figure.text(0.25 / width, 1 - 0.31 / height, curves.title, size=14, weight="bold", color=INK, va="center")
    figure.text(0.25 / width, 1 - (top - 0.27) / height, curves.y_label, size=10, color=SOFT, va="center")
    axes.set_xlabel(curves.x_label, size=10, color=SOFT, labelpad=8)
    quiet(axes)
    axes.xaxis.set_major_formatter(lambda x, _: _number(x))
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    if not series:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "nothing measured yet", size=13, color=SOFT, ha="center", transform=axes.transAxes)
        return

    left, right = _x_range(series)
    whole = all(float(x).is_integer() for points in series.values() for x, _ in points)
    number = "auto" if width > 6 else max(2, int(width))
    axes.xaxis.set_major_locator(MaxNLocator(number, integer=whole, steps=[1, 2, 2.5, 5, 10]))  # no half steps
    low, high = _reaching(*_interesting(series, pale, left, right, best), baselines)
    if curves.whole:
        values = [y for points in series.values() for _, y in points if not math.isnan(y)]
        low, high = min(values), max(values)
        if low == high:
            low, high = min(low, 0.0), max(high, 0.0) or 1.0
    axes.set_xlim(left, right + 0.008 * (right - left))
    # Room below the lowest point for the words that name the best one.
    axes.set_ylim(low - 0.14 * (high - low), high + 0.03 * (high - low))

    labels = _draw_series(axes, series, curves.colors, best)
    labels += _draw_baselines(axes, {name: value for name, value in baselines.items() if low <= value <= high})
    place_labels(figure, axes, labels)
    _name_far_baselines(
        axes,
        above={name: value for name, value in baselines.items() if value > high},
        below={name: value for name, value in baselines.items() if value < low},
    )
    if best is not None:
        _mark_best(axes, best)


def _draw_panels(figure: Figure, picture: Panels) -> None:
    from matplotlib.ticker import MaxNLocator

    width, height = figure.get_size_inches()
    means = {what: _finite({name: _mean_curve(each) for name, each in ways.items()}) for what, ways in
             picture.panels.items()}  # fmt: skip
    colors = _colors_of_ways(next(iter(means.values()), {}))
    top = 0.9 if picture.title else 0.55
    figure.text(0.25 / width, 1 - 0.31 / height, picture.title, size=14, weight="bold", color=INK, va="center")
    below = _name_ways(figure, next(iter(means.values()), {}), colors, 1 - (top - 0.25) / height)
    room = 1 - below + 0.5 / height
    figure.text(0.25 / width, 1 - room + 0.18 / height, picture.y_label, size=10, color=SOFT, va="center")
    left, gap = 0.65 / width, 0.4 / width
    each_width = (1 - left - 0.25 / width - gap * (len(means) - 1)) / max(1, len(means))
    for number, (what, series) in enumerate(means.items()):
        axes = figure.add_axes((left + number * (each_width + gap), 0.7 / height, each_width, 1 - room - 0.7 / height))
        axes.set_xlabel(what, size=10, color=SOFT, labelpad=8)
        quiet(axes)
        axes.xaxis.set_major_formatter(lambda x, _: _number(x) if x < 1e6 else f"{x / 1e6:g} M")
        axes.xaxis.set_major_locator(MaxNLocator(max(2, int(each_width * width / 0.8)), steps=[1, 2, 2.5, 5, 10]))
        axes.ticklabel_format(axis="y", style="plain", useOffset=False)
        if not series:
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "nothing measured", size=11, color=SOFT, ha="center", transform=axes.transAxes)
            continue
        start, end = _x_range(series)
        # One height for all: the losses are the same, whatever they are drawn against.
        low, high = _late(next(one for one in means.values() if one))
        low = min([low, *(y for name in series for curve in picture.panels[what][name] for _, y in curve if y < low)])
        axes.set_xlim(start, end + 0.008 * (end - start))
        axes.set_ylim(low - 0.06 * (high - low), high + 0.03 * (high - low))
        if number:
            axes.tick_params(labelleft=False)
        for name, points in reversed(series.items()):  # what the others are held against lies on top
            color = colors[name]
            curves = picture.panels[what][name]
            for curve in curves if len(curves) > 1 else ():
                axes.plot(*zip(*curve, strict=True), color=color, linewidth=0.7, alpha=0.4, zorder=2)
            marker = "o" if len(points) <= 8 else ""
            wide = 1.0 if color == AXIS else 1.8
            axes.plot(*zip(*points, strict=True), color=color, linewidth=wide, marker=marker, markersize=3.5, zorder=3)


def _late(series: Mapping[str, Sequence[Point]]) -> Range:
    """The lowest and the highest loss after the first quarter: differences are small beside how far all have come."""
    left, right = _x_range(series)
    late = {name: [point for point in points if point[0] >= left + 0.25 * (right - left)] or points for name, points in
            series.items()}  # fmt: skip
    return _interesting(late, (), left, left, None)


def _mean_curve(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean of curves place by place, as far as all of them go."""
    return [
        (math.fsum(x for x, _ in points) / len(points), math.fsum(y for _, y in points) / len(points))
        for points in zip(*curves, strict=False)
    ]


def _colors_of_ways(series: Mapping[str, Sequence[Point]]) -> dict[str, str]:
    """The first is dark; of the others those that end lowest have colours."""
    first, *others = series or [""]
    lowest = set(sorted(others, key=lambda name: _last(series[name])[1])[: len(STRONG)])
    strong = iter(STRONG)
    return {first: INK} | {name: next(strong) if name in lowest else AXIS for name in others}


def _name_ways(
    figure: Figure, series: Mapping[str, Sequence[Point]], colors: Mapping[str, str], height: Number
) -> float:
    """Writes the ways' names with their last losses in their colours, in as many lines as they take.

    Returns:
        the height below them.
    """
    x = start = 0.25 / figure.get_figwidth()
    # A bold letter is nearly a tenth of an inch wide; a line has a loss as well.
    longest = max(9, min(60, int((figure.get_figwidth() - 0.5) / 0.095) - 7))
    for name, points in series.items():
        if colors[name] == AXIS:
            continue
        words = f"{_shortened(name, longest)} {_loss(_last(points)[1])}"
        text = figure.text(x, height, words, size=10, weight="bold", color=colors[name], va="center")
        # The words' width in the SVG depends on the reader's font: some more than here.
        wide = 1.06 * text.get_window_extent().width / figure.bbox.width
        if x > start and x + wide > 0.98:
            x, height = start, height - 0.25 / figure.get_figheight()
            text.set_position((x, height))
        x += wide + 0.25 / figure.get_figwidth()
    if more := sum(color == AXIS for color in colors.values()):
        figure.text(x, height, f"and {more} more", size=10, color=SOFT, va="center")
    return height


def quiet(axes: Axes) -> None:
    """Leaves of a frame what is read: the line below, pale lines across."""
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(AXIS)
    axes.tick_params(which="both", length=0, pad=6, labelsize=9.5, labelcolor=SOFT)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=1.0)


def _x_range(series: Mapping[str, Sequence[Point]]) -> Range:
    xs = [x for points in series.values() for x, y in points if not math.isnan(y)]
    left, right = min(xs), max(xs)
    if 0 < left < 0.2 * right or left == right > 0:
        left = 0.0
    return (left, right) if right > left else (left, left + 1.0)


def _interesting(
    series: Mapping[str, Sequence[Point]], pale: Collection[str], left: Number, right: Number, best: Point | None
) -> Range:
    """The lowest and the highest loss that the picture's height is given to: the first, steep part is left out."""
    lows, highs = [] if best is None else [best[1]], []
    for name, points in series.items():
        late = [y for x, y in points if x >= left + 0.06 * (right - left) and not math.isnan(y)]
        values = sorted(late or [y for _, y in points if not math.isnan(y)])
        # One noisy batch must not squeeze the rest.
        lows.append(values[len(values) // 50] if name in pale else values[0])
        highs.append(values[len(values) * 9 // 10] if name in pale else values[-1])
    low, high = min(lows), max(highs)
    # Nor must noise fill the picture where nothing changes.
    spare = max(0.0, 0.12 * max(abs(low), abs(high), 0.1) - (high - low))
    return low - spare / 4, high + spare * 3 / 4


def _reaching(low: Number, high: Number, baselines: Mapping[str, Number]) -> Range:
    """The range, widened to the baselines that it reaches without squeezing the curves much."""
    far = 0.5 * (high - low)
    near = [value for value in baselines.values() if low - far <= value <= high + far]
    return min([low, *near]), max([high, *near])


def _draw_series(
    axes: Axes, series: Mapping[str, Sequence[Point]], colors: Mapping[str, str], best: Point | None
) -> list[Label]:
    labels = []
    figure = axes.get_figure()
    most = _LONGEST[0] if figure is None or figure.bbox.width > 6 * figure.dpi else _LONGEST[1]
    for name, points in series.items():
        # A dot where it was measured, while dots can be told apart.
        color = colors[name]
        marker = "o" if len(points) == 1 or (len(points) <= 60 and color != PALE) else ""
        if color == PALE:
            if len(points) > 60:
                axes.plot(*zip(*points, strict=True), color=FAINT, linewidth=0.8, zorder=2)
                points = _running_mean(points, reach=len(points) // 60)
            axes.plot(
                *zip(*points, strict=True),
                color=PALE,
                linewidth=1.4,
                marker=marker,
                markersize=4,
                clip_on=not marker,
                zorder=2,
            )
            labels.append(Label(_shortened(name, most), _last(points)[1], _PALE_INK))
        elif color == AXIS:
            axes.plot(*zip(*points, strict=True), color=AXIS, linewidth=1.0, zorder=2)
        else:
            last_x, last_y = _last(points)
            axes.plot(*zip(*points, strict=True), color=color, linewidth=2.2, marker=marker, markersize=4.5, zorder=3)
            said_by_best = best is not None and best[0] == last_x
            words = _shortened(name, most) if said_by_best else f"{_shortened(name, most)} {_loss(last_y)}"
            labels.append(Label(words, last_y, color, "bold"))
    return labels


def _shortened(name: str, most: int) -> str:
    """A name without its middle, where it is long: two of one kind differ at their ends."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[:half]}…{name[-half:]}"


def _last(points: Sequence[Point]) -> Point:
    return next((x, y) for x, y in reversed(points) if not math.isnan(y))


def _running_mean(points: Sequence[Point], reach: int) -> list[Point]:
    """Means of each loss and its neighbours up to `reach` away, at some 600 places and the last finite.

    NaN stays, and is left out of its neighbours' means.
    """
    means: list[Point] = []
    last = max(index for index, (_, y) in enumerate(points) if not math.isnan(y))
    for index in sorted({*range(0, last, max(1, last // 600)), last}):
        x, y = points[index]
        near = [each for _, each in points[max(0, index - reach) : index + reach + 1] if not math.isnan(each)]
        means.append((x, math.nan if math.isnan(y) else math.fsum(near) / len(near)))
    return means


def _draw_baselines(axes: Axes, baselines: Mapping[str, Number]) -> list[Label]:
    for value in baselines.values():
        axes.axhline(value, color=SOFT, linewidth=1.0, dashes=(5, 4), zorder=1)
    return [Label(f"{name} {_loss(value)}", value, SOFT) for name, value in baselines.items()]


def _name_far_baselines(axes: Axes, above: Mapping[str, Number], below: Mapping[str, Number]) -> None:
    for arrow, baselines, height, anchor in (("↑", above, 1.015, "bottom"), ("↓", below, 0.02, "bottom")):
        names = "      ".join(f"{arrow} {name} {_loss(value)}" for name, value in baselines.items())
        axes.text(1, height, names, size=9.5, color=SOFT, ha="right", va=anchor, transform=axes.transAxes)


def _mark_best(axes: Axes, best: Point) -> None:
    x, y = best
    left, right = axes.get_xlim()
    axes.plot([x], [y], marker="o", markersize=9, color="white", markeredgecolor=INK, markeredgewidth=1.6, zorder=4)
    where = (x - left) / (right - left)
    axes.annotate(
        f"best {_loss(y)} at {_number(x)}",
        (x, y),
        xytext=(0, -13),
        textcoords="offset points",
        size=10,
        color=INK,
        ha="left" if where < 0.15 else "right" if where > 0.85 else "center",
        va="top",
        bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        zorder=4,
    )


def place_labels(figure: Figure, axes: Axes, labels: Sequence[Label]) -> None:
    """Writes each label right of its line's end, moved up or down where two would touch."""
    low, high = axes.get_ylim()
    height = axes.get_position().height * figure.get_figheight() * 72  # points
    labels = sorted(labels, key=lambda label: label.value)
    wanted = [min(max((label.value - low) / (high - low), 0.0), 1.0) * height for label in labels]
    widest = 0.0
    for label, place in zip(labels, _spread(wanted, gap=15.0), strict=True):
        text = axes.annotate(
            label.text,
            (1, place / height),
            xycoords="axes fraction",
            xytext=(7, 0),
            textcoords="offset points",
            size=10,
            weight=label.weight,
            color=label.color,
            va="center",
            annotation_clip=False,
        )
        widest = max(widest, text.get_window_extent().width)
    # The words' width in the SVG depends on the reader's font: some more than here.
    needed = 1.04 * widest / figure.bbox.width + 0.02
    place = axes.get_position()
    axes.set_position((place.x0, place.y0, max(0.4, 1 - needed - place.x0), place.height))


def _spread(wanted: Sequence[float], gap: float) -> list[float]:
    """The places nearest to the `wanted` ones, in ascending order, that keep a gap between neighbours."""
    groups: list[tuple[float, int]] = []  # each a middle and a number of labels stacked around it
    for place in wanted:
        group = (place, 1)
        while groups and group[0] - groups[-1][0] < gap * (group[1] + groups[-1][1]) / 2:
            other, count = groups.pop()
            total = count + group[1]
            group = ((other * count + group[0] * group[1]) / total, total)
        groups.append(group)
    return [middle + gap * (place - (count - 1) / 2) for middle, count in groups for place in range(count)]


def _loss(value: Number) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.4g}"


def _number(value: Number) -> str:
    return f"{value:,.10g}"
