"""What the benchmarks share: a run of the real command in a folder of its own, and a word on the machine."""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def train(folder: Path, name: str, *flags: str) -> dict[str, Any]:
    """Runs `microformer train --run NAME FLAGS` in a folder.

    Returns:
        `seconds` of the whole process, `code`, `error` (its last line on standard error), and, if it ended well, the
        run's `info` and `metrics`.
    """
    started = time.perf_counter()
    command = [sys.executable, "-m", "microformer", "train", "--run", name, *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    result: dict[str, Any] = {"seconds": time.perf_counter() - started, "code": done.returncode}
    result["error"] = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode == 0:
        run = folder / "runs" / name
        result["info"] = json.loads((run / "run.json").read_text(encoding="utf-8"))
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        result["metrics"] = [json.loads(line) for line in lines]
    return result


def machine() -> dict[str, str]:
    """The machine, in words."""
    import torch

    from microformer.devices import Machine, usable_cores

    return {
        "processor": Machine().name("cpu"),
        "cores": str(usable_cores()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What every benchmark beside peers takes."""
    parser.add_argument("--quick", action="store_true", help="fewer turns: a first look")
    parser.add_argument("--nanogpt", metavar="PATH", help="a clone of nanoGPT, to be measured beside the others")


def results(name: str, found: dict[str, Any], page: Callable[[dict[str, Any]], str]) -> None:
    """Prints a benchmark's table, and its figures as JSON."""
    print(page(found))
    print(json.dumps({"benchmark": name, "machine": machine(), "found": found}, indent=2))
