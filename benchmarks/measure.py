"""What the benchmarks share: their options, a run of the real command, a word on the machine, and the files of results.

A benchmark is a module with `TITLE`, `measure(options) -> found` (plain JSON values), `page(found) -> Markdown` and,
where there is something to see, `draw(found, folder) -> picture's name`. Its docstring is what BENCHMARKS.md says of
it.
"""

import argparse
import contextlib
import datetime
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

CLONE = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
_SLICE = 2.0  # seconds

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Options:
    """How it is measured.

    Args:
        quick: fewer turns and seeds: a first look.
        nanogpt: a clone of nanoGPT, to be measured beside the others; None for without.
    """

    quick: bool = False
    nanogpt: Path | None = None


def main(benchmark: ModuleType) -> None:
    """One benchmark by itself, from the command line."""
    run(benchmark, options(argparse.ArgumentParser(description=benchmark.__doc__, formatter_class=_AS_WRITTEN)))


def options(parser: argparse.ArgumentParser) -> Options:
    """The options that a command line says."""
    parser.add_argument("--quick", action="store_true", help="fewer turns and seeds: a first look, nothing is kept")
    parser.add_argument(
        "--nanogpt", type=Path, metavar="PATH", help="a clone of nanoGPT, to be measured beside the others"
    )
    given = parser.parse_args()
    return Options(given.quick, given.nanogpt)


def run(benchmark: ModuleType, chosen: Options) -> None:
    """Measures, prints the table, and, unless it was a quick look, keeps figures and picture in `results`."""
    name = Path(str(benchmark.__file__)).stem
    print(f"\n## {benchmark.TITLE}", flush=True)
    began = time.perf_counter()
    found = benchmark.measure(chosen)
    took = time.perf_counter() - began
    print(f"\n{benchmark.page(found)}\n({took:.0f} s)", flush=True)
    if not chosen.quick:
        RESULTS.mkdir(exist_ok=True)
        picture = benchmark.draw(found, RESULTS) if hasattr(benchmark, "draw") else None
        kept = {"machine": machine(), "seconds": round(took), "picture": picture, "found": found}
        (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def train(folder: Path, name: str, *flags: str, may_fail: bool = False) -> dict[str, Any]:
    """Runs `microformer train --run NAME FLAGS` in a folder. A training that fails ends the benchmark, unless it may.

    Returns:
        `seconds` of the whole process, `code`, `error` (its last line on standard error), and, if it ended well, the
        run's `info` and `metrics`.
    """
    started = time.perf_counter()
    command = [sys.executable, "-m", "microformer", "train", "--run", name, *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    result: dict[str, Any] = {"seconds": time.perf_counter() - started, "code": done.returncode}
    result["error"] = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode and not may_fail:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    if done.returncode == 0:
        run = folder / "runs" / name
        result["info"] = json.loads((run / "run.json").read_text(encoding="utf-8"))
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        result["metrics"] = [json.loads(line) for line in lines]
    return result


def in_slices(folder: Path, trainings: Mapping[str, Sequence[str]], steps: int) -> dict[str, dict[str, float]]:
    """Runs two or more trainings of so many steps in turns of two seconds, each with all of its processes paused while
    it is another's turn: a machine that wanders does so for all alike, down to what changes within a second.

    Args:
        folder: where they run; the names are those of runs.
        trainings: by name, what follows `microformer train --run NAME` on the command line.

    Returns:
        of each, the seconds of its own turns: `command`, from its start to its end, and `steps`, from the 100th step to
        the last.
    """
    import psutil

    processes, took = {}, {name: {"command": 0.0, "first": math.nan, "last": math.nan} for name in trainings}

    def everything(name: str) -> list[psutil.Process]:
        return [processes[name], *processes[name].children(recursive=True)]

    for name, flags in trainings.items():
        command = [sys.executable, "-m", "microformer", "train", "--run", name, *flags]
        processes[name] = psutil.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        processes[name].suspend()
    while going := [name for name, process in processes.items() if process.poll() is None]:
        for name in going:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in everything(name):
                    process.resume()
            began, one = time.perf_counter(), took[name]
            while (passed := time.perf_counter() - began) < _SLICE and processes[name].poll() is None:
                step = _last_step(folder / "runs" / name / "metrics.jsonl")
                if step >= 100 and one["first"] != one["first"]:
                    one["first"] = one["command"] + passed
                if step == steps and one["last"] != one["last"]:
                    one["last"] = one["command"] + passed
                time.sleep(0.01)
            one["command"] += time.perf_counter() - began
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in everything(name):
                    process.suspend()
    for name, process in processes.items():
        if process.returncode:
            raise SystemExit(f"the training {name} ended with exit code {process.returncode}.")
    return {name: {"command": one["command"], "steps": one["last"] - one["first"]} for name, one in took.items()}


def _last_step(path: Path) -> int:
    """The step of the last row of a metrics.jsonl; 0 where there is none yet."""
    try:
        with open(path, "rb") as file:
            file.seek(-min(1000, path.stat().st_size), 2)
            lines = file.read().decode("utf-8").splitlines()
        return json.loads(lines[-1])["step"]
    except (OSError, IndexError, ValueError):
        return 0


def in_turns(
    cases: Mapping[Name, Callable[[], float]], turns: int, base: Name | None = None
) -> dict[Name, dict[str, float]]:
    """Each case's figure, the cases taking turns so that a machine that slows down does so for all: median and range.

    The first turn warms up and does not count.

    Args:
        cases: by name, what gives a figure.
        turns: how many.
        base: a case that all are compared with: `ratio` is the median of the ratios to it, turn by turn, so that what
            changes between two turns is in none of them.
    """
    figures: dict[Name, list[float]] = {name: [] for name in cases}
    for turn in range(turns + 1):
        for name, case in cases.items():
            figure = case()
            if turn:
                figures[name].append(figure)
    found = {
        name: {"median": statistics.median(all_turns), "least": min(all_turns), "most": max(all_turns)}
        for name, all_turns in figures.items()
    }
    if base is not None:
        for name, one in found.items():
            one["ratio"] = statistics.median(a / b for a, b in zip(figures[name], figures[base], strict=True))
    return found


def training_text(folder: Path) -> Path:
    """Tiny Shakespeare without its validation split, as a file: for choices that the split is to have no part in."""
    from microformer.corpora.named import find

    folder.mkdir(exist_ok=True)
    whole = find("tinyshakespeare")[0].path.read_text(encoding="utf-8")
    path = folder / "training.txt"
    path.write_text(whole[: len(whole) * 9 // 10], encoding="utf-8")
    return path


def tell(cell: Any) -> None:
    """One line on a cell that is done."""
    took = f"{cell.steps:,} steps in {cell.seconds:.0f} s"
    print(f"{cell.arm}, seed {cell.seed}: {cell.failed or f'{cell.loss:.4f}, {took}'}", flush=True)


def of_arms(cells: Sequence[Any]) -> dict[str, Any]:
    """What is kept of a comparison: by arm its losses, seed by seed, the median of steps and of seconds, and why it
    failed, if it did."""
    arms = dict.fromkeys(cell.arm for cell in cells)
    of = {arm: [cell for cell in cells if cell.arm == arm] for arm in arms}
    return {
        "losses": {arm: [cell.loss for cell in of[arm]] for arm in arms if not any(cell.failed for cell in of[arm])},
        "took": {arm: [statistics.median(getattr(cell, what) for cell in of[arm]) for what in ("steps", "seconds")]
                 for arm in arms},
        "failed": {arm: why for arm in arms if (why := next((cell.failed for cell in of[arm] if cell.failed), None))},
    }  # fmt: skip


def table(found: Mapping[str, Any]) -> str:
    """The table of what `of_arms` kept: losses in nats a token, paired differences to the first arm with their 95%
    intervals, corrected for the number of arms."""
    from microformer.experiments import compare

    losses = found["losses"]
    compared = compare(losses)
    seeds = len(next(iter(losses.values())))
    lines = [f"| | loss, mean of {seeds} | difference | | steps | seconds |", "|---|---|---|---|---|---|"]
    for number, (arm, (steps, seconds)) in enumerate(found["took"].items()):
        if arm in found.get("failed", {}):
            lines.append(f"| {arm} | failed: {found['failed'][arm]} | | | | |")
            continue
        one = compared[arm]
        within = "" if one.within is None else f" ± {one.within:.4f}"
        difference, verdict = (f"{one.difference:+.4f}{within}", one.said) if number else ("", "")
        lines.append(f"| {arm} | {one.mean:.4f} | {difference} | {verdict} | {steps:,.0f} | {seconds:,.1f} |")
    return "\n".join(lines) + "\n"


def shown(figure: dict[str, float], form: str = ",.0f") -> str:
    """A median with its range."""
    median, least, most = (f"{figure[what]:{form}}" for what in ("median", "least", "most"))
    return f"{median} ({least} – {most})"


def machine() -> dict[str, str]:
    """The machine, the versions and the day, in words."""
    import torch

    from microformer.devices import Machine, usable_cores

    head = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=CLONE, capture_output=True, text=True, check=False
    )
    return {
        "processor": Machine().name("cpu"),
        "cores": str(usable_cores()),
        "bfloat16": "yes" if Machine().has_bfloat16("cpu") else "no",
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "microformer": head.stdout.strip(),
        "date": datetime.date.today().isoformat(),
    }


_AS_WRITTEN = argparse.RawDescriptionHelpFormatter
