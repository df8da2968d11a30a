"""What the default was chosen from: models of its size whose shape the ecosystem can load, for the same time."""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from measure import machine, train

_GPT_2 = ["--no-qk-norm", "--positions", "learned", "--norm", "layernorm", "--feedforward", "gelu", "--bias"]
# One setting each way from the default, which is Qwen3-like.
ARCHITECTURES = {
    "Qwen3-like (the default)": [],
    "Llama-like": ["--no-qk-norm"],
    "GPT-2-like": [*_GPT_2, "--tie-embeddings"],
    "GPT-2-like, untied": _GPT_2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each [2]")
    parser.add_argument("--minutes", type=float, default=1.0, help="the budget of each [1]")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # Alternating, so that a machine that slows down does so for all.
        for seed in range(1, args.seeds + 1):
            for number, (name, flags) in enumerate(ARCHITECTURES.items()):
                budget = ["--seed", str(seed), "--max-minutes", str(args.minutes)]
                done = train(Path(folder), f"arm-{number}-{seed}", *flags, *budget)
                figures, steps = done["info"]["figures"], done["info"]["ended"]["step"]
                rows.append({"name": name, "seed": seed, "loss": figures["val_loss"], "steps": steps})
                print(f"{name}, seed {seed}: {figures['val_loss']:.4f} after {steps:,} steps", flush=True)
    for name in ARCHITECTURES:
        losses = [row["loss"] for row in rows if row["name"] == name]
        print(f"{name:28}{statistics.mean(losses):.4f} (worst {max(losses):.4f})")
    print(json.dumps({"machine": machine(), "minutes": args.minutes, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
