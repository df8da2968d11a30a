"""The page of a report, from what the other files say of runs. Knows how it is laid out, and no figures of its own."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microformer import files
from microformer.errors import RunError, SettingsError
from microformer.experiments.listing import Runs, matching, runs
from microformer.experiments.reporting import facts, looks, samples
from microformer.pictures import Curves, Panels, Picture
from microformer.runs import ACROSS, RUNS, Run
from microformer.settings import Settings

if TYPE_CHECKING:
    from microformer.experiments.comparison import Comparison

_HERE = Path(__file__).parent
# Width and height in inches: of a page, and of a telephone.
_WIDE, _NARROW = (9.6, 4.4), (3.6, 3.3)
_ACROSS = {"step": "steps", "tokens": "tokens", "seconds": "seconds"}
# What of a training is drawn besides its losses: where it stands in the metrics, what it is, and in a word.
_COURSE = {"grad_norm": ("norm of the gradient, before it is clipped", "norm"), "lr": ("learning rate", "rate")}
# What several runs are told apart by, besides their settings, and how it is called here.
_FIGURES = {
    "val_loss": "nats a token", "bits_per_char": "bits a character", "parameters": "parameters", "steps": "steps",
    "seconds": "seconds", "tokens_per_second": "tokens a second", "ended": "ended",
}  # fmt: skip


@dataclass(frozen=True)
class _Asked:
    """How samples are written: as in `report`."""

    prompt: str | None
    most: int
    temperature: float
    seed: int
    tell: Callable[[str], None]


def report(
    names: Sequence[str],
    output: str | Path = "report.html",
    *,
    prompt: str | None = None,
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    seed: int = 0,
    trust_code: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Writes a report of runs, or of a comparison, as one HTML file.

    Args:
        names: runs, by name, folder or pattern, or the folder of one comparison; none: the latest run.
        output: the file.
        prompt: what samples begin with; None: the beginning of a line, or a task's question.
        max_new_tokens: of each sample; 0 for no samples.
        temperature, seed: of the samples.
        trust_code: whether runs' own components are run though nothing was trained with them on this machine.
        tell: called with a line before something takes its time.

    Returns:
        the file.

    Raises:
        MicroformerError: no such run, or the file can't be written.
    """
    if max_new_tokens < 0:
        raise SettingsError(f"--max-new-tokens {max_new_tokens} can't be: it is 0 or more.", "0 is for no samples.")
    if Path(output).is_dir():
        raise SettingsError(f"{output} is a folder, and a file is to be written.", f"name one: {output}/report.html")
    from microformer.generation import Sampler

    Sampler(temperature)  # a value that can't be is told before anything is written
    asked = _Asked(prompt, max_new_tokens, temperature, seed, tell)
    chosen = _chosen(names, trust_code)
    files.write_text(Path(output), page(chosen, asked))
    return Path(output)


@dataclass(frozen=True)
class _Chosen:
    """What is reported.

    Args:
        runs: each with what the page calls it.
        comparison: which they are of, and its folder's name.
        missing: the arms of which there is no run here.
    """

    runs: Sequence[tuple[Run, str]]
    comparison: "Comparison | None" = None
    name: str = ""
    missing: Sequence[str] = ()


def _chosen(names: Sequence[str], trust_code: bool) -> _Chosen:
    """The runs that are named; of a comparison the first run of each arm."""
    folders = [name for name in names if (Path(name) / "comparison.json").is_file()]
    if not folders:
        found = [Run(run.folder, trust_code=trust_code) for run in matching(names or [_latest()])]
        called = [run.name for run in found]
        labels = [run.name if called.count(run.name) == 1 else files.shown(run.folder) for run in found]
        return _Chosen(list(zip(found, labels, strict=True)))
    if len(names) > 1:
        raise SettingsError(
            f"{folders[0]} is a comparison, and a report is of one comparison or of runs.", "give it alone."
        )
    from microformer.experiments.comparison import Comparison

    folder = Path(folders[0])
    comparison = Comparison.read(folder)
    first: dict[str, Run] = {}
    for cell in comparison.cells:
        # Experiments lie beside runs/, wherever one is.
        for place in (cell.run, folder.resolve().parent.parent / RUNS / cell.run.name):
            if (place / "run.json").is_file() and not cell.failed:
                first.setdefault(cell.arm, Run(place, trust_code=trust_code))
    arms = dict.fromkeys(cell.arm for cell in comparison.cells)
    shown = [(run, f"{arm} ({run.name})") for arm, run in first.items()]
    return _Chosen(shown, comparison, folder.resolve().name, [arm for arm in arms if arm not in first])


def _latest() -> str:
    from microformer.runs import find

    return str(find(None).folder)


def page(chosen: _Chosen, asked: _Asked) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    labels = [label for _, label in chosen.runs]
    several = None
    if chosen.comparison is None:
        title = labels[0] if len(labels) == 1 else f"{len(labels)} runs"
        several = _several([run for run, _ in chosen.runs], labels) if len(labels) > 1 else None
    else:
        title = f"comparison {chosen.name}"
    return environment.get_template("page.html").render(
        title=title,
        css=Markup(files.read_text(_HERE / "page.css")),  # ours; all else is escaped
        several=several,
        comparison=None if chosen.comparison is None else _compared(chosen.comparison, chosen.missing),
        runs=[_whole(run, label, number, asked) for number, (run, label) in enumerate(chosen.runs)],
    )


def _breakable(name: str) -> Any:
    """A name that a narrow column may break behind its signs, rather than within a word."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([=:,/()_-]+)(?=\w)", r"\1<wbr>", str(escape(name))))


def _whole(run: Run, label: str, number: int, asked: _Asked) -> dict[str, Any]:
    """A run's section; a run.json that is JSON and yet no run's is told as damaged."""
    try:
        return _section(run, label, number, asked)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{run.folder / 'run.json'} is damaged: {type(error).__name__} {error}.",
            "restore it, or leave that run out.",
        ) from error


def _section(run: Run, label: str, number: int, asked: _Asked) -> dict[str, Any]:
    """What the page says of one run."""
    changed, groups = facts.settings(run)
    return {
        "id": f"run-{number}",
        "label": label,
        "lead": facts.lead(run),
        "ending": facts.ending(run),
        "tags": facts.tags(run),
        "headline": facts.headline(run),
        "beside": facts.beside(run),
        "warned": facts.warned(run),
        "charts": _charts({x: run.curves(x) for x in ("step", "seconds")}, f"r{number}"),
        "course": _charts(_course(run), f"r{number}"),
        "samples": samples.written(run, asked.prompt, asked.most, asked.temperature, asked.seed, asked.tell),
        "looks": looks.seen(run),
        "changed": changed,
        "groups": groups,
        "data": facts.data(run),
        "machine": facts.machine(run),
        "code": facts.code(run),
        "again": facts.again(run),
    }


def _course(run: Run) -> dict[str, Picture]:
    """How the rate and the gradient's norm went, before it was clipped."""
    found: dict[str, Picture] = {}
    for key, (label, name) in _COURSE.items():
        points = [(row["step"], row[key]) for row in run.metrics if key in row]
        if points:
            pale = frozenset({name} if key == "grad_norm" else ())
            found[key] = Curves({name: points}, x_label="step", y_label=label, pale=pale, whole=True)
    return found


def _several(found: Sequence[Run], labels: Sequence[str]) -> dict[str, Any]:
    """Runs beside one another: their curves, their figures, and the settings in which they differ."""
    rows = [_row(run) for run in found]
    pairs = list(zip(found, rows, strict=True))
    differ = [name for name in Settings().flat() if len({repr(row[name]) for row in rows}) > 1]
    curves = {x: _overlay(found, labels, x) for x in ACROSS}
    marked = [
        {"label": label, "id": f"run-{number}", "color": _named(curves["step"].colors.get(label))}
        for number, label in enumerate(labels)
    ]
    texts = {run.info["data"].get("fingerprint") for run in found}
    return {
        "charts": _charts(curves, "all"),
        "figures": _table(Runs(pairs, list(_FIGURES)), marked, _FIGURES),
        "settings": _table(Runs(pairs, differ), marked, {name: name.upper() for name in differ}) if differ else None,
        "texts": len(texts),
    }


def _table(rows: Runs, marked: Sequence[dict[str, str]], names: Mapping[str, str]) -> dict[str, Any]:
    """A table with a row a run: (name, whether of numbers) of each column, and the cells."""
    columns = [(names[name], name in rows.numbers) for name in rows.shown]
    lines = [list(row.values()) for row in rows.texts()]
    return {
        "columns": columns,
        "rows": [{**mark, "cells": list(zip(line, (number for _, number in columns), strict=True))}
                 for mark, line in zip(marked, lines, strict=True)],
    }  # fmt: skip


def _row(run: Run) -> dict[str, Any]:
    (row,) = runs(run.name, run.folder.parent)
    return row


def _overlay(found: Sequence[Run], labels: Sequence[str], x: str) -> Curves:
    series, pale = {}, set()
    for run, label in zip(found, labels, strict=True):
        rows = run.metrics
        series[label] = [(row[x], row["val_loss"]) for row in rows if "val_loss" in row]
        if not series[label]:
            series[label] = [(row[x], row["train_loss"]) for row in rows if "train_loss" in row]
            pale.add(label)
    return Curves(series, x_label=_ACROSS[x], y_label="validation loss (nats per token)", pale=frozenset(pale))


def _compared(comparison: "Comparison", missing: Sequence[str]) -> dict[str, Any]:
    """The table of a comparison, its curves, and what its arms change."""
    from microformer.experiments import table

    words, rows = table.words(comparison.cells), comparison.rows
    curves = comparison.curves()
    defaults = Settings().flat()
    base = {
        name.upper(): facts.written(value)
        for name, value in comparison.base.items()
        if name in defaults and value != defaults[name] and name != "seed"
    }
    changes = {
        arm: ", ".join(f"{name.upper()} {facts.written(value)}" for name, value in changed.items())
        for arm, changed in comparison.arms.items()
        if changed and not all(name in arm for name in changed)  # else its name says them
    }
    columns = list(words[0])
    split = columns.index("verdict") + 1
    return {
        # What came of it, then what it took.
        "parts": [
            {
                "columns": ["arm", *(name for name in part if name != "arm")],
                "rows": [
                    ([(name, line[name]) for name in dict.fromkeys(["arm", *part])], row.get("verdict"))
                    for line, row in zip(words, rows, strict=True)
                ],
            }
            for part in (columns[:split], columns[split:])
        ],
        "changes": list(changes.items()),
        "remarks": comparison.remarks,
        "charts": _charts({x: Panels({x: one}, curves.y_label) for x, one in curves.panels.items()}, "all"),
        "base": list(base.items()),
        "cells": [
            (cell.arm, cell.seed, cell.run.name, cell.failed or (f"{cell.loss:.4f}" if cell.loss == cell.loss else "–"))
            for cell in comparison.cells
        ],
        "missing": missing,
    }


def _charts(curves: Mapping[str, Picture], prefix: str) -> list[dict[str, Any]]:
    """Each picture twice, for a page and for a telephone: words keep their size."""
    from markupsafe import Markup

    return [
        {
            "id": f"{prefix}-{x}",
            "name": _COURSE[x][1] if x in _COURSE else f"by {_ACROSS.get(x, x)}",
            "wide": Markup(one.svg(*_WIDE, prefix=f"{prefix}-{x}-w-")),
            "narrow": Markup(one.svg(*_NARROW, prefix=f"{prefix}-{x}-n-")),
        }
        for x, one in curves.items()
    ]


def _named(color: str | None) -> str:
    """A colour of a picture as the page calls it."""
    from microformer.pictures import STRONG

    return f"var(--line-{STRONG.index(color) + 1})" if color in STRONG else "var(--axis)"
