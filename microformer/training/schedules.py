"""Schedules: the learning rate through the run, as a share of the highest. Knows progress (0 … 1) and no steps.

A run by minutes and a run by steps have the same shape: progress is the share of the budget that is used. Every
schedule rises linearly through the warm-up; what differs is the way down.
"""

import math
from abc import ABC, abstractmethod


class Schedule(ABC):
    """A warm-up, then a way down.

    Args:
        warmup: share of the run in which the rate rises linearly from 0.
    """

    # The share that is left at the end: what `share` gives is taken of the rest.
    floor: float = 0.0

    def __init__(self, warmup: float):
        self.warmup = warmup

    @abstractmethod
    def share(self, progress: float) -> float:
        """The rate as a share of the highest, 0 … 1, the warm-up left aside.

        Args:
            progress: 0 at the start of the run, 1 at its end.
        """

    def rate(self, progress: float) -> float:
        """The rate at a moment of the run, as a share of the highest. progress: 0 at the start, 1 at the end."""
        progress = min(max(progress, 0.0), 1.0)
        risen = progress / self.warmup if progress < self.warmup else 1.0
        return min(risen, self.floor + (1 - self.floor) * self.share(progress))

    def left(self, progress: float) -> float:
        """How much is left of the run after the warm-up: 1 until the warm-up ends, 0 at the end of the run."""
        return min(1.0, (1 - progress) / (1 - self.warmup)) if self.warmup < 1 else 1.0


class Cosine(Schedule):
    """Half a wave, from 1 to 0 (Loshchilov and Hutter 2017, "SGDR")."""

    def share(self, progress: float) -> float:
        return 0.5 * (1 - math.cos(math.pi * self.left(progress)))


class Linear(Schedule):
    """A straight line from 1 to 0."""

    def share(self, progress: float) -> float:
        return self.left(progress)


class WSD(Schedule):
    """Warm-up, stable, decay: 1 until the last part of the run, and a straight line to 0 there (Hu et al. 2024,
    "MiniCPM").

    Args:
        warmup: as a Schedule's.
        decay: share of the run, at its end, in which the rate falls; 0 for none.
    """

    def __init__(self, warmup: float, decay: float):
        super().__init__(warmup)
        self.decay = decay

    def share(self, progress: float) -> float:
        return min(1.0, (1 - progress) / self.decay) if self.decay else 1.0


class Constant(Schedule):
    """Never falls."""

    def share(self, progress: float) -> float:
        return 1.0


def build(kind: str, warmup: float, decay: float) -> Schedule:
    """The schedule of a word.

    Args:
        kind: `cosine`, `linear`, `wsd` or `constant`.
        warmup, decay: as above; only `wsd` reads decay.
    """
    match kind:
        case "cosine":
            return Cosine(warmup)
        case "linear":
            return Linear(warmup)
        case "wsd":
            return WSD(warmup, decay)
        case "constant":
            return Constant(warmup)
        case _:
            raise ValueError(f"no schedule is called {kind!r}")
