"""The trainings of a comparison: one an arm and seed. Each is a run like any other, in the runs folder, under a name
that ends in a hash of its settings and of the code; so one that is there already is not trained again, and one that was
killed goes on. Knows the command that trains, and nothing of what is made of the losses.

They run as processes of their own, so that none leaves anything behind for the next, and in the order seed by seed: a
machine that slows down for an hour does so for all arms alike.
"""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from microformer import files, own_code
from microformer.errors import INTERRUPTED
from microformer.experiments.arms import Arm, check
from microformer.runs import RUNS, Run
from microformer.settings import BUDGETS, Settings, each_setting, own_components

_PACKAGE = Path(__file__).parent.parent
# What no loss depends on.
_APART = ("experiments", "inspection", "exchange", "contracts", "templates", "pictures.py", "cli", "configs")


@dataclass(frozen=True)
class Cell:
    """One arm under one seed, trained.

    Args:
        arm, seed: which.
        run: its run folder.
        reused: whether it had been trained before.
        failed: why there is no loss, in the words of the training; None where there is one.
        loss: the best validation loss, in nats a token.
        steps, tokens, seconds: what it took.
        curve: (seconds, steps, validation loss) of each validation.
    """

    arm: str
    seed: int
    run: Path
    reused: bool
    failed: str | None
    loss: float = float("nan")
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    curve: tuple[tuple[float, int, float], ...] = ()


def train_all(
    base: Settings,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    folder: str | Path = ".",
    tell: Callable[[Cell], None] = lambda cell: None,
) -> list[Cell]:
    """Trains every arm under every seed, and gives the cells seed by seed.

    Args:
        base: the settings that the arms start from; its seed is left aside.
        arms: what is compared; the first is what the others are held against.
        seeds: of weights, data order and dropout.
        folder: where data/ and runs/ are.
        tell: called with each cell as it is done.

    Raises:
        SettingsError: arms that can't be compared, or can't be trained; before anything is.
        CodeError: an arm's own component that is not there; before anything is trained, too.
    """
    check(arms, base, seeds)
    folder = Path(folder)
    for arm in arms:
        _own_hashes(arm.settings(base, seeds[0]), folder)
    code = code_hash()
    cells = []
    for seed in seeds:
        for arm in arms:
            cells.append(train_one(arm, seed, arm.settings(base, seed), folder, code))
            tell(cells[-1])
    return cells


def code_hash() -> str:
    """A hash of the package's code, what no loss depends on left aside."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        if path.relative_to(_PACKAGE).parts[0] not in _APART:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _own_hashes(chosen: Settings, folder: Path) -> dict[str, str]:
    """The hashes of the files of the user's own that the settings name, as seen from the folder."""
    named = [own for found in own_components(chosen).values() for own in found]
    return own_code.read(replace(own, file=str(folder / own.file)) for own in named).hashes


def train_one(arm: Arm, seed: int, chosen: Settings, folder: Path, code: str) -> Cell:
    """Trains with settings that are known to be good, unless that was done before.

    Args:
        arm, seed: what the cell is called; the settings hold them already.
        folder: where data/ and runs/ are.
        code: from `code_hash`.
    """
    settings = chosen.flat()
    said = json.dumps([settings, code, _own_hashes(chosen, folder)], sort_keys=True)
    key = hashlib.sha256(said.encode()).hexdigest()[:10]
    there = next(iter(sorted((folder / RUNS).glob(f"*-{key}/run.json"))), None)
    if there is not None and _ended(Run(there.parent)):
        return _read(arm, seed, Run(there.parent), reused=True)
    name = there.parent.name if there else f"{re.sub(r'[^a-z0-9]+', '-', arm.name.lower()).strip('-')}-{seed}-{key}"
    words = ["--resume", "--run", name] if there else ["--run", name, *_flags(settings, folder)]
    command = [sys.executable, "-m", "microformer", "train", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    run = Run(folder / RUNS / name)
    if done.returncode and not ((run.folder / "run.json").is_file() and _ended(run)):
        said = done.stderr.splitlines() or ["it ended without a word"]
        reason = next((line.removeprefix("error: ") for line in said if line.startswith("error: ")), said[-1])
        return Cell(arm.name, seed, run.folder, False, reason)
    return _read(arm, seed, run, reused=False)


def _ended(run: Run) -> bool:
    ended = run.info["ended"]
    return bool(ended) and ended["how"] != "interrupted"


def _read(arm: Arm, seed: int, run: Run, reused: bool) -> Cell:
    if run.info["ended"]["how"] == "diverged":
        return Cell(arm.name, seed, run.folder, reused, f"it diverged at step {run.info['ended']['step']}")
    rows = run.metrics
    curve = tuple((row["seconds"], int(row["step"]), row["val_loss"]) for row in rows if "val_loss" in row)
    loss = run.info["figures"]["val_loss"]
    return Cell(
        arm=arm.name,
        seed=seed,
        run=run.folder,
        reused=reused,
        failed="it has no validation split to be compared on" if loss is None else None,
        loss=float("nan") if loss is None else loss,
        steps=run.info["ended"]["step"],
        tokens=int(rows[-1]["tokens"]),
        seconds=run.info["ended"]["seconds"],
        curve=curve,
    )


def _flags(settings: dict[str, Any], folder: Path) -> list[str]:
    """The command line that says these settings and no others, whatever config.py lies in the folder."""
    empty = folder / RUNS / "defaults.py"
    if not empty.is_file():
        files.write_text(empty, '"""No settings: the defaults. Comparisons say theirs on the command line."""\n')
    defaults = {name: field.default for _, name, field in each_setting()}
    flags = ["--config", str(empty.resolve())]
    for name, value in settings.items():
        if value != defaults[name] or name in BUDGETS:
            flags += [f"--{name.replace('_', '-')}", str(value)]
    return flags
