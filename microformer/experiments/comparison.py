"""A comparison from its arms to its answer, and the folder it is kept in. What `microformer compare` calls.

    experiments/<name>/
      comparison.json   base, arms, cells and rows: all that the table and the picture are made of
      table.md          the table
      curves.svg, .png  validation loss against steps, tokens and seconds

The trainings themselves are runs like any other, in runs/.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from microformer import files
from microformer.errors import FileError, SettingsError
from microformer.experiments import table
from microformer.experiments.arms import Arm, parsed
from microformer.experiments.cells import Cell, Point, train_all
from microformer.pictures import Panels
from microformer.runs import RUNS
from microformer.settings import Settings, resolve

FORMAT = 1
EXPERIMENTS = Path("experiments")
_FILE = "comparison.json"


@dataclass(frozen=True)
class Comparison:
    """What came of it. A notebook that is handed one shows the table and the picture.

    Args:
        cells: seed by seed, each seed's in the order of the arms.
        base: the settings that the arms start from, by name; {} where they aren't known.
        arms: what each changes of them, by the arm's name.
    """

    cells: tuple[Cell, ...]
    base: Mapping[str, Any] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What its folder is called: its arms, and a hash of all that they are."""
        plain = {name: value for name, value in self.base.items() if name != "seed"}
        said = json.dumps([plain, {name: dict(changes) for name, changes in self.arms.items()}], sort_keys=True)
        words = "-".join(list(dict.fromkeys(cell.arm for cell in self.cells))[1:])
        slug = re.sub(r"[^a-z0-9]+", "-", words.lower())[:40].strip("-") or "comparison"
        return f"{slug}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"

    @property
    def title(self) -> str:
        """What the picture is called."""
        arms, seeds = len(dict.fromkeys(cell.arm for cell in self.cells)) - 1, len({cell.seed for cell in self.cells})
        beside = f"{arms} arms" if arms > 1 else "one arm"
        return f"{beside} beside the base, {f'{seeds} seeds' if seeds > 1 else 'one seed'} each"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row an arm; see `table.rows`."""
        return table.rows(self.cells)

    @property
    def unit(self) -> str:
        """What the losses are in."""
        return table.unit(self.cells)

    @property
    def remarks(self) -> list[str]:
        """What to know besides the table."""
        return table.remarks(self.cells)

    def markdown(self) -> str:
        """The table, and what to know besides."""
        return table.markdown(self.cells) + "".join(f"\n{remark}\n" for remark in self.remarks)

    def curves(self) -> Panels:
        """Validation losses against steps, tokens and seconds."""
        bits = self.unit == table.BITS
        arms = dict.fromkeys(cell.arm for cell in self.cells if cell.curve and not cell.failed)

        def across(place: str) -> dict[str, list[list[tuple[int | float, float]]]]:
            found: dict[str, list[list[tuple[int | float, float]]]] = {arm: [] for arm in arms}
            for cell in self.cells:
                if cell.arm in found and cell.curve and not cell.failed:
                    scale = cell.bits_per_byte / cell.loss if bits else 1.0
                    found[cell.arm].append([(getattr(point, place), scale * point.loss) for point in cell.curve])
            return found

        panels = {"steps": across("step"), "tokens": across("tokens"), "seconds": across("seconds")}
        return Panels(panels, f"validation loss ({self.unit})", self.title)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        cells = [
            {**asdict(cell), "run": cell.run.name, "curve": [point._asdict() for point in cell.curve]}
            for cell in self.cells
        ]
        return _without_nan(
            {
                "format": FORMAT,
                "unit": self.unit,
                "base": dict(self.base),
                "arms": {name: dict(changes) for name, changes in self.arms.items()},
                "rows": self.rows,
                "remarks": self.remarks,
                "cells": cells,
            }
        )

    def write(self, folder: str | Path) -> None:
        """Writes comparison.json, table.md and the picture.

        Raises:
            FileError: the folder can't be written to.
        """
        folder = Path(folder)
        files.write_json(folder / _FILE, self.to_dict())
        files.write_text(folder / "table.md", self.markdown())
        self.curves().write(folder / "curves.svg", folder / "curves.png")

    @classmethod
    def read(cls, folder: str | Path) -> "Comparison":
        """The comparison of a folder.

        Raises:
            FileError: there is none, or it is damaged or of another version.
        """
        path = Path(folder) / _FILE
        kept = files.read_json(path)
        if not isinstance(kept, dict) or kept.get("format") != FORMAT:
            raise FileError(f"{path} is not of format {FORMAT}.", "it was made by another version; compare again.")
        try:
            cells = tuple(_cell(one) for one in kept["cells"])
            return cls(cells, kept["base"], kept["arms"])
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{path} is damaged: {type(error).__name__} {error}.", "compare again.") from error

    def _repr_html_(self) -> str:
        return f"<div>{table.markup(self.cells)}{self.curves().svg()}</div>"


def compare_arms(
    base: Settings | str | Path | None = None,
    arms: Sequence[str | Arm] = (),
    seeds: int | Sequence[int] = 3,
    *,
    steps: int | None = None,
    minutes: int | float | None = None,
    parallel: int = 1,
    folder: str | Path = ".",
    tell: Callable[[Cell], None] = lambda cell: None,
) -> Comparison:
    """Trains the base and each arm under the same seeds, and holds them against it.

    Args:
        base: settings, a config file or the name of a ready one; None: config.py here, or the defaults.
        arms: each in words, such as `attention=entmax15 norm=rmsnorm`, or as an `Arm`.
        seeds: how many, from 1 on; or which.
        steps, minutes: the budget of each training, in place of the base's.
        parallel: trainings at once.
        folder: where data/ and runs/ are.
        tell: called with each cell as it is done.

    Raises:
        MicroformerError: what can't be compared; see `train_all`.
    """
    chosen, every, which = planned(base, arms, seeds, steps, minutes)
    cells = train_all(chosen, every, which, folder, tell, parallel)
    return Comparison(tuple(cells), chosen.flat(), {arm.name: arm.changes for arm in every})


def planned(
    base: Settings | str | Path | None,
    arms: Sequence[str | Arm],
    seeds: int | Sequence[int],
    steps: int | None = None,
    minutes: int | float | None = None,
) -> tuple[Settings, list[Arm], list[int]]:
    """Settings, arms (the base first) and seeds of a comparison; arguments as for `compare_arms`.

    Raises:
        SettingsError: no arm, no seed, two budgets, or words that can't be followed.
    """
    if not arms:
        raise SettingsError("there is nothing to compare the base with.", 'name an arm: --set "attention=entmax15".')
    which = list(range(1, seeds + 1)) if isinstance(seeds, int) else list(seeds)
    if not which or len(set(which)) < len(which):
        raise SettingsError(f"--seeds {seeds} can't be: there must be one at least, each once.", "leave it out for 3.")
    if steps is not None and minutes is not None:
        raise SettingsError("--steps and --minutes are both budgets.", "give one of them.")
    for flag, value in (("--steps", steps), ("--minutes", minutes)):
        if value is not None and not 0 < value < math.inf:
            raise SettingsError(f"{flag} {value} is no budget.", "leave it out for the base's own.")
    chosen = base if isinstance(base, Settings) else resolve(base)
    if steps or minutes:
        chosen = chosen.changed({"epochs": 0.0, "max_steps": steps or 0, "max_minutes": float(minutes or 0)})
    every = [Arm("base"), *(arm if isinstance(arm, Arm) else parsed(arm) for arm in arms)]
    return chosen, every, which


def _cell(kept: Mapping[str, Any]) -> Cell:
    numbers = {name: math.nan for name in ("loss", "bits_per_byte") if kept[name] is None}
    curve = tuple(Point(**point) for point in kept["curve"])
    return Cell(**{**kept, **numbers, "run": RUNS / kept["run"], "curve": curve})


def _without_nan(value: Any) -> Any:
    """JSON has no word for what is not a number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    return [_without_nan(one) for one in value] if isinstance(value, list | tuple) else value
