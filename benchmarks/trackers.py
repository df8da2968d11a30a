"""What trackers cost (TRACKERS, docs/trackers.md): the default training with TensorBoard and W&B (offline), and with
diagnostics, each beside one without, in pairs of which either is the first. The two of a pair take turns of two
seconds, all processes of the other paused, so that a machine that wanders does so for both; two without show how far
that holds. Over all 735 steps with their probes: the steps from the 100th on, and the whole command, starts and ends
included. Then, in trainings of their own, what wandering says nothing of, from the 100th step on: how long each thing
takes that is done in the training's own thread, and the processor's time of trackers' threads and of W&B's processes,
which the training lacks where it has work for all cores.
"""

import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import measure as shared

TITLE = "What trackers cost"
ARMS = {"without": (), "both trackers": ("--trackers", "tensorboard wandb"), "diagnostics": ("--diagnostics",)}
TURNS = {"without": 2, "both trackers": 4, "diagnostics": 2}


def measure(options: shared.Options) -> dict[str, Any]:
    """Seconds of each pair, and of what is done in the training's own thread."""
    steps = 150 if options.quick else 735
    pairs: list[dict[str, Any]] = []
    before, mode = Path.cwd(), os.environ.get("WANDB_MODE")
    os.environ["WANDB_MODE"] = "offline"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            shared.train(folder, "prepared", "--max-steps", "20")
            for turn in range(max(TURNS.values())):
                for arm, flags in ARMS.items():
                    if turn >= (1 if options.quick else TURNS[arm]):
                        continue
                    both = {"plain": (), "other": flags}
                    order = list(both) if turn % 2 else list(both)[::-1]
                    runs = {f"{arm.split()[0]}-{turn}-{one}": ("--max-steps", str(steps), *both[one]) for one in order}
                    took = shared.in_slices(folder, runs, steps)
                    pairs.append({"arm": arm, "first": order[0], **dict(zip(order, took.values(), strict=True))})
                    print(pairs[-1], flush=True)
            os.chdir(folder)
            inside = _inside(steps)
        finally:
            os.chdir(before)
            os.environ.pop("WANDB_MODE") if mode is None else os.environ.update(WANDB_MODE=mode)
    return {"steps": steps, "pairs": pairs, "inside": inside}


def _inside(steps: int) -> dict[str, dict[str, float]]:
    """By arm, the share of the time from the 100th step on that each thing takes in the training's own thread, and
    `beside` it."""
    from microformer import pipeline
    from microformer.inspection import diagnostics
    from microformer.pipeline.beside import Beside
    from microformer.training.loop import Loop
    from microformer.training.norms import Norms
    from microformer.training.tracking import Tracking

    took: dict[str, float] = defaultdict(float)
    at: dict[int, tuple[float, float]] = {}  # by step, the time and the processor's time of others
    step = Loop._step

    def counted(loop: Loop, progress: float) -> Any:
        taken = loop.position.step + 1
        if taken in (100, steps):
            at[taken] = time.perf_counter(), _beside()
        if taken == 100:
            took.clear()
        return step(loop, progress)

    found = {}
    with ExitStack() as patched:
        patched.enter_context(patch.object(Loop, "_step", counted))
        for owner, name, what in (
            (Norms, "on_gradients", "norms"), (Tracking, "on_gradients", "histograms"),
            (Tracking, "on_row", "rows and samples"), (Beside, "_show", "patterns"),
            (diagnostics.Diagnosing, "on_step", "diagnostics"),
        ):  # fmt: skip
            patched.enter_context(patch.object(owner, name, _timed(getattr(owner, name), took, what)))
        for arm, given in (
            ("both trackers", {"trackers": "tensorboard wandb"}),
            ("diagnostics", {"diagnostics": True}),
        ):
            pipeline.train(run=f"inside-{arm.split()[0]}", show=False, max_steps=steps, **given)
            (began, before), (ended, after) = at[100], at[steps]
            shares = {**took, "beside": after - before}
            found[arm] = {what: seconds / (ended - began) for what, seconds in shares.items()}
    return found


def _beside() -> float:
    """Seconds of processor's time that trackers' threads and the processes that were started have had."""
    import psutil

    own = psutil.Process()
    lanes = {thread.native_id for thread in threading.enumerate() if thread.name.startswith("tracker ")}
    took = [(one.user_time, one.system_time) for one in own.threads() if one.id in lanes]
    took += [one.cpu_times()[:2] for one in own.children(recursive=True)]
    return sum(map(sum, took))


def _timed(real: Callable[..., Any], took: dict[str, float], what: str) -> Callable[..., Any]:
    """A method that notes how long it takes."""

    def timed(*given: Any) -> Any:
        began = time.perf_counter()
        try:
            return real(*given)
        finally:
            took[what] += time.perf_counter() - began

    return timed


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    lines = [
        "| beside one without | steps, more | the whole command, more | in the training's own thread | beside it |"
    ]
    lines.append("|---|---|---|---|---|")
    for arm in ARMS:
        pairs = [pair for pair in found["pairs"] if pair["arm"] == arm]
        parts = {what: share for what, share in found["inside"].get(arm, {}).items() if share >= 0.00005}
        beside = parts.pop("beside", None)
        inside = ", ".join(f"{what} {share:.2%}" for what, share in parts.items())
        cells = [arm, *(_more(pairs, what) for what in ("steps", "command"))]
        cells.append(f"{inside}: {sum(parts.values()):.2%}" if inside else "")
        cells.append("" if beside is None else f"{beside:.2%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{found['steps']} steps each; means, and each pair.", ""])


def _more(pairs: list[dict[str, Any]], what: str) -> str:
    each = [pair["other"][what] / pair["plain"][what] - 1 for pair in pairs]
    return f"**{statistics.fmean(each):+.1%}** ({', '.join(f'{one:+.1%}' for one in each)})"


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
