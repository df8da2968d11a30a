"""Schedules: the learning rate through the run, as a share of the highest. Knows progress (0 … 1) and no steps.

A run by minutes and a run by steps have the same shape: progress is the share of the budget that is used.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A warm-up, then one of four ways down.

    Args:
        kind: `cosine` (Loshchilov and Hutter 2017), `linear`, `wsd` (warm-up, stable, decay: Hu et al. 2024) or
            `constant`.
        warmup: share of the run in which the rate rises linearly.
        decay: share of the run, at its end, in which `wsd` falls linearly.
    """

    kind: str
    warmup: float
    decay: float

    def rate(self, progress: float) -> float:
        """The rate at a moment of the run, as a share of the highest. progress: 0 at the start, 1 at the end."""
        progress = min(max(progress, 0.0), 1.0)
        rising = progress / self.warmup if progress < self.warmup else 1.0
        left = min(1.0, (1 - progress) / (1 - self.warmup)) if self.warmup < 1 else 1.0
        match self.kind:
            case "linear":
                return min(rising, left)
            case "cosine":
                return min(rising, 0.5 * (1 - math.cos(math.pi * left)))
            case "wsd":
                return min(rising, (1 - progress) / self.decay) if self.decay else rising
            case "constant":
                return rising
            case _:
                raise ValueError(f"no schedule is called {self.kind!r}")
