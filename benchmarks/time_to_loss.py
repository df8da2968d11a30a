"""Loss against seconds on Tiny Shakespeare: the ready recipes of microformer/configs, beside nanoGPT's CPU recipe, the
same tuned (bfloat16, batch 32, rate 5e-3), and peers from the package index trained by nanoGPT's recipe.

Our seconds are wall time from the first step, evaluations and checkpoints included; the peers' are those of their steps
alone. They take turns, seed by seed; peers other than nanoGPT have one seed.

The validation split trains nothing. A run's final loss is that of its best validation, as early stopping would keep it.
What the recipes consist of was held against other choices on the training text alone: see "What each ingredient is
worth" and "How much to leave out".
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "Loss against seconds"
RECIPES = ("shakespeare_fast", "shakespeare_char", "shakespeare_3min")
# nanoGPT's loss with its CPU recipe, and with its GPU recipe on an A100 (its best sampled value).
CPU_LOSS, A100_LOSS = 1.898, 1.4697

Curve = list[tuple[float, int, float]]


def reached(curve: Curve, loss: float) -> float | None:
    """The seconds at which a curve was first at or below a loss; None if never."""
    return next((seconds for seconds, _, value in curve if value <= loss), None)


def measure(options: shared.Options) -> dict[str, Any]:
    """Curves of each, by seed: (seconds, steps, loss)."""
    import peers
    import torch
    from training_speed import builders

    curves: dict[str, list[Curve]] = {}

    def keep(name: str, seed: int, curve: Curve) -> None:
        curves.setdefault(name, []).append(curve)
        print(f"{name}, seed {seed}: {curve[-1][2]:.4f} after {curve[-1][0]:.1f} s, {curve[-1][1]:,} steps", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in (1,) if options.quick else (1, 2, 3):
            for recipe in RECIPES[:1] if options.quick else RECIPES:
                done = shared.train(folder, f"{recipe}-{seed}", "--config", recipe, "--seed", str(seed))
                rows = [row for row in done["metrics"] if "val_loss" in row]
                keep(f"Microformer, {recipe}", seed, [(row["seconds"], row["step"], row["val_loss"]) for row in rows])
            data = folder / "data"
            tokens, val = (torch.load(data / f"{split}.pt", weights_only=True).long() for split in ("train", "val"))
            vocab = len(json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"])
            built = builders(options.nanogpt)
            plain = peers.Recipe(steps=200, evaluations=2) if options.quick else peers.Recipe()
            if options.nanogpt:
                keep("nanoGPT", seed, peers.train(built["nanoGPT"], plain, tokens, val, vocab, seed))
            if options.nanogpt and not options.quick:
                tuned = peers.Recipe(batch=32, rate=5e-3, bfloat16=True, steps=1000)
                keep("nanoGPT, tuned", seed, peers.train(built["nanoGPT"], tuned, tokens, val, vocab, seed))
            for peer in built if seed == 1 else ():
                if peer != "nanoGPT":
                    keep(peer, seed, peers.train(built[peer], plain, tokens, val, vocab, seed))
    return {"curves": curves}


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    lines = [
        f"| | seeds | seconds | final loss: mean (worst) | seconds to {CPU_LOSS}: median (most) | to {A100_LOSS} |",
        "|---|---|---|---|---|---|",
    ]
    for name, curves in found["curves"].items():
        finals = [min(loss for _, _, loss in curve) for curve in curves]
        took = statistics.median(curve[-1][0] for curve in curves)
        cells = [name, str(len(curves)), f"{took:.0f}", f"{statistics.mean(finals):.4f} ({max(finals):.4f})"]
        for loss in (CPU_LOSS, A100_LOSS):
            times = [reached(curve, loss) for curve in curves]
            known = [one for one in times if one is not None]
            all_did = len(known) == len(times)
            cells.append(f"{statistics.median(known):.1f} ({max(known):.1f})" if all_did else f"not in {took:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(found: dict[str, Any], folder: Path) -> str:
    """The curves of each one's first seed in one picture."""
    from microformer import pictures

    series = {
        name.removeprefix("Microformer, "): [(seconds, loss) for seconds, _, loss in curves[0]]
        for name, curves in found["curves"].items()
    }
    pictures.loss_curves(
        folder / "time_to_loss.svg", folder / "time_to_loss.png", series,
        x_label="seconds of training", y_label="validation loss (nats per character)",
        baselines={"nanoGPT on an A100, 3 minutes": A100_LOSS}, title="Tiny Shakespeare on two CPU cores",
    )  # fmt: skip
    return "time_to_loss.svg"


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
