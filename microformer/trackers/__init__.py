"""Trackers: where a run's figures, samples and pictures go beside its folder, to be looked at in another program.

TensorBoard and Weights & Biases; another one is a class (base.py). Knows no training and no models.
"""

import importlib.util
from collections.abc import Sequence

from microformer.errors import SettingsError
from microformer.trackers.base import About, Tracker
from microformer.trackers.lanes import Trackers

__all__ = ["About", "Tracker", "Trackers", "build", "check"]


def check(names: Sequence[str]) -> None:
    """Raises SettingsError where a tracker's package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise SettingsError(
                f"TRACKERS {name} takes the package {name}, which is not installed.",
                f'pip install "microformer[{name}]"',
            )


def build(names: Sequence[str]) -> list[Tracker]:
    """The trackers of these names."""
    return [_one(name) for name in names]


def _one(name: str) -> Tracker:
    # Only here: each brings its library along.
    match name:
        case "tensorboard":
            from microformer.trackers.tensorboard import TensorBoard

            return TensorBoard()
        case "wandb":
            from microformer.trackers.wandb import WandB

            return WandB()
    raise ValueError(name)
