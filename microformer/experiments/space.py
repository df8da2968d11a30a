"""What a sweep looks for, from its file: sweep.toml → Plan. Knows TOML and settings, and nothing of how they are tried.

    [sweep]
    base = "config.py"      # what all candidates start from: a config file, or the name of a ready one
    method = "tpe"          # grid, random or tpe
    trials = 30
    steps = 300             # of each training; or minutes = 1; or neither, for the base's own budget

    [space]
    learning_rate = { low = 0.003, high = 0.1, log = true }
    num_layers = { low = 1, high = 4 }
    attention = ["softmax", "entmax15", "window(64)*1 softmax"]

A mistake is told with the file's name and its line.
"""

import itertools
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microformer import files
from microformer.errors import MicroformerError, SettingsError, nearest
from microformer.settings import BUDGETS, Settings, checked, each_setting, resolve

METHODS = ("grid", "random", "tpe")
PRUNERS = ("none", "median", "halving")
# Losses on different texts can't be ranked, and a text that is easier is no better setting.
_OTHER_TEXT = (
    "corpus", "encoding", "text_field", "max_documents", "max_bytes", "val_fraction", "test_fraction", "unknown",
)  # fmt: skip
_MOST_CELLS = 100_000
Value = bool | int | float | str


@dataclass(frozen=True)
class Between:
    """Numbers of a range, both ends among them.

    Args:
        low, high: its ends.
        log: whether every ratio is as likely as every other of its size, rather than every difference.
        step: the distance of neighbours; None: any number (of a whole one, every).
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers alone."""
        return isinstance(self.low, int)

    def taken(self, value: int | float) -> int | float:
        """A number of the range as it is tried: of four digits, which tell as much of a setting as all of them."""
        if self.whole:
            return int(value)
        short = float(f"{value:.4g}") if self.step is None else float(f"{value:.12g}")
        return min(max(short, self.low), self.high)

    def cells(self) -> list[int | float] | None:
        """Its numbers; None where they can't be counted."""
        step = self.step or (1 if self.whole else None)
        if step is None or self.log:
            return None
        number = math.floor((self.high - self.low) / step + 1e-9) + 1
        return [self.taken(self.low + place * step) for place in range(number)] if number <= _MOST_CELLS else None


@dataclass(frozen=True)
class Plan:
    """A sweep as its file says it.

    Args:
        base: what every candidate starts from, its budget replaced by the sweep's.
        space: by setting, the choices or the range.
        method: how candidates are found: grid, random or tpe.
        trials: how many; of a grid, how many cells it has.
        seeds: trainings of each, whose losses are averaged.
        pruner: what ends a training that lags behind: none, median or halving.
        seed: of the search.
        parallel: trainings at once.
        name: the file's, without its suffix.
        base_name, budget_flags: the base's name and the length of a training, as a command takes them.
    """

    base: Settings
    space: Mapping[str, tuple[Value, ...] | Between]
    method: str = "tpe"
    trials: int = 20
    seeds: int = 1
    pruner: str = "none"
    seed: int = 1
    parallel: int = 1
    name: str = "sweep"
    base_name: str | None = None
    budget_flags: str = ""

    def read(self, candidate: Mapping[str, Value]) -> list[str]:
        """The settings of the space that are read beside the candidate's others, in the space's order: a MOMENTUM is
        not, where OPTIMIZER is adamw."""
        flat = {**self.base.flat(), **candidate}
        return [name for name in self.space if _is_read(name, flat)]

    def in_order(self) -> list[str]:
        """The space's settings, those that decide whether others are read before them."""
        conditions = {name: which.metadata["read_when"] for _, name, which in each_setting()}
        return sorted(self.space, key=lambda name: conditions[name] is not None and conditions[name][0] in self.space)

    def cells(self) -> list[dict[str, Value]]:
        """Every candidate of a grid, each once, the last setting changing fastest."""
        every = {name: _cells(values) for name, values in self.space.items()}
        found: dict[str, dict[str, Value]] = {}
        for values in itertools.product(*(each or [] for each in every.values())):
            cell = dict(zip(every, values, strict=True))
            read = {name: cell[name] for name in self.read(cell)}
            found.setdefault(repr(read), read)
        return list(found.values())

    def settings(self, candidate: Mapping[str, Value], seed: int) -> Settings:
        """The settings of a training.

        Raises:
            SettingsError: the candidate's parts can't be together.
        """
        return self.base.changed({**candidate, "seed": seed})


def read_plan(path: str | Path, trials: int | None = None, parallel: int | None = None) -> Plan:
    """The sweep that a file describes.

    Args:
        trials, parallel: in place of the file's.

    Raises:
        FileError: it can't be read.
        SettingsError: it is no sweep, with the line to mend.
    """
    path = Path(path)
    text = files.read_text(path)
    lines = _Lines(path, text)
    tables = _parsed(path, text)
    for name in tables:
        if name not in ("sweep", "space"):
            raise lines.error([name], f"there is no [{name}]", "a sweep has two tables: [sweep] and [space].")
    sweep, space = tables.get("sweep", {}), tables.get("space", {})
    for name, table in (("sweep", sweep), ("space", space)):
        if not isinstance(table, dict):
            raise lines.error([name], f"{name} is no table", f"write [{name}] on a line of its own.")
    if not space:
        raise lines.error(["space"], "there is nothing to look for", "name settings and their values below [space].")

    given = _sweep_keys(sweep, lines)
    base = _base(given, lines)
    found: dict[str, tuple[Value, ...] | Between] = {}
    for key, values in space.items():
        name = _setting(key, given, found, lines)
        found[name] = _values(key, name, values, lines)
    method = given.get("method", "tpe")
    trials = given.get("trials") if trials is None else trials
    plan = Plan(
        base=base,
        space=found,
        method=method,
        trials=trials or 20,
        seeds=given.get("seeds", 1),
        pruner=given.get("pruner", "none"),
        seed=given.get("seed", 1),
        parallel=parallel or given.get("parallel", 1),
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "sweep",
        base_name=given.get("base"),
        budget_flags=next((f" --{word} {given[word]:g}" for word in ("steps", "minutes") if word in given), ""),
    )
    return _grid(plan, trials, lines) if method == "grid" else plan


def _grid(plan: Plan, trials: int | None, lines: "_Lines") -> Plan:
    """The plan with the number of its cells."""
    for name, values in plan.space.items():
        if _cells(values) is None:
            raise lines.error(
                ["space", name],
                f"a grid can't go through all numbers between {values.low:g} and {values.high:g}",  # type: ignore[union-attr]
                f"list those to try, {name} = [{values.low:g}, {values.high:g}], or give a step (without log).",  # type: ignore[union-attr]
            )
    if trials is not None:
        raise lines.error(
            ["sweep", "trials"], "a grid goes through all its cells, and nothing reads how many trials it has",
            "leave it out, or set method to random or tpe.",
        )  # fmt: skip
    number = math.prod(len(_cells(values) or ()) for values in plan.space.values())
    if number > _MOST_CELLS:
        raise lines.error(["space"], f"this grid has {number:,} cells", "leave some out, or choose another method.")
    return Plan(**{**vars(plan), "trials": len(plan.cells())})


def _cells(values: tuple[Value, ...] | Between) -> list[Any] | None:
    return values.cells() if isinstance(values, Between) else list(values)


def _is_read(name: str, flat: Mapping[str, Any]) -> bool:
    condition = next(which.metadata["read_when"] for _, one, which in each_setting() if one == name)
    return condition is None or flat[condition[0]] in condition[1]


def _parsed(path: Path, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        from microformer.experiments.extra import needed

        tomllib = needed("tomli")
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"^(.*?)\s*\(at line (\d+), column (\d+)\)$", str(error).split("\n")[0])
        # At the end of the text there is no number.
        reason, line = (found[1], found[2]) if found else (str(error), str(text.rstrip().count("\n") + 1))
        raise SettingsError(
            f"{path}, line {line}, is not TOML: {reason[:1].lower()}{reason[1:]}.",
            'words stand in quotation marks, lists in brackets: attention = ["softmax", "entmax15"].',
        ) from error


# What may stand in [sweep]: its type in words, the check, and what is meant.
_WHOLE = "a whole number, 1 or more"
_KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "base": (
        "a config file or the name of a ready one, in quotes",
        lambda value: isinstance(value, str) and value != "",
    ),
    "method": ("grid, random or tpe", lambda value: value in METHODS),
    "trials": (_WHOLE, lambda value: _is_whole(value, 1)),
    "seeds": (_WHOLE, lambda value: _is_whole(value, 1)),
    "steps": (_WHOLE, lambda value: _is_whole(value, 1)),
    "minutes": ("a number above 0", lambda value: _is_number(value) and 0 < value < math.inf),
    "pruner": ("none, median or halving", lambda value: value in PRUNERS),
    "seed": ("a whole number, 0 or more", lambda value: _is_whole(value, 0) and value < 2**31),
    "parallel": (_WHOLE, lambda value: _is_whole(value, 1)),
}


def _sweep_keys(table: Mapping[str, Any], lines: "_Lines") -> dict[str, Any]:
    for key, value in table.items():
        if key not in _KEYS:
            meant = nearest(key, _KEYS)
            if meant is None and key.lower().replace("-", "_") in Settings().flat():
                raise lines.error(
                    ["sweep", key], f'there is no "{key}" in [sweep]', "a setting to try stands below [space]."
                )
            raise lines.error(
                ["sweep", key], f'there is no "{key}" in [sweep]',
                f"{f'did you mean {meant}? ' if meant else ''}There are: {', '.join(_KEYS)}.",
            )  # fmt: skip
        wanted, check = _KEYS[key]
        if not check(value):
            choices = {"method": METHODS, "pruner": PRUNERS}.get(key)
            meant = nearest(value, choices) if choices and isinstance(value, str) else None
            hint = f"did you mean {meant!r}?" if meant else f"write it so: {key} = {_EXAMPLES.get(key, 3)}."
            raise lines.error(["sweep", key], f"{key} {_shown(value)} is not {wanted}", hint)
    if "steps" in table and "minutes" in table:
        raise lines.error(["sweep", "minutes"], "steps and minutes both say how long a training is", "leave one out.")
    return dict(table)


_EXAMPLES = {"base": '"config.py"', "method": '"tpe"', "minutes": 0.5, "pruner": '"median"', "steps": 300}


def _base(given: Mapping[str, Any], lines: "_Lines") -> Settings:
    budget = {}
    if "steps" in given:
        budget = {"max_steps": given["steps"]}
    if "minutes" in given:
        budget = {"max_minutes": float(given["minutes"])}
    try:
        base = resolve(given.get("base"), budget)
    except SettingsError as error:
        if "base" in given:
            raise lines.error(["sweep", "base"], error.sentence.removesuffix("."), error.hint) from error
        raise
    return base


def _setting(key: str, given: Mapping[str, Any], found: Mapping[str, Any], lines: "_Lines") -> str:
    """The setting that a key of [space] names, in any of its spellings."""
    name, known = key.lower().replace("-", "_"), Settings().flat()
    if name not in known:
        meant = nearest(name, known)
        hint = f"did you mean {meant}? " if meant else ""
        raise lines.error(
            ["space", key], f'there is no setting "{key}"', f"{hint}`microformer train --help` lists them all."
        )
    if name in found:
        raise lines.error(["space", key], f"{key} is there twice", "leave one out.")
    if name == "seed":
        raise lines.error(
            ["space", key], "a seed is luck, and nothing to look for",
            "seeds = 3 in [sweep] trains each candidate with three.",
        )  # fmt: skip
    if name in _OTHER_TEXT:
        raise lines.error(
            ["space", key], f"with another {name} losses are of other texts, and can't be ranked",
            "set it in the base, and sweep each text on its own.",
        )  # fmt: skip
    if name in BUDGETS and ("steps" in given or "minutes" in given):
        said = "steps" if "steps" in given else "minutes"
        raise lines.error(["space", key], f"{said} in [sweep] says already how long a training is", "leave one out.")
    return name


def _values(key: str, name: str, values: Any, lines: "_Lines") -> tuple[Value, ...] | Between:
    if isinstance(values, list):
        return _choices(key, name, values, lines)
    if isinstance(values, dict):
        return _between(key, name, values, lines)
    raise lines.error(
        ["space", key], f"{key} {_shown(values)} is neither choices nor a range",
        f"write {key} = [first, second] or {key} = {{ low = …, high = … }}.",
    )  # fmt: skip


def _choices(key: str, name: str, values: list[Any], lines: "_Lines") -> tuple[Value, ...]:
    if not values:
        raise lines.error(["space", key], f"{key} has no choices", f"write {key} = [first, second].")
    found = []
    for value in values:
        found.append(_value(key, name, value, lines))
        # 1 and True are one to Python, and no setting takes both.
        if found.index(found[-1]) < len(found) - 1:
            raise lines.error(["space", key], f"{key} has {_shown(value)} twice", "leave one out.")
    return tuple(found)


def _between(key: str, name: str, values: dict[str, Any], lines: "_Lines") -> Between:
    for word in values:
        if word not in ("low", "high", "log", "step"):
            meant = nearest(word, ("low", "high", "log", "step"))
            raise lines.error(
                ["space", key, word], f'there is no "{word}" in a range',
                f"{f'did you mean {meant}? ' if meant else ''}There are: low, high, log, step.",
            )  # fmt: skip
    for word in ("low", "high"):
        if word not in values:
            raise lines.error(["space", key], f"{key} has no {word}", f"write {key} = {{ low = …, high = … }}.")
    low, high = (_value(key, name, values[word], lines) for word in ("low", "high"))
    log, step = values.get("log", False), values.get("step")
    if not _is_number(low) or not _is_number(high):
        raise lines.error(
            ["space", key], f"{name.upper()} is no number, and has no range", f"list it: {key} = [first, second]."
        )
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if low >= high:
        raise lines.error(["space", key], f"{key}'s low, {low:g}, is not below its high, {high:g}", "exchange them.")
    if not isinstance(log, bool):
        raise lines.error(["space", key, "log"], f"log {_shown(log)} is neither true nor false", "write log = true.")
    if log and low <= 0:
        raise lines.error(["space", key], f"{key}'s low is {low:g}, which has no logarithm", "let it be above 0.")
    if step is not None:
        if log:
            raise lines.error(["space", key, "step"], f"{key} has both log and a step", "leave one out.")
        if not _is_number(step) or not 0 < step <= high - low or (isinstance(low, int) and not isinstance(step, int)):
            kind = "a whole number" if isinstance(low, int) else "a number"
            raise lines.error(
                ["space", key, "step"], f"step {_shown(step)} is not {kind} from above 0 to {high - low:g}",
                "let it lead from low to high.",
            )  # fmt: skip
        # The last that is reached: what lies beyond is never tried.
        high = low + math.floor((high - low) / step + 1e-9) * step
        high = high if isinstance(low, int) else float(f"{high:.12g}")
    return Between(low, high, log, step)


def _value(key: str, name: str, value: Any, lines: "_Lines") -> Value:
    if not isinstance(value, bool | int | float | str):
        raise lines.error(
            ["space", key],
            f"{key} {_shown(value)} is no value of a setting",
            "a number, true, false or a word in quotes.",
        )
    try:
        return checked(name, value)
    except MicroformerError as error:
        raise lines.error(["space", key], error.sentence.removesuffix("."), error.hint) from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _shown(value: Any) -> str:
    """A value as TOML writes it, or nearly so."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return str(value)


class _Lines:
    """Where in a file its keys stand. TOML's readers don't say; this one knows as much of TOML as keys at the beginning
    of a line and tables in brackets."""

    def __init__(self, path: Path, text: str):
        self.path = path
        self._of: dict[tuple[str, ...], int] = {}
        table: list[str] = []
        inside = ""  # of a text over several lines, the quotation marks that end it
        for number, line in enumerate(text.splitlines(), 1):
            if inside:
                inside = "" if inside in line else inside
                continue
            if found := re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line):
                table = _dotted(found[1])
                self._note(table, number)
            elif found := re.match(r"""\s*((?:[\w.\s-]|"[^"]*"|'[^']*')+?)\s*=""", line):
                self._note([*table, *_dotted(found[1])], number)
            marks = next((mark for mark in ('"""', "'''") if line.count(mark) % 2), "")
            inside = marks

    def _note(self, keys: list[str], number: int) -> None:
        for length in range(1, len(keys) + 1):
            self._of.setdefault(tuple(keys[:length]), number)

    def at(self, keys: list[str]) -> str:
        """The file and the line of a key, or of what it is in."""
        for length in range(len(keys), 0, -1):
            if (number := self._of.get(tuple(keys[:length]))) is not None:
                return f"{self.path}, line {number}"
        return str(self.path)

    def error(self, keys: list[str], what: str, hint: str) -> SettingsError:
        """What is told of a key."""
        return SettingsError(f"{self.at(keys)}: {what}.", hint)


def _dotted(key: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(r"""[\w-]+|"[^"]*"|'[^']*'""", key)]
