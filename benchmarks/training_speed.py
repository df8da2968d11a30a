"""Training: tokens a second and peak memory at equal architecture (4 layers, 4 heads, 128 wide, context 64).

Our model in nanoGPT's shape (LayerNorm, learned positions, GELU, tied, no biases, AdamW, no compilation) beside
nanoGPT and peers from the package index, in float32 and in bfloat16 (the peers' under autocast). Ours is recorded, as
in any training of this size from its 201st step on (docs/devices.md). All take turns, ten steps each; figures are
medians of the turns, with the range. Memory is the peak of a process that does nothing else.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "Training speed and memory at equal architecture"
CONTEXT, VOCAB = 64, 65
SHAPE = {
    "num_layers": 4, "num_heads": 4, "embed_dim": 128, "ff_dim": 512, "max_seq_len": CONTEXT, "positions": "learned",
    "norm": "layernorm", "feedforward": "gelu", "qk_norm": False, "tie_embeddings": True, "optimizer": "adamw",
    "learning_rate": 1e-3, "beta_2": 0.99, "weight_decay": 0.1,
}  # fmt: skip


def ours(batch: int, precision: str) -> Callable[[], None]:
    """A step of our model and optimizer, as the training loop does it."""
    import torch

    from microformer import devices, playback
    from microformer.models.model import Microformer
    from microformer.settings import Settings, model_spec
    from microformer.training.optimizers import Optimizer, Recipe

    settings = Settings().changed(SHAPE)
    compute = devices.choose("cpu", precision)
    devices.use(compute)
    model = Microformer(model_spec(settings, VOCAB), seed=1)
    model.compute_dtype = compute.torch_dtype
    training = settings.training
    moved = Optimizer(model, Recipe("adamw", 1e-3, 0.1, 0.95, (training.beta_1, training.beta_2)))
    moved.set_rate(0.1)
    ids, targets = (torch.randint(VOCAB, (batch, CONTEXT)) for _ in range(2))
    loss = playback.with_gradient(lambda ids, targets: model.loss(ids, targets, None), [*model.parameters()], after=0)

    def step() -> None:
        loss(ids, targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        moved.step()

    return step


def peer(build: Callable, batch: int, bfloat16: bool) -> Callable[[], None]:
    """A step of a peer."""
    import peers
    import torch

    model = build(VOCAB, CONTEXT)
    moved = peers.optimizer(model, 1e-4)
    ids, targets = (torch.randint(VOCAB, (batch, CONTEXT)) for _ in range(2))
    return lambda: peers.step(model, moved, ids, targets, bfloat16)


def builders(nanogpt: Path | None) -> dict[str, Callable]:
    """The peers by name."""
    import peers

    found = {"nanoGPT": peers.nanogpt(nanogpt)} if nanogpt else {}
    named = {"transformers' GPT-2": peers.HuggingFace, "x-transformers": peers.XTransformers}
    return {**found, **named, "nn.TransformerEncoder": peers.PyTorchs}


def cases(batch: int, nanogpt: Path | None) -> dict[str, Callable[[], None]]:
    """What takes turns at one batch size."""
    both = {"float32": False, "bfloat16": True}
    found = {f"Microformer, {precision}": ours(batch, precision) for precision in both}
    for name, build in builders(nanogpt).items():
        found |= {f"{name}, {precision}": peer(build, batch, cast) for precision, cast in both.items()}
    return found


def memory(name: str, nanogpt: Path | None) -> float:
    """Peak resident memory, in MB, of a process that trains one case 20 steps at batch 12."""
    words = [sys.executable, __file__, "--alone", name, str(nanogpt or "")]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])


def alone(name: str, nanogpt: Path | None) -> None:
    """What `memory` starts."""
    who, precision = name.rsplit(", ", 1)
    found = builders(nanogpt)
    step = peer(found[who], 12, precision == "bfloat16") if who in found else ours(12, precision)
    for _ in range(20):
        step()
    # Not getrusage's: there a process starts with the peak of the one that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024)


def measure(options: shared.Options) -> dict[str, Any]:
    """Tokens a second at batch 12 and 48, each a median of turns; memory at batch 12."""
    found: dict[str, Any] = {}
    for batch in (12, 48):

        def speed(step: Callable[[], None], batch: int = batch, steps: int = 4 if options.quick else 10) -> float:
            began = time.perf_counter()
            for _ in range(steps):
                step()
            return steps * batch * CONTEXT / (time.perf_counter() - began)

        timed = {name: lambda step=step: speed(step) for name, step in cases(batch, options.nanogpt).items()}
        found[str(batch)] = shared.in_turns(timed, 3 if options.quick else 9)
    found["memory"] = {} if options.quick else {name: memory(name, options.nanogpt) for name in found["12"]}
    return found


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    base = "nanoGPT, float32" if "nanoGPT, float32" in found["12"] else "transformers' GPT-2, float32"
    lines = [
        f"| | batch 12: tokens/s | × {base} | batch 48: tokens/s | × {base} | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for name in found["12"]:
        cells = [f"| {name}"]
        for batch in ("12", "48"):
            one, ratio = found[batch][name], found[batch][name]["median"] / found[batch][base]["median"]
            cells.append(f" {shared.shown(one)} | {ratio:.2f}")
        megabytes = found["memory"].get(name)
        lines.append(" |".join([*cells, f" {megabytes:,.0f} |" if megabytes else " – |"]))
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        alone(sys.argv[2], Path(sys.argv[3]) if sys.argv[3] else None)
    else:
        shared.main(sys.modules[__name__])
