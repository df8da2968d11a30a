"""On a CUDA GPU: nanoGPT's recipe for Tiny Shakespeare (6 layers, 6 heads, 384 wide, context 256, batch 64, dropout
0.2), tokens a second at equal architecture; and the seconds to nanoGPT's loss.

Tokens a second: our training loop with `--config nanogpt`, beside nanoGPT's loop (its model and AdamW from its clone,
its way to make batches, autocast to bfloat16), with and without compilation, each with a look at the loss every ten
steps and without validations. All take turns in one process, a hundred steps each; figures are medians of five turns,
with the range, after whatever was compiled. Memory is what the tensors of a case take at their peak.

Ten more steps, of which none is logged, are looked at with PyTorch's profiler: how long the GPU works in one, by how
many calls it is given that work, and how often the CPU waited for it.

Seconds to the loss: `microformer train --config shakespeare_gpu`, not compiled, wall time from the first step on with
all of its validations and checkpoints, three seeds; beside nanoGPT's own train.py with its own recipe, compiled, its
seconds counted from the end of its first step, so that neither its compilation nor its first validation counts. Its
validations are samples of 200 batches; the loss of the weights it keeps is computed over every validation character
afterwards. The number of steps of shakespeare_gpu was chosen by trials that looked at the validation loss.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "On a GPU"
DEVICE = "cuda"
LAYERS, HEADS, WIDTH, CONTEXT, BATCH, DROPOUT, VOCAB = 6, 6, 384, 256, 64, 0.2, 65
# Its best sampled value on an A100, by its README.
A100_LOSS = 1.4697

# Takes so many optimizer steps; with a look at the loss every ten, or, where the second says so, none.
Steps = Callable[[int, bool], None]


def ours(tokens: Any, compiled: bool) -> Steps:
    """Our training loop on nanoGPT's recipe, as `microformer train --config nanogpt` builds it."""
    import torch

    from microformer import devices
    from microformer.models.model import Microformer
    from microformer.pipeline.fast_loss import fast_loss
    from microformer.settings import model_spec, resolve
    from microformer.training.averaging import Average
    from microformer.training.batches import Shuffled
    from microformer.training.budgets import Budget
    from microformer.training.loop import Loop, Plan
    from microformer.training.optimizers import Optimizer, Recipe
    from microformer.training.schedules import Cosine

    settings = resolve("nanogpt", {"device": DEVICE, "precision": "bfloat16", "compile": compiled})
    training = settings.training
    compute = devices.choose(DEVICE, "bfloat16")
    devices.use(compute)
    model = Microformer(model_spec(settings, VOCAB), seed=1).to(DEVICE)
    model.compute_dtype = torch.bfloat16
    recipe = Recipe("adamw", 1e-3, training.weight_decay, training.momentum, (training.beta_1, training.beta_2))
    loop = Loop(
        model=model,
        optimizer=Optimizer(model, recipe),
        average=Average(model, 0.0),
        batches=Shuffled(tokens, CONTEXT, 1),
        schedule=Cosine(100 / 5000),
        budget=Budget(5000),
        plan=Plan(training.batch_size, grad_clip=training.grad_clip, snapshots=False, checkpoint_every=10**9),
        device=DEVICE,
        evaluate=None,
        save=lambda which: None,
        loss=fast_loss(settings, model, compute, masked=False, own=False),
    )

    def steps(count: int, bare: bool = False) -> None:
        if bare:
            for _ in range(count):
                loop._step(0.5)
            return
        loop.budget = Budget(loop.position.step + count, from_step=loop.position.step)
        loop.run()

    return steps


def theirs(clone: Path, compiled: bool) -> Steps:
    """nanoGPT's training loop on its recipe."""
    import numpy as np
    import peers
    import torch

    module = peers.nanogpt_module(clone)
    sizes = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "block_size": CONTEXT, "vocab_size": VOCAB}
    model = module.GPT(module.GPTConfig(**sizes, dropout=DROPOUT, bias=False)).to(DEVICE)
    moved = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), DEVICE)
    run = torch.compile(model) if compiled else model

    def batch() -> list[torch.Tensor]:
        text = np.memmap(prepared(clone) / "train.bin", dtype=np.uint16, mode="r")
        starts = torch.randint(len(text) - CONTEXT, (BATCH,))
        pair = []
        for ahead in (0, 1):
            rows = [text[at + ahead : at + ahead + CONTEXT].astype(np.int64) for at in starts]
            together = torch.stack([torch.from_numpy(row) for row in rows])
            pair.append(together.pin_memory().to(DEVICE, non_blocking=True) if DEVICE == "cuda" else together)
        return pair

    ids, targets = batch()

    def steps(count: int, bare: bool = False) -> None:
        nonlocal ids, targets
        for number in range(count):
            for group in moved.param_groups:
                group["lr"] = 1e-3
            with torch.autocast(DEVICE, torch.bfloat16):
                loss = run(ids, targets)[1]
            ids, targets = batch()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            moved.step()
            moved.zero_grad(set_to_none=True)
            if number % 10 == 0 and not bare:
                loss.item()

    return steps


def prepared(clone: Path) -> Path:
    """The clone's folder of Tiny Shakespeare as nanoGPT reads it, made by its own script where it is not there."""
    folder = clone / "data" / "shakespeare_char"
    if not (folder / "train.bin").is_file():
        subprocess.run([sys.executable, "prepare.py"], cwd=folder, check=True, capture_output=True)
    return folder


def waited() -> None:
    """Until the GPU has done all it was given."""
    import torch

    if DEVICE == "cuda":
        torch.cuda.synchronize()


def cases(tokens: Any, clone: Path | None) -> dict[str, Callable[[], Steps]]:
    """What takes turns, by name."""
    found = {
        "Microformer, compiled": lambda: ours(tokens, True),
        "Microformer": lambda: ours(tokens, False),
    }
    if clone:
        found |= {"nanoGPT, compiled": lambda: theirs(clone, True), "nanoGPT": lambda: theirs(clone, False)}
    return found


def speeds(made: dict[str, Steps], turns: int, count: int) -> dict[str, dict[str, float]]:
    """Tokens a second of each."""

    def speed(steps: Steps) -> float:
        waited()
        began = time.perf_counter()
        steps(count, False)
        waited()
        return count * BATCH * CONTEXT / (time.perf_counter() - began)

    return shared.in_turns({name: lambda steps=steps: speed(steps) for name, steps in made.items()}, turns)


# What makes the CPU wait for the GPU, as the profiler calls it.
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def looked_at(steps: Steps, count: int = 10) -> dict[str, Any]:
    """One step, as the profiler saw it: the mean of a few, of which none is logged; waits are those of all of them."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    steps(10, True)
    waited()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        steps(count, True)
        waited()
    events = seen.events()
    on_gpu = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    attention = sorted(
        {event.name for event in on_gpu if any(word in event.name for word in ("flash", "fmha", "cudnn"))}
    )
    return {
        "waits": {name: sum(event.name == name for event in events) for name in WAITS},
        "launches": sum("LaunchKernel" in event.name or "GraphLaunch" in event.name for event in events) / count,
        "kernels": len(on_gpu) / count,
        "gpu_ms": sum(event.time_range.elapsed_us() for event in on_gpu) / count / 1000,
        "attention": [name[:90] for name in attention],
        "unpinned": sum("Pageable" in event.name for event in on_gpu),
    }


def nanogpt_curve(clone: Path, folder: Path, *flags: str) -> dict[str, Any]:
    """nanoGPT's own train.py: (seconds from the end of its first step, steps, its sampled loss), and more."""
    prepared(clone)
    words = [
        "train.py",
        "config/train_shakespeare_char.py",
        f"--device={DEVICE}",
        f"--out_dir={folder / 'out'}",
        *flags,
    ]
    began = time.perf_counter()
    curve, first, second, kept, lines = [], None, None, None, []
    with subprocess.Popen(
        [sys.executable, "-u", *words], cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            now = time.perf_counter()
            lines.append(line)
            if line.startswith("iter 0:"):
                first = now
            elif line.startswith("step ") and first is not None:
                curve.append((now - first, int(line.split()[1].rstrip(":")), float(line.split()[-1])))
                print(f"nanoGPT {line.strip()}, {curve[-1][0]:.1f} s", flush=True)
            elif line.startswith("iter ") and first is not None:
                second = now
    if process.returncode or first is None or second is None:
        raise SystemExit("".join(lines[-20:]))
    curve = [point for point in curve if point[1]]
    kept = min(curve, key=lambda point: point[2])
    before = json.loads(subprocess.run(
        [sys.executable, "-c", _EXACT, str(clone), str(folder / "out" / "ckpt.pt"), DEVICE],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()[-1])  # fmt: skip
    return {
        "curve": curve, "best": kept, "exact": before, "seconds": second - first, "process": now - began,
        "start": first - began,
    }  # fmt: skip


_EXACT = """
import json, sys, torch, numpy as np
from pathlib import Path
clone, kept, device = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
sys.path.insert(0, str(clone))
from model import GPT, GPTConfig
kept = torch.load(kept, map_location=device, weights_only=True)
model = GPT(GPTConfig(**kept["model_args"])).to(device)
model.load_state_dict({name.removeprefix("_orig_mod."): value for name, value in kept["model"].items()})
model.eval()
length, total = kept["model_args"]["block_size"], 0.0
read = lambda split: np.fromfile(clone / "data" / "shakespeare_char" / f"{split}.bin", np.uint16).astype(np.int64)
text = torch.tensor(np.concatenate([read("train")[-1:], read("val")])).to(device)
with torch.no_grad():
    for start in range(0, len(text) - 1, length):
        window = text[None, start : start + length + 1]
        total += model(window[:, :-1], window[:, 1:])[1].item() * (window.shape[1] - 1)
print(json.dumps({"loss": total / (len(text) - 1), "tokens": len(text) - 1, "step": kept["iter_num"]}))
"""


def possible() -> bool:
    """Whether there is a GPU to measure on."""
    import torch

    return torch.cuda.is_available()


def measure(options: shared.Options) -> dict[str, Any]:
    """Speeds, what the profiler saw, and curves: (seconds, steps, loss)."""
    import torch

    if DEVICE == "cuda" and not possible():
        raise SystemExit("this benchmark needs a CUDA GPU.")
    clone = options.nanogpt.resolve() if options.nanogpt else None
    found: dict[str, Any] = {"gpu": torch.cuda.get_device_name() if DEVICE == "cuda" else "none"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found["ours"] = []
        for seed in (1,) if options.quick else (1, 2, 3):
            done = shared.train(folder, f"seed-{seed}", "--config", "shakespeare_gpu", "--seed", str(seed))
            rows = [row for row in done["metrics"] if "val_loss" in row]
            curve = [(row["seconds"], row["step"], row["val_loss"]) for row in rows]
            found["ours"].append({"curve": curve, "process": done["seconds"]})
            print(f"Microformer, seed {seed}: {curve}, {done['seconds']:.1f} s in all", flush=True)
        tokens = torch.load(folder / "data" / "train.pt", weights_only=True)
        found["step"], found["memory"], made = {}, {}, {}
        for case, make in cases(tokens, clone).items():
            before = torch.cuda.memory_allocated() if DEVICE == "cuda" else 0
            if DEVICE == "cuda":
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            made[case] = make()
            made[case](3, False)
            waited()
            took = time.perf_counter() - began
            if DEVICE == "cuda":
                found["memory"][case] = (torch.cuda.max_memory_allocated() - before) / 2**20
                found["step"][case] = {**looked_at(made[case]), "first_seconds": took}
            print(f"{case}: {took:.1f} s to the third step; {found['step'].get(case)}", flush=True)
        found["speed"] = speeds(made, 3 if options.quick else 5, 20 if options.quick else 100)
        print(json.dumps(found["speed"]), flush=True)
        made.clear()
        if clone and not options.quick:
            found["nanogpt"] = nanogpt_curve(clone, folder)
    return found


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    lines = [
        f"On one {found['gpu']}:",
        "",
        "| | tokens/s | × nanoGPT, compiled | ms a step | the GPU's work | calls a step | CPU waits in 10 steps | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = found["speed"].get("nanoGPT, compiled")
    for name, speed in found["speed"].items():
        step = found["step"][name]
        cells = [
            name,
            shared.shown(speed),
            f"{speed['median'] / base['median']:.2f}" if base else "–",
            f"{BATCH * CONTEXT / speed['median'] * 1000:.1f}",
            f"{step['gpu_ms']:.1f}",
            f"{step['launches']:.0f}",
            str(sum(step["waits"].values())),
            f"{found['memory'][name]:,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    fused = {
        name.split("_wgmma")[0] for step in found["step"].values() for name in step["attention"] if "flash" in name
    }
    lines += ["", f"Attention is fused in all of them (`{min(fused)}` and the like)." if fused else "", ""]
    wanted = [A100_LOSS]
    if theirs := found.get("nanogpt"):
        wanted.append(theirs["exact"]["loss"])
    lines += [
        "| | loss, all validation characters | "
        + " | ".join(f"seconds to {loss:.4f}" for loss in wanted)
        + " | steps | seconds | the whole process |",
        "|---|---|" + "---|" * len(wanted) + "---|---|---|",
    ]
    for seed, one in enumerate(found["ours"], 1):
        seconds, steps, _ = one["curve"][-1]
        cells = [f"Microformer, seed {seed}", f"{min(loss for _, _, loss in one['curve']):.4f}"]
        cells += [_when(one["curve"], loss) for loss in wanted]
        lines.append("| " + " | ".join([*cells, f"{steps:,}", f"{seconds:.1f}", f"{one['process']:.0f}"]) + " |")
    if theirs:
        seconds, step, loss = theirs["best"]
        cells = ["nanoGPT", f"{wanted[1]:.4f} (sampled {loss:.4f})", f"{seconds:.1f}", f"{seconds:.1f}"]
        cells += [f"{step:,} of {theirs['curve'][-1][1]:,}", f"{theirs['seconds']:.1f}", f"{theirs['process']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
        lines += ["", _times(found, seconds)]
    return "\n".join(lines) + "\n"


def _when(curve: list[Any], loss: float) -> str:
    return next((f"{seconds:.1f}" for seconds, _, value in curve if value <= loss), "–")


def _times(found: dict[str, Any], theirs: float) -> str:
    """How many times sooner all seeds are at nanoGPT's loss than nanoGPT is at its best."""
    ours = [next((s for s, _, value in one["curve"] if value <= A100_LOSS), None) for one in found["ours"]]
    known = [seconds for seconds in ours if seconds is not None]
    if len(known) < len(ours):
        return f"Not every seed came to {A100_LOSS}."
    return (
        f"{A100_LOSS} is there {theirs / statistics.median(known):.1f} times sooner (median; the slowest seed "
        f"{theirs / max(known):.1f} times) than nanoGPT's best, about three seconds of it being the first step: "
        "starting the GPU and recording the step. The GPU's own work in a step is nearly the same: what makes the "
        "difference in tokens a second is that nanoGPT's CPU can't hand it out fast enough, so that with a faster CPU "
        "or a slower GPU the difference is smaller."
    )


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
