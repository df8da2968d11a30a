"""What a sweep has found: its trials, the best of them as a config file, a table. Knows nothing of the search."""

import html
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from microformer import files
from microformer.experiments import drawing, layout
from microformer.experiments.intervals import compare
from microformer.experiments.space import Between, Plan, Value
from microformer.settings import GROUPS, Settings

# How many of the best a table has, and how it writes their figures.
_SHOWN = 10
FORMATS = {"loss": ".4f", "± seeds": ".4f", "parameters": ",", "steps": ",", "seconds": ".1f"}


@dataclass(frozen=True)
class Trial:
    """One candidate, tried.

    Args:
        number: its place in the order in which they were proposed, from 0.
        settings: what it sets, by name.
        how: `ended`; `pruned`, stopped for lagging behind; `diverged`; `refused`, its settings can't be together;
            `failed`, for another reason, and tried again by the next call; `same` as one before; `waiting`, or
            `running` or left behind.
        reason: why there is no loss.
        loss: the mean over seeds of the best validation loss; of a pruned one, the best until then, of its first seed.
        losses: one a seed.
        steps: of one training.
        seconds: of all its trainings.
        wall: what this sweep waited for it, in seconds, the start of processes included.
        parameters: how many numbers the model has.
        runs: the names of its runs.
        reused: whether all were there already.
    """

    number: int
    settings: Mapping[str, Value]
    how: str
    reason: str | None = None
    loss: float = math.nan
    losses: tuple[float, ...] = ()
    steps: int = 0
    seconds: float = 0.0
    wall: float = 0.0
    parameters: int = 0
    runs: tuple[str, ...] = ()
    reused: bool = False

    @property
    def said(self) -> str:
        """Its settings, as `compare` takes them."""
        return " ".join(f"{name}={value}" for name, value in self.settings.items())


@dataclass(frozen=True)
class Sweep:
    """All trials of a sweep. A notebook that is handed one shows its table and pictures.

    Args:
        plan: what was looked for.
        trials: in the order in which they were proposed.
        importance: of each setting that more than one value of was tried, the share it has in being among the best;
            empty where too few trials have ended.
        per_byte: whether losses are bits a byte of the text, rather than nats a token.
    """

    plan: Plan
    trials: tuple[Trial, ...]
    importance: Mapping[str, float] = field(default_factory=dict)
    per_byte: bool = False

    @cached_property
    def ended(self) -> list[Trial]:
        """Those that have a loss, the best first."""
        return sorted((one for one in self.trials if one.how == "ended"), key=lambda one: (one.loss, one.number))

    @property
    def best(self) -> Trial | None:
        """The one with the lowest loss."""
        return self.ended[0] if self.ended else None

    @property
    def unit(self) -> str:
        """Of the losses."""
        return "bits per byte" if self.per_byte else "nats per token"

    @property
    def counted(self) -> list[Trial]:
        """The trials that were asked for: none twice, and none that could not be, but for a grid's cells."""
        grid = self.plan.method == "grid"
        apart = ("same", "waiting") if grid else ("same", "waiting", "refused")
        return [one for one in self.trials if one.how not in apart]

    @cached_property
    def like_the_best(self) -> int | None:
        """How many trials the seeds can't tell from the best, itself aside; None where there is one seed alone."""
        if self.plan.seeds < 2 or len(self.ended) < 2:
            return None
        found = compare({str(one.number): one.losses for one in self.ended})
        return sum(one.within is not None and one.difference <= one.within for one in list(found.values())[1:])

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many came to which end."""
        found: dict[str, int] = {}
        for one in self.trials:
            if one.how not in ("same", "waiting"):
                found[one.how] = found.get(one.how, 0) + 1
        return found

    def rows(self, number: int | None = _SHOWN) -> list[dict[str, Any]]:
        """The best as rows of a table; number: at most so many, None for all."""
        several = self.plan.seeds > 1
        return [
            {
                "trial": one.number,
                "loss": one.loss,
                **({"± seeds": statistics.stdev(one.losses)} if several else {}),
                **{name: one.settings.get(name) for name in self.plan.space},
                "parameters": one.parameters,
                "steps": one.steps,
                "seconds": one.seconds / self.plan.seeds,
            }
            for one in self.ended[:number]
        ]

    def sentences(self) -> list[str]:
        """What is to be known beside the table."""
        words = {
            "ended": "ended", "pruned": "stopped early", "diverged": "diverged", "refused": "can't be",
            "failed": "failed", "running": "not ended",
        }  # fmt: skip
        said = ", ".join(f"{self.counts[how]} {word}" for how, word in words.items() if how in self.counts)
        lines = [f"{len(self.counted)} trials: {said}."]
        if self.importance:
            shares = " · ".join(f"{name} {share:.0%}" for name, share in self.importance.items())
            few = "" if len(self.ended) >= 50 else " (of few trials: a hint)"
            lines.append(f"importance{few}: {shares}.")
        if self.like_the_best is not None:
            lines.append(f"{self.like_the_best} of the others can't be told from the best by {self.plan.seeds} seeds.")
        elif len(self.ended) > 1:
            lines.append("one seed a trial: the best of many is lucky, too. Hold it against the base with seeds.")
        return lines

    @property
    def next_command(self) -> str:
        """What shows whether the best is better than the base."""
        assert self.best is not None
        base = "" if self.plan.base_name is None else f" --base {self.plan.base_name}"
        return f'microformer compare{base} --set "{self.best.said}" --seeds 3{self.plan.budget_flags}'

    def markdown(self) -> str:
        """Table and sentences, for a page."""
        rows = self.rows()
        if not rows:
            return "\n".join(self.sentences()) + "\n"
        lines = [f"Losses are {self.unit}, of validation."]
        for one in self.trials:
            if one.how in ("failed", "diverged"):
                lines.append(f"Trial {one.number} ({one.said}): {one.reason}.".replace("..", "."))
        table = layout.markdown(layout.texts(rows, FORMATS), FORMATS)
        return table + "\n".join(["", *lines, *self.sentences()]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values; NaN is null."""
        plan = self.plan
        space = {
            name: vars(values) if isinstance(values, Between) else list(values) for name, values in plan.space.items()
        }
        return {
            "sweep": plan.name,
            "method": plan.method,
            "seeds": plan.seeds,
            "pruner": plan.pruner,
            "unit": self.unit,
            "space": space,
            "counts": self.counts,
            "best": None if self.best is None else _plain(self.best),
            "importance": dict(self.importance),
            "trials": [_plain(one) for one in self.trials if one.how != "same"],
        }

    def config(self) -> str:
        """The best trial's settings, as a config file says them.

        Raises:
            ValueError: none has ended.
        """
        best = self.best
        if best is None:
            raise ValueError("no trial has ended")
        chosen, defaults = self.plan.settings(best.settings, Settings().training.seed).flat(), Settings().flat()
        lines = [
            f'"""The best of {len(self.counted)} trials of the sweep {self.plan.name}: {best.loss:.4f} {self.unit} of '
            f"validation, trial {best.number}.",
            "",
            "What the sweep tried is marked; what is not here is at its default.",
            '"""',
        ]
        for group, kind in GROUPS.items():
            said = [
                f"{one.name.upper()} = {chosen[one.name]!r}  # "
                f"{'tried: ' if one.name in best.settings else ''}{one.metadata['about']}"
                for one in fields(kind)
                if chosen[one.name] != defaults[one.name] or one.name in best.settings
            ]
            if said:
                lines += ["", f"# The {group}", *said]
        return "\n".join(lines) + "\n"

    def write(self, folder: str | Path) -> None:
        """Writes table.md, sweep.json, best.py, history.svg and .png, and slices.svg and .png.

        Raises:
            FileError: the folder can't be written to.
        """
        folder = Path(folder)
        files.write_text(folder / "table.md", self.markdown())
        files.write_json(folder / "sweep.json", self.to_json())
        if self.best is not None:
            files.write_text(folder / "best.py", self.config())
        self.history().write(folder / "history.svg", folder / "history.png")
        self.slices().write(folder / "slices.svg", folder / "slices.png")

    def history(self) -> drawing.History:
        """The losses in the order in which they were found."""
        return drawing.History(
            [(one.number, one.loss, one.how) for one in self.counted if one.how != "running"],
            f"validation loss ({self.unit})", self.plan.name,
        )  # fmt: skip

    def slices(self) -> drawing.Slices:
        """The losses by each setting."""
        shown = sorted(self.plan.space, key=lambda name: -self.importance.get(name, 0.0))
        panels = {}
        for name in shown:
            values = self.plan.space[name]
            panels[name] = drawing.Panel(
                [(one.settings[name], one.loss, one.how) for one in self.trials
                 if one.how in ("ended", "pruned") and name in one.settings],
                None if isinstance(values, Between) else [str(value) for value in values],
                isinstance(values, Between) and values.log,
                self.importance.get(name),
            )  # fmt: skip
        return drawing.Slices(panels, f"validation loss ({self.unit})", self.plan.name)

    def _repr_html_(self) -> str:
        table = layout.markup(layout.texts(self.rows(), FORMATS), FORMATS)
        said = "".join(f"<p>{html.escape(line)}</p>" for line in self.sentences())
        drawn = self.history().svg(prefix="history-") + self.slices().svg(prefix="slices-")
        return f"{table}{said}{drawn}"


def _plain(trial: Trial) -> dict[str, Any]:
    found = {**vars(trial), "settings": dict(trial.settings)}
    found["loss"] = trial.loss if math.isfinite(trial.loss) else None
    return json.loads(json.dumps(found))
