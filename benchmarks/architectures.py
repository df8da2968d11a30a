"""What the default was chosen from: models of its size (2 layers, 128 wide, 4 heads, FF_DIM 256, context 128) whose
shape the ecosystem can load, each for a minute on the clock, taking turns.
"""

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "The architecture of the default"
MINUTES = 1.0
_GPT_2 = ["--no-qk-norm", "--positions", "learned", "--norm", "layernorm", "--feedforward", "gelu_tanh", "--bias"]
# One setting each way from the default, which is Qwen3-like.
ARCHITECTURES = {
    "Qwen3-like: RMSNorm, RoPE, QK-norm, SwiGLU (the default)": [],
    "Llama-like: the same without QK-norm": ["--no-qk-norm"],
    "GPT-2-like: LayerNorm, learned positions, GELU, biases, tied": [*_GPT_2, "--tie-embeddings"],
    "GPT-2-like, untied": _GPT_2,
}


def measure(options: shared.Options) -> dict[str, Any]:
    """Losses and steps of each, by seed."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ARCHITECTURES}
    with tempfile.TemporaryDirectory() as folder:
        for seed in (1,) if options.quick else (1, 2):
            for number, (name, flags) in enumerate(ARCHITECTURES.items()):
                budget = ["--seed", str(seed), "--max-minutes", str(MINUTES)]
                info = shared.train(Path(folder), f"arm-{number}-{seed}", *flags, *budget)["info"]
                found[name].append({"loss": info["figures"]["val_loss"], "steps": info["ended"]["step"]})
                print(f"{name}, seed {seed}: {found[name][-1]}", flush=True)
    return found


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    lines = ["| | loss: mean (worst) | steps |", "|---|---|---|"]
    for name, runs in found.items():
        losses, steps = [run["loss"] for run in runs], [run["steps"] for run in runs]
        lines.append(
            f"| {name} | {statistics.mean(losses):.4f} ({max(losses):.4f}) | {', '.join(f'{n:,}' for n in steps)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
