"""Generation: tokens a second, sampling included, of an untrained model (weights don't change the time): 4 layers, 4
heads, 128 wide, context 64, in float32 where nothing is said. One stream inside the context and beyond it, and 64
streams together.

In nanoGPT's shape and in the default's (RoPE, RMSNorm, SwiGLU, QK-norm), eager and with `--compile`, with and without
`--precision bfloat16`, beside nanoGPT's own `generate` (it has no cache) and transformers' (it has); and in nanoGPT's
with 12 layers, 768 wide (85 million parameters). Ours is recorded (docs/generation.md) or compiled once, in the first
turn; that takes as long as some twenty tokens, or twenty seconds. All take turns; figures are medians of 21 turns, with
the range.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import measure as shared
from training_speed import CONTEXT, SHAPE, VOCAB

TITLE = "Generation"
NEW = CONTEXT - 4
WANTED = {"one stream": (1, NEW), "one stream, beyond the context": (1, 5 * CONTEXT), "64 streams": (64, NEW)}
MODELS = {
    "nanoGPT's shape": {name: value for name, value in SHAPE.items() if name != "beta_2"},
    "the default's": {"num_layers": 4, "max_seq_len": CONTEXT},
}
LARGE = "12 layers, 768 wide"
MODELS[LARGE] = {**MODELS["nanoGPT's shape"], "num_layers": 12, "num_heads": 12, "embed_dim": 768, "ff_dim": 3072}


def ours(changes: dict[str, Any], compiled: bool, coarse: bool) -> Callable[[int, int], None]:
    """Writes with one model: (streams, new tokens each). coarse: in bfloat16."""
    import torch

    from microformer import devices, generation
    from microformer.models.model import Microformer
    from microformer.settings import Settings, model_spec

    model = Microformer(model_spec(Settings().changed(changes), VOCAB), seed=1).eval()
    model = model.kept_in(torch.bfloat16) if coarse else model
    sampler = generation.Sampler(0.8)
    plain = partial(generation.next_ids, model, sampler)
    code = partial(devices.compiled_work, what="generation")
    step = None if coarse else generation.Recorded(plain, CONTEXT)
    if compiled:
        step = generation.Recorded(plain, CONTEXT, 8, code, room=CONTEXT)

    def write(streams: int, new: int) -> None:
        with devices.threads_for(streams * model.num_parameters()):
            for _ in generation.stream(model, [[1, 2, 3, 4]] * streams, sampler, new, step=step):
                pass

    return write


def peer(build: Callable) -> Callable[[int, int], None]:
    """The same of a peer, by its own `generate`."""
    import torch

    from microformer import devices

    model = build(VOCAB, CONTEXT).eval()

    def write(streams: int, new: int) -> None:
        # As few threads as ours: a second one only slows a single stream.
        with devices.threads_for(streams * sum(parameter.numel() for parameter in model.parameters())):
            model.generate(torch.tensor([[1, 2, 3, 4]] * streams), new)

    return write


def measure(options: shared.Options) -> dict[str, Any]:
    """Tokens a second of each, by streams and length."""
    import peers
    import torch

    writers = {
        f"Microformer, {name}{how}": ours(changes, "compiled" in how, "bfloat16" in how)
        for name, changes in MODELS.items()
        if not (options.quick and name == LARGE)
        for how in ("", ", bfloat16", ", compiled", ", bfloat16, compiled")
        if "compiled" not in how or not (options.quick or name == LARGE)
    }
    if options.nanogpt:
        writers["nanoGPT"] = peer(peers.nanogpt(options.nanogpt))
    writers["transformers' GPT-2"] = peer(peers.HuggingFace)

    def speed(write: Callable[[int, int], None], streams: int, new: int) -> float:
        began = time.perf_counter()
        write(streams, new)
        return streams * new / (time.perf_counter() - began)

    timed = {
        (what, name): partial(speed, write, streams, new)
        for what, (streams, new) in WANTED.items()
        for name, write in writers.items()
        # transformers' GPT-2 can't go beyond its positions; the large one takes long.
        if (new == NEW or "transformers" not in name) and (what == "one stream" or LARGE not in name)
    }
    with torch.no_grad():
        figures = shared.in_turns(timed, 3 if options.quick else 21)
    return {what: {name: figures[what, name] for name in writers if (what, name) in figures} for what in WANTED}


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    lines = ["| tokens/s | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for name in found["one stream"]:
        cells = [shared.shown(found[what][name]) if name in found[what] else "–" for what in found]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
