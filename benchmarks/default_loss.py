"""The default config.py on Tiny Shakespeare: loss after a minute and a half, and the time of a whole `microformer
train` from the command to the sample, data preparation included.
"""

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "The default config.py"
MINUTES = 1.5


def measure(options: shared.Options) -> dict[str, Any]:
    """The whole command once, then runs on the clock, each with a seed of its own."""
    with tempfile.TemporaryDirectory() as folder:
        whole = shared.train(Path(folder), "whole")
        runs = []
        for seed in (1,) if options.quick else (1, 2, 3):
            done = shared.train(Path(folder), f"seed-{seed}", "--seed", str(seed), "--max-minutes", str(MINUTES))
            runs.append(_figures(done))
            print(f"seed {seed}: {runs[-1]['loss']:.4f} nats/char after {runs[-1]['steps']:,} steps", flush=True)
    return {"whole": _figures(whole), "runs": runs}


def _figures(done: dict[str, Any]) -> dict[str, Any]:
    info = done["info"]
    return {"seconds": done["seconds"], "loss": info["figures"]["val_loss"], "steps": info["ended"]["step"]}


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    whole, runs = found["whole"], found["runs"]
    losses = [run["loss"] for run in runs]
    return "\n".join(
        [
            "| | loss | steps | seconds of the whole command |",
            "|---|---|---|---|",
            _row("microformer train", whole),
            *(_row(f"microformer train --max-minutes {MINUTES:g} --seed {i}", run) for i, run in enumerate(runs, 1)),
            f"| mean of these (worst) | {statistics.mean(losses):.4f} ({max(losses):.4f}) | | |",
        ]
    )


def _row(command: str, run: dict[str, Any]) -> str:
    return f"| `{command}` | {run['loss']:.4f} | {run['steps']:,} | {run['seconds']:.1f} |"


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
