"""Generation: tokens a second, sampling included, of an untrained model (weights don't change the time): 4 layers, 4
heads, 128 wide, context 64, in float32. One stream inside the context and beyond it, and 64 streams together.

In nanoGPT's shape and in the default's (RoPE, RMSNorm, SwiGLU, QK-norm), eager and with `--compile`, beside nanoGPT's
own `generate` (it has no cache) and transformers' (it has). Ours is recorded (docs/generation.md) or compiled once, in
the first turn; that takes as long as some twenty tokens, or twenty seconds. All take turns; figures are medians of the
turns, with the range.
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


def ours(changes: dict[str, Any], compiled: bool) -> Callable[[int, int], None]:
    """Writes with one model: (streams, new tokens each)."""
    from microformer import devices, generation
    from microformer.models.model import Microformer
    from microformer.settings import Settings, model_spec

    model = Microformer(model_spec(Settings().changed(changes), VOCAB), seed=1).eval()
    sampler = generation.Sampler(0.8)
    plain = partial(generation.next_ids, model, sampler)
    code = partial(devices.compiled_work, what="generation")
    recorded = (
        generation.Recorded(plain, CONTEXT, 8, code, room=CONTEXT) if compiled else generation.Recorded(plain, CONTEXT)
    )

    def write(streams: int, new: int) -> None:
        with devices.threads_for(streams * model.num_parameters()):
            for _ in generation.stream(model, [[1, 2, 3, 4]] * streams, sampler, new, step=recorded):
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
        f"Microformer, {name}{', compiled' if compiled else ''}": ours(changes, compiled)
        for name, changes in MODELS.items()
        for compiled in (False, True)
        if not (options.quick and compiled)
    }
    if options.nanogpt:
        writers["nanoGPT"] = peer(peers.nanogpt(options.nanogpt))
    writers["transformers' GPT-2"] = peer(peers.HuggingFace)
    found: dict[str, Any] = {}

    def speed(write: Callable[[int, int], None], streams: int, new: int) -> float:
        began = time.perf_counter()
        write(streams, new)
        return streams * new / (time.perf_counter() - began)

    with torch.no_grad():
        for what, (streams, new) in WANTED.items():
            # transformers' GPT-2 can't go beyond its positions.
            able = {name: write for name, write in writers.items() if new == NEW or "transformers" not in name}
            timed = {name: lambda w=write, s=streams, n=new: speed(w, s, n) for name, write in able.items()}
            found[what] = shared.in_turns(timed, 3 if options.quick else 9)
    return found


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    lines = ["| tokens/s | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for name in found["one stream"]:
        cells = [shared.shown(found[what][name]) if name in found[what] else "–" for what in found]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
