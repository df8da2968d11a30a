"""How the loss falls with size, data and time on this machine: a family of models, each trained for several budgets.

Every budget is a training of its own, with its whole schedule in it: a loss read off on the way of a longer one is that
of a rate still high. Budgets are the same seconds for all sizes, each a few times the one before. How many steps a size
makes in them is measured first and, budget by budget, again; it is written down before a training begins, so that one
that was killed goes on with the same steps, and the later budgets take up what the earlier ones left of the time.

A training validates once, at its end. Knows how time is divided, not how a law is fitted (laws.py).
"""

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from microformer import files
from microformer.errors import SettingsError, TrainingError, notice
from microformer.experiments.arms import Arm
from microformer.experiments.cells import Cell, code_hash, own_hashes, train_one
from microformer.experiments.comparison import EXPERIMENTS
from microformer.experiments.extra import needed
from microformer.experiments.family import Measured, Scaling, Size
from microformer.pipeline.preparing import prepared_apart
from microformer.runs import Run
from microformer.settings import Settings, model_spec

PLAN = "plan.json"
# Each budget is so many times the one before; as many of them as leave the first long enough.
_RATIO = 2.5
_LEVELS = (5, 4, 3)
_SHORTEST = 4.0  # seconds of a training
_FEWEST = 50  # steps
# Of the whole time, what is kept back for what was not foreseen.
_RESERVE = 0.03
# No training begins that would lead so far beyond it, on a machine that became slower.
_MOST = 1.15
# What a start, a validation and an end take, in seconds, where nothing is known yet.
_AROUND = 6.0


def read_sizes(text: str, base: Settings) -> tuple[Size, ...]:
    """The sizes that a text such as `32x1,64x2` names: EMBED_DIM x NUM_LAYERS, the rest in the base's proportions.

    Raises:
        SettingsError: it can't be read, names one twice or only one, or one can't be.
    """
    sizes: list[Size] = []
    for word in filter(None, re.split(r"[\s,]+", text)):
        found = re.fullmatch(r"(\d{1,6})[x×](\d{1,4})", word)
        if not found or int(found[1]) < 1 or int(found[2]) < 1:
            raise SettingsError(
                f"--sizes {word!r} is no size.", "write EMBED_DIM x NUM_LAYERS, with commas between: 32x1,64x2,128x2."
            )
        size = Size(int(found[1]), int(found[2]))
        if size in sizes:
            raise SettingsError(f"--sizes names {size} twice.", "leave one out.")
        try:
            chosen = base.changed(size.changes(base))
            model_spec(chosen, chosen.model.vocab_size)
        except SettingsError as error:
            raise SettingsError(f"the size {size} can't be: {error.sentence}", error.hint) from error
        sizes.append(size)
    if len(sizes) < 2:
        raise SettingsError(
            f"--sizes {text!r} names {len(sizes) or 'no'} size, and a law is about several.",
            "name three or more: 32x1,64x2,128x2.",
        )
    return tuple(sizes)


def scale(
    base: Settings,
    sizes: Sequence[Size],
    budget: float,
    seeds: int = 1,
    folder: str | Path = ".",
    output: str | Path | None = None,
    tell: Callable[[Measured, str], None] = lambda cell, progress: None,
    base_name: str | None = None,
) -> Scaling:
    """Trains every size for every budget, within about the time that is given, and gives what came of it.

    Args:
        base: what all sizes are like, in everything but their size.
        sizes: from `read_sizes`.
        budget: of all of it, in seconds of this machine.
        seeds: trainings of each size and budget.
        folder: where data/ and runs/ are.
        output: where it is kept; None: experiments/scaling- and a hash of what is asked.
        tell: called with each training that has ended, and how far it all is, in words.
        base_name: what the base is called.

    Raises:
        SettingsError: too little time; another scaling is kept there; another process is at it.
        TrainingError: no size can be trained.
        FileError: the folder can't be written to.
    """
    needed("scipy")  # before time goes into trainings
    folder = Path(folder)
    data = prepared_apart(base, folder)
    if data.val is None:
        raise SettingsError("there is no validation split, and no loss to hold against another.", "set VAL_FRACTION.")
    what = {
        "base": {name: value for name, value in base.flat().items() if name != "seed"},
        "sizes": [str(size) for size in sizes], "seeds": seeds, "budget": budget,
        "code": code_hash(), "own": own_hashes(base, folder), "data": data.fingerprint,
    }  # fmt: skip
    what = json.loads(json.dumps(what))
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]
    output = folder / EXPERIMENTS / f"scaling-{key}" if output is None else Path(output)
    with files.explained(output):
        output.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise SettingsError(f"another process is at {files.shown(output)}.", "wait for its end.") from None
    try:
        work = _Work(base, sizes, budget, seeds, folder, output, what, tell)
        work.run()
    finally:
        lock.release()
    state = work.state
    return Scaling(
        sizes=tuple(sizes),
        cells=tuple(Measured(**one) for one in state.cells),
        budget=budget,
        used=state.used,
        failed=dict(state.failed),
        missing=len(state.missing),
        text_tokens=data.manifest["train"]["tokens"],
        base_name=base_name,
        folder=output,
    )


@dataclass
class _State:
    """What is known so far, as plan.json has it.

    Args:
        what: what was asked.
        levels: of each budget that was begun, the seconds of a training and by size its steps.
        speeds: by size, the seconds of a step.
        around: by size, the seconds that a training takes besides its steps.
        cells: the trainings that have ended.
        failed: the sizes that can't be trained, and why.
        missing: size, budget and seed of the trainings for which no time was left.
        used: seconds so far.
        number: how many budgets there will be.
    """

    what: dict[str, Any]
    levels: list[dict[str, Any]] = field(default_factory=list)
    speeds: dict[str, float] = field(default_factory=dict)
    around: dict[str, float] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    missing: list[list[Any]] = field(default_factory=list)
    used: float = 0.0
    number: int = 0


class _Work:
    """A scaling at work."""

    def __init__(
        self,
        base: Settings,
        sizes: Sequence[Size],
        budget: float,
        seeds: int,
        folder: Path,
        output: Path,
        what: dict[str, Any],
        tell: Callable[[Measured, str], None],
    ):
        self.base, self.sizes, self.budget, self.seeds = base, sizes, budget, seeds
        self.folder, self.path, self.tell = folder, output / PLAN, tell
        self.state = _State(what)
        if self.path.is_file():
            self.state = self._read(what)
        self.began = time.monotonic() - self.state.used
        # A size that failed is tried again by the next call.
        self.state.failed, self.state.missing = {}, []

    def _read(self, what: dict[str, Any]) -> _State:
        plain = files.read_json(self.path)
        try:
            state = _State(**plain)
        except TypeError as error:
            raise SettingsError(f"{self.path} is no scaling's plan.", "give a folder of its own: --output.") from error
        if state.what != what:
            changed = next(name for name in what if state.what.get(name) != what[name])
            said = {"code": "trained by another version of the code", "data": "trained on other data"}
            raise SettingsError(
                f"{files.shown(self.path.parent)} holds another scaling: "
                f"{said.get(changed, f'its {changed} is another')}.",
                "give this one a folder of its own: --output.",
            )
        return state

    def _write(self) -> None:
        self.state.used = time.monotonic() - self.began
        files.write_json(self.path, asdict(self.state))

    def run(self) -> None:
        """Measures speeds, then trains budget after budget."""
        state = self.state
        for size in self.sizes:
            if str(size) not in state.speeds:
                self._measure(size)
        if not self._left():
            raise TrainingError(
                f"no size can be trained: {next(iter(state.failed.values())).removesuffix('.')}.", "mend that first."
            )
        if not state.number:
            state.number = self._number()
        level = 0
        while level < state.number:
            if level == len(state.levels) and not self._begin(level):
                return
            for seed in range(1, self.seeds + 1):
                for size in self._left():
                    self._train(size, level, seed)
            level += 1

    def _left(self) -> list[Size]:
        return [size for size in self.sizes if str(size) not in self.state.failed]

    def _measure(self, size: Size) -> None:
        """How fast a size is, by a few seconds of it."""
        seconds = min(4.0, max(1.0, self.budget / (25 * len(self.sizes))))
        changes = {"max_minutes": seconds / 60, "max_steps": 0, "epochs": 0.0, "eval_every": 10**6}
        cell, wall = self._timed(size, 1, changes, "speed")
        if cell.failed:
            self.state.failed[str(size)] = cell.failed
        else:
            self._note(size, cell, wall)
        self._write()

    def _number(self) -> int:
        """How many budgets the time is enough for.

        Raises:
            SettingsError: for too few.
        """
        sizes, state = self._left(), self.state
        shortest = max(_SHORTEST, *(_FEWEST * state.speeds[str(size)] for size in sizes))
        left = self.budget * (1 - _RESERVE) - (time.monotonic() - self.began)
        around = self.seeds * sum(state.around[str(size)] for size in sizes)
        for number in _LEVELS:
            shares = sum(_RATIO**level for level in range(number))
            if (left - number * around) / (len(sizes) * self.seeds) >= shortest * shares:
                return number
        number = _LEVELS[-1]
        shares = sum(_RATIO**level for level in range(number))
        least = self.budget - left + number * around + len(sizes) * self.seeds * shortest * shares
        raise SettingsError(
            f"--budget of {spoken(self.budget)} is too little for {len(sizes)} sizes"
            f"{f' and {self.seeds} seeds' if self.seeds > 1 else ''}: a law needs trainings of {shortest:.0f} seconds "
            f"and more.",
            f"give {spoken(math.ceil(1.1 * least / 60) * 60)} or more, or fewer sizes.",
        )

    def _begin(self, level: int) -> bool:
        """Decides a budget's seconds and steps, by the time that is left; False where none is."""
        state, sizes = self.state, self._left()
        more = range(level, state.number)
        left = self.budget * (1 - _RESERVE) - (time.monotonic() - self.began)
        around = self.seeds * sum(state.around[str(size)] for size in sizes)
        shares = sum(_RATIO ** (other - level) for other in more)
        seconds = (left - len(more) * around) / (len(sizes) * self.seeds) / shares
        before = state.levels[-1]["seconds"] if state.levels else 0.0
        if seconds < max(1.2 * before, 1.0) and state.levels:
            notice(f"the time is used up: {level} of {state.number} budgets; the machine was slower than it seemed.")
            return False
        seconds = max(seconds, 1.0)
        steps = {str(size): max(10, round(seconds / state.speeds[str(size)])) for size in sizes}
        state.levels.append({"seconds": seconds, "steps": steps})
        self._write()
        return True

    def _train(self, size: Size, level: int, seed: int) -> None:
        state, steps = self.state, self.state.levels[level]["steps"].get(str(size))
        if steps is None or any(
            (one["size"], one["level"], one["seed"]) == (str(size), level, seed) for one in state.cells
        ):
            return
        lasts = steps * state.speeds[str(size)] + state.around[str(size)]
        if time.monotonic() - self.began + lasts > _MOST * self.budget:
            state.missing.append([str(size), level, seed])
            return
        changes = {"max_steps": steps, "epochs": 0.0, "max_minutes": 0.0, "eval_every": steps}
        cell, wall = self._timed(size, seed, changes, f"{level + 1}")
        if cell.failed:
            state.failed[str(size)] = cell.failed
            self._write()
            notice(f"{size} is left out from here on: {cell.failed}")
            return
        if not cell.reused:
            self._note(size, cell, wall)
        speed = _step_seconds(cell)
        measured = Measured(
            size=str(size), level=level, seed=seed, run=cell.run.name, parameters=cell.parameters, loss=cell.loss,
            steps=cell.steps, tokens=cell.tokens, seconds=speed * cell.steps,
            tokens_per_second=cell.tokens / cell.steps / speed,
        )  # fmt: skip
        state.cells.append(asdict(measured))
        self._write()
        gone = sum(one["size"] in state.failed for one in state.cells)
        total = state.number * self.seeds * len(self._left()) + gone
        left = max(0.0, self.budget - state.used)
        rest = f"about {spoken(left)} left" if len(state.cells) < total else f"{spoken(state.used)} in all"
        self.tell(measured, f"{len(state.cells)}/{total}, {rest}")

    def _timed(self, size: Size, seed: int, changes: dict[str, Any], word: str) -> tuple[Cell, float]:
        """A training, and the seconds that it took from start to end."""
        often = {"patience": 0, "probe_steps": 0, "snapshots": False, "checkpoint_minutes": 1.0}
        chosen = self.base.changed({**size.changes(self.base), **often, **changes, "seed": seed})
        began = time.monotonic()
        cell = train_one(Arm(f"scaling-{size}-{word}"), seed, chosen, self.folder, self.state.what["code"])
        return cell, time.monotonic() - began

    def _note(self, size: Size, cell: Cell, wall: float) -> None:
        """Remembers how fast a size is."""
        state, speed = self.state, _step_seconds(cell)
        state.speeds[str(size)] = speed
        # A run that was found there took no time.
        state.around[str(size)] = max(0.5, wall - speed * cell.steps) if not cell.reused else _AROUND


def _step_seconds(cell: Cell) -> float:
    """The seconds of a step: without validations, and the first, which takes longer, where there are others."""
    rows = Run(cell.run).metrics
    trained = [row for row in rows if "val_loss" not in row] or rows
    first, last = trained[0], trained[-1]
    if last["step"] > first["step"]:
        return max(1e-6, (last["seconds"] - first["seconds"]) / (last["step"] - first["step"]))
    return max(1e-6, last["seconds"] / last["step"])


def spoken(seconds: int | float) -> str:
    """A time as one says it."""
    if seconds < 180:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
