"""The runs of a folder as a table: filtered, sorted, told apart, drawn. Knows run folders, and nothing of training.

    runs("base-*").where("val_loss<1.6 attention=softmax tag=best").sort("-val_loss")

A row a run, the one last written to at the end, under the same columns for all: its figures, then every setting by its
name. So `pandas.DataFrame(runs())` is a tidy frame, and a notebook that is handed `runs()` shows a table. Torch is not
needed to look at runs, and is not imported.
"""

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, overload

from microformer import settings
from microformer.errors import MicroformerError, RunError, SettingsError, nearest, notice
from microformer.experiments import layout
from microformer.pictures import Curves
from microformer.runs import RUNS, Run, all_runs, check_across
from microformer.settings import Settings

# What a row has before its settings, and how it is shown; "" for words.
FIGURES = {
    "run": "", "tags": "", "corpus": "", "parameters": ",", "steps": ",", "tokens": ",", "seconds": ",.1f",
    "tokens_per_second": ",.0f", "train_loss": ".4f", "val_loss": ".4f", "bits_per_char": ".3f", "best_step": ",",
    "exact_match": ".1%", "ended": "", "created": "",
}  # fmt: skip
# What is shown where nobody says otherwise.
USUAL = ("run", "corpus", "parameters", "steps", "seconds", "val_loss", "bits_per_char", "ended", "tags")
# A notebook shows the settings in which the runs differ too, as far as there is room.
_MOST_SETTINGS = 6
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_ALIASES = {"tag": "tags", "name": "run"}
_CONDITION = re.compile(r"(?:^|\s)-{0,2}([A-Za-z][\w-]*)\s*(<=|>=|!=|==|=|<|>)\s*")


class Runs(Sequence[dict[str, Any]]):
    """Runs as rows: dictionaries with the names in `columns`.

    Args:
        found: the runs, and the row of each.
        shown: the columns that are drawn; None: the usual ones, and settings in which they differ.
    """

    def __init__(self, found: Sequence[tuple[Run, dict[str, Any]]], shown: Sequence[str] | None = None):
        self._found = tuple(found)
        self._shown = None if shown is None else tuple(shown)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names that each row has: figures, then settings."""
        return tuple(self._found[0][1]) if self._found else (*FIGURES, *Settings().flat())

    @property
    def shown(self) -> tuple[str, ...]:
        """The columns that are drawn."""
        if self._shown is not None:
            return self._shown
        return tuple(name for name in USUAL if name != "tags" or any(row["tags"] for row in self))

    @property
    def numbers(self) -> tuple[str, ...]:
        """Of the columns that are drawn, those that stand to the right."""
        plain = (bool, str, list)
        return tuple(
            name for name in self.shown
            if FIGURES.get(name) or not any(row[name] is None or isinstance(row[name], plain) for row in self)
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> "Runs": ...
    def __getitem__(self, index: int | slice) -> "dict[str, Any] | Runs":
        if isinstance(index, slice):
            return Runs(self._found[index], self._shown)
        return self._found[index][1]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (row for _, row in self._found)

    def folders(self) -> list[Run]:
        """The runs themselves, to work with."""
        return [run for run, _ in self._found]

    def where(self, conditions: str) -> "Runs":
        """Those of which all of it is true.

        Args:
            conditions: such as `val_loss<1.6 attention=softmax tag=best run!=old-*`: a column, one of
                = != < <= > >=, and a value. Of words, * and ? stand for others; `none` is what is not known.

        Raises:
            SettingsError: no such column, or a value that it can't be held against.
        """
        kept = self._found
        for name, sign, word in _conditions(conditions):
            holds = _test(self._named(name), sign, word)
            kept = tuple(one for one in kept if holds(one[1]))
        return Runs(kept, self._shown)

    def sort(self, *names: str) -> "Runs":
        """Sorted by columns, the first before the second; -name: the largest first. What is not known comes last.

        Raises:
            SettingsError: no such column.
        """
        found = list(self._found)
        for name in reversed(names):
            column, back = self._named(name.removeprefix("-")), name.startswith("-")
            known = [one for one in found if one[1][column] is not None]
            known.sort(key=lambda one, column=column: _order(one[1][column]), reverse=back)
            found = known + [one for one in found if one[1][column] is None]
        return Runs(found, self._shown)

    def last(self, number: int) -> "Runs":
        """The last so many: before sorting, those that were last written to."""
        return Runs(self._found[len(self) - number :] if number < len(self) else self._found, self._shown)

    def show(self, *names: str) -> "Runs":
        """The same with these columns drawn, the run's name before them.

        Raises:
            SettingsError: no such column.
        """
        return Runs(self._found, tuple(dict.fromkeys(["run", *(self._named(name) for name in names)])))

    def curves(self, x: str = "step") -> Curves:
        """Their validation losses in one picture; of a run without validation its training loss, drawn pale.

        Args:
            x: step, tokens, or seconds.
        """
        check_across(x)
        series, pale = {}, set()
        for run, row in self._found:
            rows, name = run.metrics, row["run"]
            series[name] = [(one[x], one["val_loss"]) for one in rows if "val_loss" in one]
            if not series[name]:
                series[name] = [(one[x], one["train_loss"]) for one in rows if "train_loss" in one]
                pale.add(name)
        label = "validation loss (nats per token)"
        return Curves(series, x_label=x, y_label=label, pale=frozenset(pale))

    def texts(self) -> list[dict[str, str]]:
        """What is drawn: each row's columns as words."""
        return [{name: shown(name, row[name]) for name in self.shown} for row in self]

    def __repr__(self) -> str:
        if not self:
            return "no runs"
        table = [list(self.shown), *(list(row.values()) for row in self.texts())]
        widths, numbers = [max(map(len, column)) for column in zip(*table, strict=True)], self.numbers
        return "\n".join(
            "  ".join(
                word.rjust(width) if name in numbers else word.ljust(width)
                for name, word, width in zip(self.shown, line, widths, strict=True)
            ).rstrip()
            for line in table
        )

    def _repr_html_(self) -> str:
        if not self:
            return "<p>no runs</p>"
        drawn = self
        if self._shown is None:
            differ = [name for name in Settings().flat() if len({repr(row[name]) for row in self}) > 1]
            drawn = self.show(*self.shown, *[name for name in differ if name not in FIGURES][:_MOST_SETTINGS])
        return layout.markup(drawn.texts(), drawn.numbers)

    def _named(self, name: str) -> str:
        """The column that a name stands for, in any of its spellings."""
        plain = name.lstrip("-").replace("-", "_").lower()
        plain = _ALIASES.get(plain, plain)
        if plain in self.columns:
            return plain
        meant = nearest(plain, self.columns)
        hint = f"did you mean {meant}?" if meant else f"there are {', '.join(FIGURES)}, and every setting."
        raise SettingsError(f"runs have no column {name!r}.", hint)


def runs(pattern: str = "*", root: str | Path = RUNS) -> Runs:
    """The runs of a folder; a damaged one is left out, with a notice.

    Args:
        pattern: of their names: * and ? stand for others.
        root: the folder of all runs.
    """
    found = []
    for run in all_runs(Path(root)):
        if not fnmatchcase(run.name, pattern):
            continue
        try:
            found.append((run, _row(run)))
        except (MicroformerError, KeyError, TypeError, AttributeError) as error:
            said = error.sentence if isinstance(error, MicroformerError) else "its run.json is damaged."
            notice(f"{run.folder} is left out: {said}")
    return Runs(found)


def matching(names: Sequence[str], root: str | Path = RUNS) -> list[Run]:
    """The runs of names, folders or patterns, each once, in the order asked for.

    Raises:
        RunError: one that there is not, or a pattern that none matches.
    """
    from microformer.runs import find

    found: dict[Path, Run] = {}
    for name in names:
        if any(sign in name for sign in "*?[") and not Path(name).is_dir():
            those = [run for run in all_runs(Path(root)) if fnmatchcase(run.name, name)]
            if not those:
                raise RunError(f"no run is called like {name!r}.", "`microformer runs` lists them.")
        else:
            those = [find(name, Path(root))]
        found |= {run.folder.resolve(): run for run in those if run.folder.resolve() not in found}
    return list(found.values())


def shown(column: str, value: Any) -> str:
    """A value as a table has it."""
    match value:
        case None:
            return "–"
        case list() | tuple():
            return " ".join(map(str, value))
        case bool():
            return str(value).lower()
        case int() | float() if FIGURES.get(column):
            return format(value, FIGURES[column])
    return str(value)


def differences(one: Run, other: Run) -> list[dict[str, Any]]:
    """What tells two runs apart: rows of `part`, `what`, and the value of each, under "one" and "other".

    Parts: settings, model, data, code, versions, machine: what differs. Figures: the main ones, equal or not.

    Raises:
        RunError: one of them is damaged.
    """
    rows, facts = [], _facts(other)
    for part, values in _facts(one).items():
        others = facts[part]
        for what in dict.fromkeys([*values, *others]):
            pair = values.get(what), others.get(what)
            if pair[0] != pair[1] or part == "figures":
                rows.append({"part": part, "what": what, "one": pair[0], "other": pair[1]})
    return rows


def _facts(run: Run) -> dict[str, dict[str, Any]]:
    row, info = _row(run), run.info
    data = info["data"]
    sizes = {
        f"{split}_{what}": part[what]
        for split in ("train", "val", "test")
        if (part := data.get(split))
        for what in ("tokens", "characters")
    }
    figures = ("ended", "steps", "seconds", "tokens_per_second", "train_loss", "val_loss", "bits_per_char")
    model = {name: info["model"].get(name) for name in ("vocab_size", "max_seq_len")}
    asked = _settings(run)
    return {
        "settings": asked,
        # What the settings asked for and the data decided.
        "model": {**{name: size for name, size in model.items() if size != asked[name]},
                  "parameters": info["parameters"]},
        "data": {"corpus": data["corpus"], "fingerprint": data["fingerprint"], **sizes},
        "code": {name: digest[:12] for name, digest in (info.get("code") or {}).items()},
        "versions": dict(info.get("versions") or {}),
        "machine": {"compute": info.get("compute")},
        "figures": {name: row[name] for name in figures},
    }  # fmt: skip


def _settings(run: Run) -> dict[str, Any]:
    # As they stand there, not through Settings: a run of another version may have what this one doesn't know.
    return {**Settings().flat(), **run.info["settings"]}


def _row(run: Run) -> dict[str, Any]:
    """A run's row. Of one that did not come to its end, what is known so far."""
    info, latest = run.info, run.latest
    ended, figures = info["ended"] or {}, info.get("figures") or {}
    if not ended or not figures:  # it goes on, was killed, or diverged; figures may be those before it was resumed
        validated = [(row["val_loss"], row["step"]) for row in run.metrics if "val_loss" in row]
        best, step = min(validated, default=(None, None))
        figures = {"val_loss": best, "best_step": step, "train_loss": latest.get("train_loss")}
    tokens, seconds = latest.get("tokens"), ended.get("seconds", latest.get("seconds"))
    try:
        tags = list(run.tags)
    except MicroformerError as error:  # words beside a run that is whole
        notice(error.sentence)
        tags = []
    row = {
        "run": run.name,
        "tags": tags,
        "corpus": info["data"]["corpus"],
        "parameters": info["parameters"],
        "steps": ended.get("step", latest.get("step")),
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if tokens and seconds else None,
        "train_loss": figures.get("train_loss"),
        "val_loss": figures.get("val_loss"),
        "bits_per_char": figures.get("bits_per_char"),
        "best_step": figures.get("best_step"),
        "exact_match": figures.get("exact_match"),
        "ended": run.state,
        "created": info.get("created"),
    }
    said = _settings(run)
    # The name of a corpus is the data's: what was asked for may have been data/corpus.txt's place.
    return {**row, **{name: said[name] for name in Settings().flat() if name not in row}}


def _conditions(text: str) -> list[tuple[str, str, str]]:
    """(name, operator, value) of each; a component's own arguments, in their brackets, are a part of its value."""

    def inside(place: int) -> bool:
        return text.count("(", 0, place) > text.count(")", 0, place)

    found = [one for one in _CONDITION.finditer(text) if not inside(one.start())]
    ends = [*(one.start() for one in found[1:]), len(text)][: len(found)]
    parts = [(one[1], one[2], text[one.end() : end].strip().strip("\"'")) for one, end in zip(found, ends, strict=True)]
    before = text[: found[0].start()] if found else text
    if before.strip() or not parts:
        raise SettingsError(
            f"{text.strip()!r} is no condition.", "say a column, one of = != < <= > >=, and a value: val_loss<1.6"
        )
    for name, sign, word in parts:
        if not word:
            raise SettingsError(f"{name}{sign} is held against nothing.", f"say against what: {name}{sign}1")
    return parts


def _test(column: str, sign: str, word: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a row's value in a column is as asked."""
    if sign in ("=", "==", "!="):
        equal = _equality(column, word)
        return (lambda row: not equal(row[column])) if sign == "!=" else (lambda row: equal(row[column]))
    kind = _kind(column)
    if kind is str and column != "created":
        raise SettingsError(f"{column}{sign}{word} can't be: {column} is no number.", f"ask {column}={word}.")
    limit = _number(column, sign, word) if kind is float else word  # a date's letters sort as it does

    compared = _COMPARED[sign]

    def holds(row: Mapping[str, Any]) -> bool:
        value = row[column]
        known = isinstance(value, str if isinstance(limit, str) else int | float)  # and no "auto"
        return known and compared(value, limit)

    return holds


def _equality(column: str, word: str) -> Callable[[Any], bool]:
    kind = _kind(column)
    if column == "tags":
        return lambda tags: any(fnmatchcase(tag, word) for tag in tags)
    if kind is str:
        return lambda value: fnmatchcase("none" if value is None else str(value), word)
    if word.lower() == "none":
        return lambda value: value is None
    wanted = _number(column, "=", word) if column in FIGURES else settings.convert(column, word)
    return lambda value: value == wanted


def _kind(column: str) -> type:
    """str, bool, or float for any number: what a column's values are where they are known."""
    if column in FIGURES:
        return float if FIGURES[column] else str
    found = type(settings.convert(column, "1"))
    return float if found is int else found


def _number(column: str, sign: str, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise SettingsError(f"{column}{sign}{word} can't be: {word!r} is not a number.", "give one.") from None


def _order(value: Any) -> tuple[bool, Any]:
    if isinstance(value, int | float):
        return False, math.inf if value != value else value
    return True, str(value)
