"""What each kind of attention costs: forward and backward pass of a training step, the default's sizes, in bfloat16.

At a context of 256 (batch 16), all kinds taking turns, as a share of softmax's step, and, after 300 steps on Tiny
Shakespeare, how many of the shares that its pattern may give are exactly 0. And at contexts from 1,024 to 8,192 (batch
1), for the kinds that do less work there, with the peak memory of a process that does nothing else. And what it costs
that activations can be looked at, where nobody does.
"""

import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "What attention costs"
KINDS = (
    "softmax", "window(64)", "strided(64)", "fixed(64)", "sparsemax", "entmax15", "topk(16)", "sigmoid", "linear",
    "differential",
)  # fmt: skip
LONG = ("softmax", "window(256)", "window(256, sinks=4)", "strided(256)", "fixed(256)", "linear")
LENGTHS = (1024, 2048, 4096, 8192)


def step(kind: str, length: int, batch: int) -> Callable[[], float]:
    """Seconds of a forward and a backward pass."""
    import torch

    from microformer import devices
    from microformer.models.model import Microformer
    from microformer.settings import Settings, model_spec

    compute = devices.choose("cpu", "bfloat16")
    devices.use(compute)
    model = Microformer(model_spec(Settings().changed({"attention": kind, "max_seq_len": length}), 65), seed=1)
    model.compute_dtype = compute.torch_dtype
    ids = torch.randint(65, (batch, length + 1))

    def once() -> float:
        began = time.perf_counter()
        model.loss(ids[:, :-1], ids[:, 1:], None).backward()
        model.zero_grad()
        return time.perf_counter() - began

    return once


def memory(kind: str, length: int) -> float:
    """Peak resident memory, in MB, of a process that takes three steps."""
    words = [sys.executable, __file__, "--alone", kind, str(length)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])


def alone(kind: str, length: int) -> None:
    """What `memory` starts."""
    once = step(kind, length, 1)
    for _ in range(3):
        once()
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024)


def zeros(kind: str, steps: int) -> float:
    """The share of exact zeros among what a trained model's queries may look at."""
    import torch

    from microformer import load_run
    from microformer.models.taps import Record

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = ["--attention", kind, "--max-seq-len", "256", "--max-steps", str(steps), "--batch-size", "16"]
        shared.train(folder, "looked-at", *flags)
        run = load_run(folder / "runs" / "looked-at")
        ids = torch.load(folder / "data" / "val.pt", weights_only=True)[:256].long()[None]
        seen = Record([name for name in run.model.tap_names() if name.endswith("hook_pattern")])
        with torch.no_grad():
            run.model(ids, tap=seen)
    visible = torch.ones(256, 256).tril().bool()
    return float(torch.cat([(pattern == 0)[..., visible] for pattern in seen.activations.values()]).float().mean())


def taps() -> dict[str, float]:
    """What the places cost at which a tap could look, where there is none: how many are passed in a forward pass, and
    the seconds that they take together."""
    from unittest import mock

    import torch

    from microformer.models.model import Microformer
    from microformer.models.taps import Scope
    from microformer.settings import Settings, model_spec

    model, ids = Microformer(model_spec(Settings(), 65), seed=1), torch.randint(65, (1, 8))
    nothing, tensor, passed, seconds = Scope(None), torch.zeros(1), 0, 0.0
    ways: dict[str, Callable[[], object]] = {
        "__call__": lambda: nothing("hook_q", tensor),
        "wants": lambda: nothing.wants("hook_q"),
        "within": lambda: nothing.within("attn"),
    }
    for name, way in ways.items():
        with mock.patch.object(Scope, name, autospec=True, side_effect=getattr(Scope, name)) as counted:
            model(ids)
        passed += counted.call_count
        seconds += counted.call_count * min(timeit.repeat(way, number=10_000, repeat=5)) / 10_000
    return {"passed": passed, "seconds": seconds}


def measure(options: shared.Options) -> dict[str, Any]:
    """Steps at 256, exact zeros, steps and memory at greater lengths."""
    turns = 3 if options.quick else 9
    found: dict[str, Any] = {"step": shared.in_turns({kind: step(kind, 256, 16) for kind in KINDS}, turns)}
    found["taps"] = taps()
    looked_at = [] if options.quick else ["sparsemax", "entmax15", "topk(16)"]
    found["zeros"] = {kind: zeros(kind, 300) for kind in looked_at}
    found["long"] = {}
    for length in LENGTHS:
        timed = shared.in_turns({kind: step(kind, length, 1) for kind in LONG}, 3 if options.quick else 5)
        megabytes = {} if options.quick else {kind: memory(kind, length) for kind in LONG}
        found["long"][str(length)] = {"step": timed, "memory": megabytes}
    return found


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    base = found["step"]["softmax"]["median"]
    lines = ["| context 256 | ms a step | of softmax's | exact zeros |", "|---|---|---|---|"]
    for kind, one in found["step"].items():
        milliseconds = {what: 1000 * value for what, value in one.items()}
        none = f"{found['zeros'][kind]:.0%}" if kind in found["zeros"] else ""
        lines.append(f"| `{kind}` | {shared.shown(milliseconds)} | {one['median'] / base:.2f} | {none} |")
    share = found["taps"]["seconds"] / base
    lines += [
        "",
        f"The {found['taps']['passed']} places at which a tap could look take {1e6 * found['taps']['seconds']:.0f} µs "
        f"of a pass together where there is no tap, {share:.2%} of the step at 256.",
    ]
    lengths = list(found["long"])
    lines += ["", "| ms a step (peak MB) | " + " | ".join(f"{int(n):,}" for n in lengths) + " | 8,192 over 2,048 |"]
    lines.append("|---|" + "---|" * (len(lengths) + 1))
    for kind in LONG:
        medians = [found["long"][n]["step"][kind]["median"] for n in lengths]
        memories = [found["long"][n]["memory"].get(kind) for n in lengths]
        cells = [f"{1000 * m:,.0f}" + (f" ({mb:,.0f})" if mb else "") for m, mb in zip(medians, memories, strict=True)]
        lines.append(f"| `{kind}` | " + " | ".join(cells) + f" | {medians[-1] / medians[1]:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        alone(sys.argv[2], int(sys.argv[3]))
    else:
        shared.main(sys.modules[__name__])
