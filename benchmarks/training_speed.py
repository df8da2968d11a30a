"""Training: tokens a second and peak memory at equal architecture (4 layers, 4 heads, 128 wide, context 64).

Our model in nanoGPT's shape (LayerNorm, learned positions, GELU, tied, no biases, AdamW, no compilation) beside
nanoGPT and peers from the package index, in float32 and in bfloat16 (the peers' under autocast). Ours is recorded, as
in any training of this size from its 201st step on (docs/devices.md), and beside it as its first 200 steps are.

Each is a process of its own, as its users have it; all take turns, twelve steps each at batch 12 and four at batch 48.
Before them comes one that isn't timed: after the others' turns the cache holds nothing of a process any more, which a
training that goes on need not wait for. Figures are medians of 21 turns, with the range; ratios are medians of the
turns' ratios. Memory is the peak of each process.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "Training speed and memory at equal architecture"
CONTEXT, VOCAB = 64, 65
PRECISIONS = ("float32", "bfloat16")
OURS, FIRST = "Microformer", "Microformer's first steps"
_ANSWER = "answer:"
SHAPE = {
    "num_layers": 4, "num_heads": 4, "embed_dim": 128, "ff_dim": 512, "max_seq_len": CONTEXT, "positions": "learned",
    "norm": "layernorm", "feedforward": "gelu", "qk_norm": False, "tie_embeddings": True, "optimizer": "adamw",
    "learning_rate": 1e-3, "beta_2": 0.99, "weight_decay": 0.1,
}  # fmt: skip


def ours(batch: int, precision: str, recorded: bool = True) -> Callable[[], None]:
    """A step of our model and optimizer, as the training loop does it: recorded, as from the 201st on, or not yet."""
    import torch

    from microformer import devices
    from microformer.models.model import Microformer
    from microformer.pipeline.fast_loss import fast_loss
    from microformer.settings import Settings, model_spec
    from microformer.training.optimizers import Optimizer, Recipe

    settings = Settings().changed({**SHAPE, "batch_size": batch})
    compute = devices.choose("cpu", precision)
    devices.use(compute)
    model = Microformer(model_spec(settings, VOCAB), seed=1)
    model.compute_dtype = compute.torch_dtype
    training = settings.training
    moved = Optimizer(model, Recipe("adamw", 1e-3, 0.1, 0.95, (training.beta_1, training.beta_2)))
    moved.set_rate(0.1)
    ids, targets = (torch.randint(VOCAB, (batch, CONTEXT)) for _ in range(2))
    weights = list(model.parameters())
    loss = fast_loss(settings, model, compute, masked=False, own=False, after=0 if recorded else 10**9)
    assert loss is not None

    def step() -> None:
        loss(ids, targets, None, None)[0].backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
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


def names(options: shared.Options) -> list[str]:
    """The cases: who, in which precision. At a first look ours and the first of the peers alone."""
    whose = [OURS, *builders(options.nanogpt), FIRST][: 2 if options.quick else None]
    return [f"{who}, {precision}" for who in whose for precision in PRECISIONS]


class Apart:
    """A case in a process of its own, as its users have it: Microformer's begins as `microformer train` does, a peer's
    as PyTorch does.

    Args:
        name: of the case.
        batch: sequences a step.
        nanogpt: a clone of nanoGPT, if there is one.
    """

    def __init__(self, name: str, batch: int, nanogpt: Path | None):
        words = [sys.executable, __file__, "--alone", name, str(batch), str(nanogpt or "")]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.tokens = batch * CONTEXT

    def ready(self) -> None:
        """Comes back when it can be told to make steps."""
        self._answer()

    def speed(self, steps: int) -> float:
        """Tokens a second over so many steps."""
        assert self.process.stdin is not None
        print(steps, file=self.process.stdin, flush=True)
        return steps * self.tokens / self._answer()

    def end(self) -> float:
        """Its peak of resident memory, in MB."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        megabytes = self._answer()
        self.process.wait()
        return megabytes

    def _answer(self) -> float:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(_ANSWER):
                return float(line.removeprefix(_ANSWER))
        raise SystemExit(f"the process of a case ended with exit code {self.process.wait()}.")


def alone(name: str, batch: int, nanogpt: Path | None) -> None:
    """What such a process does."""
    who, precision = name.rsplit(", ", 1)
    if who in (OURS, FIRST):
        from microformer import devices

        devices.share_cores()
        step = ours(batch, precision, recorded=who == OURS)
    else:
        step = peer(builders(nanogpt)[who], batch, precision == "bfloat16")
    for _ in range(3):
        step()
    print(_ANSWER, 0, flush=True)
    for line in sys.stdin:
        step()
        began = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(_ANSWER, time.perf_counter() - began, flush=True)
    # Not getrusage's: there a process starts with the peak of the one that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    print(_ANSWER, next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024)


def measure(options: shared.Options) -> dict[str, Any]:
    """Tokens a second at batch 12 and 48, each a median of turns, and the peaks of memory."""
    found: dict[str, Any] = {"memory": {}}
    for batch, steps in ((12, 12), (48, 4)):
        apart = {name: Apart(name, batch, options.nanogpt) for name in names(options)}
        for one in apart.values():
            one.ready()
        timed = {name: partial(one.speed, steps) for name, one in apart.items()}
        found[str(batch)] = shared.in_turns(timed, 3 if options.quick else 21, base(timed))
        found["memory"][str(batch)] = {name: one.end() for name, one in apart.items()}
    return found


def base(cases: Collection[str]) -> str:
    """Whom all are compared with."""
    return next(name for name in ("nanoGPT, float32", "transformers' GPT-2, float32") if name in cases)


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    other = base(found["12"])
    lines = [
        f"| | batch 12: tokens/s | × {other} | peak MB | batch 48: tokens/s | × {other} | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in found["12"]:
        cells = [f"| {name}"]
        for batch in ("12", "48"):
            cells.append(f" {shared.shown(found[batch][name])} | {found[batch][name]['ratio']:.2f}")
            cells.append(f" {found['memory'][batch][name]:,.0f}")
        lines.append(" |".join([*cells, ""]))
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        alone(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]) if sys.argv[4] else None)
    else:
        shared.main(sys.modules[__name__])
