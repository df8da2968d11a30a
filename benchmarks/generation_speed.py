"""Generation: tokens a second, sampling included, of an untrained model (weights don't change the time): 4 layers, 4
heads, 128 wide, context 64. One stream inside the context and beyond it, and 64 streams together.

In nanoGPT's shape and in the default's (RoPE, RMSNorm, SwiGLU, QK-norm), beside nanoGPT's own `generate` (it has no
cache) and transformers' (it has). All take turns; figures are medians of the turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import add_flags, results
from training_speed import CONTEXT, SHAPE, VOCAB

NEW = CONTEXT - 4
DEFAULT = {"num_layers": 4, "max_seq_len": CONTEXT}


def ours(changes: dict[str, Any]) -> Callable[[int, int], None]:
    """Writes with one model: (streams, new tokens each)."""
    from microformer import generation
    from microformer.models.model import Microformer
    from microformer.settings import Settings, model_spec

    model = Microformer(model_spec(Settings().changed(changes), VOCAB), seed=1).eval()
    sampler = generation.Sampler(0.8)

    def write(streams: int, new: int) -> None:
        for _ in generation.stream(model, [[1, 2, 3, 4]] * streams, sampler, new):
            pass

    return write


def peer(build: Callable) -> Callable[[int, int], None]:
    """The same of a peer, by its own `generate`."""
    import torch

    model = build(VOCAB, CONTEXT).eval()
    return lambda streams, new: model.generate(torch.tensor([[1, 2, 3, 4]] * streams), new)


def measure(quick: bool, nanogpt: str | None) -> dict[str, Any]:
    """Tokens a second of each, by streams and length."""
    import peers
    import torch

    shape = {name: value for name, value in SHAPE.items() if name in DEFAULT or name not in ("beta_2",)}
    writers = {"Microformer, nanoGPT's shape": ours(shape), "Microformer, the default's": ours(DEFAULT)}
    if nanogpt:
        writers["nanoGPT"] = peer(peers.nanogpt(Path(nanogpt)))
    writers["transformers' GPT-2"] = peer(peers.HuggingFace)
    wanted = {"one stream": (1, NEW), "one stream, beyond the context": (1, 5 * CONTEXT), "64 streams": (64, NEW)}
    found: dict[str, Any] = {}
    with torch.no_grad():
        for what, (streams, new) in wanted.items():
            # transformers' GPT-2 can't go beyond its positions.
            able = {name: write for name, write in writers.items() if new == NEW or "transformers" not in name}
            speeds: dict[str, list[float]] = {name: [] for name in able}
            for turn in range(4 if quick else 16):
                for name, write in able.items():
                    began = time.perf_counter()
                    write(streams, new)
                    if turn:  # the first warms up
                        speeds[name].append(streams * new / (time.perf_counter() - began))
            found[what] = {
                name: {"median": statistics.median(turns), "least": min(turns), "most": max(turns)}
                for name, turns in speeds.items()
            }
    return found


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    lines = ["| tokens/s (least – most) | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for name in found["one stream"]:
        cells = [found[what].get(name) for what in found]
        shown = [f"{one['median']:,.0f} ({one['least']:,.0f} – {one['most']:,.0f})" if one else "–" for one in cells]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    given = parser.parse_args()
    results("generation_speed", measure(given.quick, given.nanogpt), page)
