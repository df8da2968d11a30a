"""What trackers cost (TRACKERS, docs/trackers.md): the default training with TensorBoard, with W&B offline, with both,
with diagnostics, and with none of it, in turns that change their order. By the clock, and by the time of the training's
own thread, which a shared machine disturbs less (trackers' threads and W&B's process work beside it); and how long each
thing takes that is done in that thread. Over the whole training of 735 steps with its probes.
"""

import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "What trackers cost"
ARMS: dict[str, dict[str, Any]] = {
    "none": {}, "tensorboard": {"trackers": "tensorboard"}, "wandb": {"trackers": "wandb"},
    "both": {"trackers": "tensorboard wandb"}, "diagnostics": {"diagnostics": True},
}  # fmt: skip


def measure(options: shared.Options) -> dict[str, Any]:
    """Seconds of each training, and of what is done for trackers in its own thread."""
    from microformer import pipeline
    from microformer.inspection import diagnostics
    from microformer.pipeline.beside import Beside
    from microformer.training.norms import Norms
    from microformer.training.tracking import Tracking

    steps = 150 if options.quick else 735
    took: dict[str, list[float]] = defaultdict(list)
    _time(Norms, "on_gradients", took, "norms")
    _time(Tracking, "on_gradients", took, "histograms")
    _time(Tracking, "on_row", took, "rows and samples")
    _time(Beside, "_show", took, "patterns")
    _time(diagnostics.Diagnosing, "on_step", took, "diagnostics")
    rows: list[dict[str, Any]] = []
    before, mode = Path.cwd(), os.environ.get("WANDB_MODE")
    os.environ["WANDB_MODE"] = "offline"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for turn in range(1 if options.quick else 5):
                names = list(ARMS)
                for name in names if turn % 2 else names[::-1]:
                    took.clear()
                    clock, thread, processor = time.perf_counter(), time.thread_time(), time.process_time()
                    run = pipeline.train(run=f"{name}-{turn}", show=False, max_steps=steps, **ARMS[name])
                    rows.append(
                        {
                            "turn": turn,
                            "arm": name,
                            "seconds": run.info["ended"]["seconds"],
                            "clock": time.perf_counter() - clock,
                            "thread": time.thread_time() - thread,
                            "processor": time.process_time() - processor,
                            "inside": {what: sum(each) for what, each in took.items()},
                        }
                    )
                    print(rows[-1], flush=True)
        finally:
            os.chdir(before)
            os.environ.pop("WANDB_MODE") if mode is None else os.environ.update(WANDB_MODE=mode)
    return {"steps": steps, "rows": rows}


def _time(owner: type, name: str, took: dict[str, list[float]], what: str) -> None:
    """Has a method note how long it takes."""
    real: Callable[..., Any] = getattr(owner, name)

    def timed(*given: Any) -> Any:
        began = time.perf_counter()
        try:
            return real(*given)
        finally:
            took[what].append(time.perf_counter() - began)

    setattr(owner, name, timed)


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    by = {name: [row for row in found["rows"] if row["arm"] == name] for name in ARMS}
    lines = ["| | seconds of training | more, turn by turn | training's thread, s | in that thread, of the time |"]
    lines.append("|---|---:|---|---:|---|")
    for name, rows in by.items():
        more = [100 * (row["seconds"] / plain["seconds"] - 1) for row, plain in zip(rows, by["none"], strict=True)]
        parts: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            for what, seconds in row["inside"].items():
                parts[what].append(100 * seconds / row["seconds"])
        inside = ", ".join(f"{what} {statistics.median(each):.2f} %" for what, each in parts.items())
        whole = sum(statistics.median(each) for each in parts.values())
        cells = (
            name,
            f"{statistics.median(row['seconds'] for row in rows):.1f}",
            "" if name == "none" else ", ".join(f"{one:+.1f} %" for one in more),
            f"{statistics.median(row['thread'] for row in rows):.1f}",
            f"{inside}: {whole:.2f} %" if parts and name != "none" else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{found['steps']} steps each.", ""])


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
