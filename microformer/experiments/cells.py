"""The trainings of a comparison: one an arm and seed. Each is a run like any other, in the runs folder, under a name
that ends in a hash of its settings, its data and the code; so one that is there already is not trained again, and one
that was killed goes on. Knows the command that trains, and nothing of what is made of the losses.

They run as processes of their own, so that none leaves anything behind for the next, and in the order seed by seed: a
machine that slows down for an hour does so for all arms alike. What each has is settled before it starts, by whoever
starts it: device, precision, threads, and the prepared data, which nobody else changes (pipeline/preparing.py).

A training ends with the one who started it: its standard input is a pipe, and where that ends, it saves and stops. Two
who want the same cell at once take turns, and the second finds it done.
"""

import hashlib
import json
import math
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from microformer import corpora, devices, files, own_code
from microformer.errors import INTERRUPTED, MicroformerError, SettingsError, notice
from microformer.experiments.arms import Arm, check
from microformer.pipeline.preparing import prepared_apart
from microformer.pipeline.report import least_memory
from microformer.runs import RUNS, Run
from microformer.settings import BUDGETS, Settings, each_setting, model_spec, own_components

_PACKAGE = Path(__file__).parent.parent
# What no loss depends on.
_APART = ("experiments", "inspection", "exchange", "contracts", "templates", "pictures.py", "cli", "configs")
# Locks, and a config that says nothing.
_OWN = RUNS / ".cells"
# Seconds between two looks at a training: whether it has ended, and whether it is to be stopped.
_LOOK = 0.05
_WATCH = 0.5
# What a training's process takes besides what it trains, in bytes: on the CPU, and of a GPU's memory.
_BESIDES = 300_000_000


class Point(NamedTuple):
    """A validation.

    Args:
        step: optimizer steps before it.
        tokens: tokens seen before it.
        seconds: of training before it, earlier validations included.
        loss: in nats a token.
    """

    step: int
    tokens: int
    seconds: float
    loss: float


@dataclass(frozen=True)
class Cell:
    """One arm under one seed, trained.

    Args:
        arm, seed: which.
        run: its run folder.
        reused: whether it had been trained before.
        failed: why there is no loss, in the words of the training; None where there is one.
        stopped: whether it was stopped on the way by who watched it; its figures are those until then.
        loss: the best validation loss, in nats a token.
        bits_per_byte: the same in bits a byte of the validation text: comparable between tokenizers.
        steps, tokens, seconds: what it took.
        tokens_per_second: over all of it, validations included.
        memory: the most bytes it held at once (`devices.peak_memory`), the largest over the parts of a run that was
            resumed; 0 where it isn't known.
        parameters: how many numbers the model has.
        device, threads: what it was computed on.
        validated: bytes of the text that it was validated on.
        curve: its validations.
    """

    arm: str
    seed: int
    run: Path
    reused: bool
    failed: str | None = None
    stopped: bool = False
    loss: float = math.nan
    bits_per_byte: float = math.nan
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    memory: int = 0
    parameters: int = 0
    device: str = ""
    threads: int = 0
    validated: int = 0
    curve: tuple[Point, ...] = ()


def train_all(
    base: Settings,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    folder: str | Path = ".",
    tell: Callable[[Cell], None] = lambda cell: None,
    parallel: int = 1,
) -> list[Cell]:
    """Trains every arm under every seed, and gives the cells seed by seed.

    Ctrl-C lets those that are at work save and stop; called again, it goes on with them.

    Args:
        base: the settings that the arms start from; its seed is left aside.
        arms: what is compared; the first is what the others are held against.
        seeds: of weights, data order and dropout.
        folder: where data/ and runs/ are.
        tell: called with each cell as it is done.
        parallel: trainings at once. Each has its share of the cores, unless its settings say THREADS.

    Raises:
        SettingsError: arms that can't be compared, or can't be trained, or more at once than the machine can take;
            before anything is trained.
        CodeError: an arm's own component that is not there; before anything is trained, too.
    """
    check(arms, base, seeds)
    folder, threads = Path(folder), share_of_cores(parallel)
    of_arms = {arm.name: arm.settings(base, seeds[0]) for arm in arms}
    for chosen in of_arms.values():
        own_hashes(chosen, folder)
    data: dict[str, corpora.Prepared | MicroformerError] = {}
    for name, chosen in of_arms.items():  # one after the other, and before any training begins
        try:
            data[name] = prepared_apart(chosen, folder)
        except MicroformerError as error:
            data[name] = error  # the others go on
    if parallel > 1:
        found = [(of_arms[name], one) for name, one in data.items() if not isinstance(one, MicroformerError)]
        check_room(found, parallel)
    code, stop = code_hash(), threading.Event()

    def trained(arm: Arm, seed: int) -> Cell:
        found = data[arm.name]
        if isinstance(found, MicroformerError):
            return _failed(arm, seed, folder, found.sentence)
        chosen = arm.settings(base, seed)
        return train_one(arm, seed, chosen, folder, code, threads=threads, stop=stop, data=found)

    with ThreadPoolExecutor(parallel, "cell") as pool:
        futures = [pool.submit(trained, arm, seed) for seed in seeds for arm in arms]
        try:
            for done in as_completed(futures):
                tell(done.result())
        except BaseException:
            stop.set()  # those at work save; leaving the pool waits for them
            raise
    return [future.result() for future in futures]


def share_of_cores(parallel: int) -> int:
    """The most threads of each of so many trainings at once.

    Raises:
        SettingsError: there are not as many cores.
    """
    cores = devices.usable_cores()
    if parallel < 1:
        raise SettingsError(f"--parallel {parallel} can't be: it is 1 or more.", "leave it out for one at a time.")
    if parallel > cores:
        here, way = ("is 1 core", "leave it out") if cores == 1 else (f"are {cores} cores", f"use {cores} at most")
        raise SettingsError(f"--parallel {parallel} is more than this machine can take: here {here}.", f"{way}.")
    return cores // parallel


def code_hash() -> str:
    """A hash of the package's code, what no loss depends on left aside."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        if path.relative_to(_PACKAGE).parts[0] not in _APART:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def train_one(
    arm: Arm,
    seed: int,
    chosen: Settings,
    folder: Path,
    code: str,
    *,
    threads: int = 0,
    watch: Callable[[Run], bool] | None = None,
    stop: threading.Event | None = None,
    data: corpora.Prepared | None = None,
) -> Cell:
    """Trains with settings that can be, unless that was done before. What goes wrong is told in the cell.

    Args:
        arm, seed: what the cell is called; the settings hold them already.
        folder: where data/ and runs/ are.
        code: from `code_hash`.
        threads: where the settings leave THREADS open, the most that it may have; 0 for all cores.
        watch: asked about every half second, with the run, once its folder is there; where it says True, the training
            saves and stops, and the cell is `stopped`: called again without, it goes on.
        stop: once it is set, likewise, and nothing is begun.
        data: what to train on, from `prepared_apart`; None: what the settings want, prepared if need be.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when the training has saved and stopped.
    """
    try:
        data = data or prepared_apart(chosen, folder)
        chosen = _settled(chosen, data, threads or devices.usable_cores())
        said = json.dumps([chosen.flat(), code, data.fingerprint, own_hashes(chosen, folder)], sort_keys=True)
        key = hashlib.sha256(said.encode()).hexdigest()[:10]
        with _alone(folder / _OWN / f"{key}.lock", stop):
            there = next(iter(sorted((folder / RUNS).glob(f"*-{key}/run.json"))), None)
            if there is None:
                name = f"{re.sub(r'[^a-z0-9]+', '-', arm.name.lower())[:60].strip('-') or 'arm'}-{seed}-{key}"
                words = ["--run", name, "--prepared", data.fingerprint, *_flags(chosen.flat(), folder)]
                run = Run(folder / RUNS / name)
            else:
                run = Run(there.parent)
                words = ["--run", run.name, "--resume"]
                with _alone(run.folder / ".lock", stop):  # one whose starter was killed may still be saving
                    pass
                if _ended(run):
                    return _read(arm, seed, run, reused=True)
            return _trained(arm, seed, run, words, folder, watch or (lambda run: False), stop or threading.Event())
    except _Stopped:
        return replace(_failed(arm, seed, folder, None), stopped=True)
    except MicroformerError as error:
        return _failed(arm, seed, folder, error.sentence)


def _trained(
    arm: Arm,
    seed: int,
    run: Run,
    words: Sequence[str],
    folder: Path,
    watch: Callable[[Run], bool],
    stop: threading.Event,
) -> Cell:
    """Trains with a command line, and reads what came of it."""
    code, said, asked = _run(["train", *words, "--until-input-ends"], folder, run, watch, stop)
    begun = (run.folder / "run.json").is_file()
    if begun and _ended(run):
        return _read(arm, seed, run, reused=False)
    if asked:
        cell = _read(arm, seed, run, reused=False) if begun else _failed(arm, seed, folder, None)
        return replace(cell, stopped=True)
    return replace(_failed(arm, seed, folder, _reason(code, said)), run=run.folder)


def _run(
    words: Sequence[str], folder: Path, run: Run, watch: Callable[[Run], bool], stop: threading.Event
) -> tuple[int, str, bool]:
    """Runs a command to its end: its exit code, what it said on standard error, and whether it was asked to stop."""
    # Ctrl-C is ours to hand on, once: a second one would make it stop without saving. In a group of its own it gets
    # none from the terminal.
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    command, asked, looked = [sys.executable, "-m", "microformer", *words], False, time.monotonic()
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, **apart
        ) as process:
            try:
                while not _ended_within(process, _LOOK):
                    if not asked and time.monotonic() - looked >= _WATCH:
                        looked = time.monotonic()
                        asked = (run.folder / "run.json").is_file() and watch(Run(run.folder))
                        if asked:
                            _interrupt(process)
                    if not asked and stop.is_set():
                        asked = True
                        _interrupt(process)
            except BaseException:  # Ctrl-C, or a fault of who watches
                if not asked:
                    _interrupt(process)
                process.wait()
                raise
        said.seek(0)
        return process.returncode, said.read().decode("utf-8", "replace"), asked


def _ended_within(process: "subprocess.Popen", seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _interrupt(process: "subprocess.Popen") -> None:
    """What Ctrl-C does: the training saves and stops."""
    process.send_signal(signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGINT)


def _reason(code: int, said: str) -> str:
    """Why a training failed, from its exit code and what it said on standard error."""
    if code < 0:
        memory = ", as the system does where memory runs out" if -code == 9 else ""
        return f"its process was killed (signal {-code}{memory}); the same command goes on with it"
    if code == INTERRUPTED:
        return "it was interrupted; the same command goes on with it"
    lines = [line for line in said.splitlines() if line.strip()] or ["it ended without a word"]
    return next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[-1])


class _Stopped(Exception):
    """Nothing is to be begun any more."""


@contextmanager
def _alone(path: Path, stop: threading.Event | None) -> Iterator[None]:
    """Holds a lock; waits, and says so, while another process holds it.

    Raises:
        _Stopped: it is not to be waited for any more.
        FileError: there can't be one.
    """
    lock, told = FileLock(path, timeout=0), False
    while True:
        if stop is not None and stop.is_set():
            raise _Stopped
        with files.explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout):  # an OSError, too
                lock.acquire()
                break
        if not told:
            told = True
            notice(f"another process is training {path.parent.name}; waiting for it.")
        time.sleep(_WATCH)
    try:
        yield
    finally:
        lock.release()


def _settled(chosen: Settings, data: corpora.Prepared, threads: int) -> Settings:
    """The settings with nothing left open to the machine: device, precision, threads (the most, where they are open).

    Two trainings that start at once must not find two answers.
    """
    machine, context = chosen.machine, min(chosen.model.max_seq_len, len(data.train) - 1)
    shape = chosen.model.embed_dim, chosen.training.batch_size * context
    threads = devices.usual_threads(*shape, threads) if machine.threads == "auto" else int(machine.threads)
    compute = _chosen(machine.device, machine.precision, threads, *shape)
    return chosen.changed({"device": compute.device, "precision": compute.precision, "threads": threads})


@lru_cache
def _chosen(device: str, precision: str, threads: int, width: int, tokens: int) -> devices.Compute:
    return devices.choose(device, precision, threads, width=width, tokens=tokens)


def check_room(found: Sequence[tuple[Settings, corpora.Prepared]], parallel: int) -> None:
    """Raises SettingsError where so many at once of these settings, on their data, take more memory than there is."""
    needed = 0
    for chosen, text in found:
        one = _settled(chosen, text, share_of_cores(parallel))
        model = model_spec(one, text.tokenizer.vocab_size, min(one.model.max_seq_len, len(text.train) - 1))
        needed = max(needed, _BESIDES + (sum(least_memory(model, one)) if one.machine.device == "cpu" else 0))
    there = devices.memory_available()
    if there is not None and parallel * needed > there:
        fit = there // needed
        raise SettingsError(
            f"--parallel {parallel} takes at least {parallel * needed / 1e9:,.1f} GB, and {there / 1e9:,.1f} GB of "
            "memory are free.",
            f"use --parallel {fit}." if fit > 1 else "leave it out: one at a time.",
        )


def own_hashes(chosen: Settings, folder: Path) -> dict[str, str]:
    """The hashes of the files of the user's own that the settings name, as seen from the folder."""
    named = [own for found in own_components(chosen).values() for own in found]
    return own_code.read(replace(own, file=str(folder / own.file)) for own in named).hashes


def _ended(run: Run) -> bool:
    ended = Run(run.folder).info["ended"]
    return bool(ended) and ended["how"] != "interrupted"


def _failed(arm: Arm, seed: int, folder: Path, why: str | None) -> Cell:
    return Cell(arm.name, seed, folder / RUNS, reused=False, failed=why)


def _read(arm: Arm, seed: int, run: Run, reused: bool) -> Cell:
    """A cell as its run folder tells it, be it in the middle of the training."""
    run = Run(run.folder)
    info, rows, ended = run.info, run.metrics, run.info["ended"] or {}
    curve = tuple(
        Point(int(row["step"]), int(row["tokens"]), row["seconds"], row["val_loss"])
        for row in rows
        if "val_loss" in row
    )
    loss = min((point.loss for point in curve), default=math.nan)
    why = None
    if ended.get("how") == "diverged":
        why = f"it diverged at step {ended['step']}"
    elif ended and info["data"]["val"] is None:
        why = "it has no validation split to be compared on"
    tokens, seconds = (int(rows[-1]["tokens"]), rows[-1]["seconds"]) if rows else (0, 0.0)
    seconds, val = ended.get("seconds", seconds), info["data"]["val"]
    return Cell(
        arm=arm.name,
        seed=seed,
        run=run.folder,
        reused=reused,
        failed=why,
        loss=math.nan if why else loss,
        bits_per_byte=math.nan if why or not val else loss * val["tokens"] / math.log(2) / val["bytes"],
        steps=ended.get("step", int(rows[-1]["step"]) if rows else 0),
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=tokens / seconds if seconds else 0.0,
        memory=ended.get("memory") or 0,
        parameters=info["parameters"],
        device=info["settings"]["device"],
        threads=int(info["settings"]["threads"]),
        validated=val["bytes"] if val else 0,
        curve=curve,
    )


def _flags(settings: dict[str, Any], folder: Path) -> list[str]:
    """The command line that says these settings and no others, whatever config.py lies in the folder."""
    empty = folder / _OWN / "defaults.py"
    if not empty.is_file():
        files.write_text(empty, '"""No settings: the defaults. Comparisons say theirs on the command line."""\n')
    defaults = {name: field.default for _, name, field in each_setting()}
    flags = ["--config", str(empty.resolve())]
    for name, value in settings.items():
        if value != defaults[name] or name in BUDGETS:
            flags += [f"--{name.replace('_', '-')}", str(value)]
    return flags
