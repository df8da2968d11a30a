"""Every shape trains: at the default learning rate all beat the unigram baseline and none diverges.

Each of width, depth, context and batch along its own axis, the others at their defaults; then the sixteen corners. A
run has 60 seconds or 200 steps, whichever comes first; one that does not make 30 steps in that is shown, not judged.
"""

import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "Every shape trains"

AXES = {
    "embed_dim": [32, 64, 128, 256, 512],
    "num_layers": [1, 2, 4, 8, 12],
    "max_seq_len": [16, 32, 64, 128, 256, 512, 1024],
    "batch_size": [4, 8, 16, 32, 64],
}
DEFAULT = {"embed_dim": 128, "num_layers": 2, "max_seq_len": 128, "batch_size": 32}


def shapes() -> list[dict[str, int]]:
    """The shapes to train, each once."""
    along = [DEFAULT | {name: value} for name, values in AXES.items() for value in values]
    ends = [[(name, values[0]), (name, values[-1])] for name, values in AXES.items()]
    corners = [dict(corner) for corner in itertools.product(*ends)]
    return list({tuple(shape.items()): shape for shape in along + corners}.values())


def judge(folder: Path, number: int, shape: dict[str, int]) -> dict[str, Any]:
    """One shape's figures and verdict."""
    flags = [word for name, value in shape.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    # Only the last validation: on a large shape each would cost more than the training.
    often = ["--eval-every", "1000000", "--checkpoint-minutes", "0", "--no-snapshots"]
    done = shared.train(
        folder, f"shape-{number}", *flags, *often, "--max-steps", "200", "--max-minutes", "1", may_fail=True
    )
    if done["code"]:
        return {**shape, "verdict": f"failed: {done['error']}"}
    figures, steps = done["info"]["figures"], done["info"]["ended"]["step"]
    losses = [row["train_loss"] for row in done["metrics"] if "train_loss" in row]
    learned, diverged = figures["val_loss"] < figures["unigram"], losses[-1] > min(losses) + 0.5
    verdict = "ok" if learned and not diverged else "diverged" if diverged else "learned nothing"
    found = {"steps": steps, "val_loss": figures["val_loss"], "unigram": figures["unigram"]}
    return {**shape, **found, "verdict": verdict if steps >= 30 else f"too slow to judge ({verdict})"}


def measure(options: shared.Options) -> dict[str, Any]:
    """Every shape once; a quick look leaves out the corners."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, shape in enumerate(shapes()[: -16 if options.quick else None]):
            rows.append(judge(Path(folder), number, shape))
            print(rows[-1], flush=True)
    return {"rows": rows}


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    lines = [f"| {' | '.join(DEFAULT)} | steps | loss | |", "|---|---|---|---|---|---|---|"]
    for row in found["rows"]:
        sizes = " | ".join(str(row[name]) for name in DEFAULT)
        steps, loss = row.get("steps", 0), row.get("val_loss")
        lines.append(f"| {sizes} | {steps} | {'–' if loss is None else f'{loss:.3f}'} | {row['verdict']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
