"""Loss against seconds on Tiny Shakespeare: the ready recipes of microformer/configs, beside nanoGPT's CPU recipe, the
same tuned (bfloat16, batch 32, rate 5e-3), and peers from the package index trained by nanoGPT's recipe.

Losses are exact, over all 111,540 validation characters, in nats a character. Our seconds are wall time from the first
step, evaluations and checkpoints included; the peers' are those of their steps alone. They take turns, seed by seed.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from measure import add_flags, results, train

RECIPES = ("shakespeare_fast",)
# nanoGPT's loss with its CPU recipe, and with its GPU recipe on an A100 (its best sampled value).
CPU_LOSS, A100_LOSS = 1.898, 1.4697

Curve = list[tuple[float, int, float]]


def reached(curve: Curve, loss: float) -> float | None:
    """The seconds at which a curve was first at or below a loss; None if never."""
    return next((seconds for seconds, _, value in curve if value <= loss), None)


def measure(quick: bool, nanogpt: str | None) -> dict[str, Any]:
    """Curves of each, by seed."""
    import peers
    import torch
    from training_speed import builders

    curves: dict[str, list[Curve]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in (1,) if quick else (1, 2, 3):
            for recipe in RECIPES:
                done = train(folder, f"{recipe}-{seed}", "--config", recipe, "--seed", str(seed))
                rows = [row for row in done["metrics"] if "val_loss" in row]
                curve = [(row["seconds"], row["step"], row["val_loss"]) for row in rows]
                curves.setdefault(recipe, []).append(curve)
                print(f"{recipe}, seed {seed}: {curve[-1][2]:.4f} after {curve[-1][0]:.1f} s", flush=True)
            data = folder / "data"
            tokens, val = (torch.load(data / f"{split}.pt", weights_only=True).long() for split in ("train", "val"))
            vocab = len(json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"])
            built = builders(nanogpt)
            arms = {name: (build, peers.Recipe(steps=200 if quick else 2000)) for name, build in built.items()}
            if nanogpt and not quick:
                tuned = peers.Recipe(batch=32, rate=5e-3, bfloat16=True, steps=1000)
                arms["nanoGPT, tuned"] = (built["nanoGPT"], tuned)
            for arm, (build, recipe) in arms.items():
                curve = peers.train(build, recipe, tokens, val, vocab, seed)
                curves.setdefault(arm, []).append(curve)
                print(f"{arm}, seed {seed}: {curve[-1][2]:.4f} after {curve[-1][0]:.1f} s", flush=True)
    return {"curves": curves}


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    lines = [
        f"| | seconds | final loss: mean (worst) | seconds to {CPU_LOSS} (median) | to {A100_LOSS} |",
        "|---|---|---|---|---|",
    ]
    for name, curves in found["curves"].items():
        finals = [min(loss for _, _, loss in curve) for curve in curves]
        took = statistics.median(curve[-1][0] for curve in curves)
        cells = []
        for loss in (CPU_LOSS, A100_LOSS):
            times = [reached([tuple(point) for point in curve], loss) for curve in curves]
            cells.append("–" if None in times else f"{statistics.median(t for t in times if t is not None):.1f}")
        lines.append(
            f"| {name} | {took:.0f} | {statistics.mean(finals):.4f} ({max(finals):.4f}) | {cells[0]} | {cells[1]} |"
        )
    return "\n".join(lines)


def draw(found: dict[str, Any], folder: Path) -> None:
    """The curves of each one's first seed in one picture."""
    from microformer import pictures

    series = {name: [(seconds, loss) for seconds, _, loss in curves[0]] for name, curves in found["curves"].items()}
    pictures.loss_curves(
        folder / "time_to_loss.svg", folder / "time_to_loss.png", series,
        x_label="seconds of training", y_label="validation loss (nats per character)",
        baselines={"nanoGPT on an A100, 3 minutes": A100_LOSS}, title="Tiny Shakespeare on two CPU cores",
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    given = parser.parse_args()
    results("time_to_loss", measure(given.quick, given.nanogpt), page)
