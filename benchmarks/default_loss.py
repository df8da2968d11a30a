"""The default config.py on Tiny Shakespeare: loss for a given time, and the time of a whole `microformer train`."""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from measure import machine, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs of --max-minutes, each with a seed of its own [3]")
    parser.add_argument("--minutes", type=float, default=1.5, help="the budget of each [1.5]")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        whole = train(Path(folder), "whole")
        losses, steps = [], []
        for seed in range(1, args.seeds + 1):
            done = train(Path(folder), f"seed-{seed}", "--seed", str(seed), "--max-minutes", str(args.minutes))
            losses.append(done["info"]["figures"]["val_loss"])
            steps.append(done["info"]["ended"]["step"])
            print(f"seed {seed}: {losses[-1]:.4f} nats/char after {steps[-1]:,} steps", flush=True)
    result = {
        "machine": machine(),
        "minutes": args.minutes,
        "losses": losses,
        "mean": statistics.mean(losses),
        "worst": max(losses),
        "steps": steps,
        "whole_train": {
            "seconds": whole["seconds"],
            "loss": whole["info"]["figures"]["val_loss"],
            "steps": whole["info"]["ended"]["step"],
        },
    }
    print(f"mean {result['mean']:.4f}, worst {result['worst']:.4f} within {args.minutes:g} minutes")
    print(
        f"`microformer train`, start to sample: {whole['seconds']:.1f} s, {result['whole_train']['loss']:.4f} nats/char"
    )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
