"""MySchedule: the rate stays at its highest, then falls with the root of what is left.

    share = min(1, sqrt((1 − progress) / d))

As Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", found better than a
straight line, there in the form 1 − sqrt. A start: put your own formula in `share`.
"""

from microformer.training.schedules import Schedule


class MySchedule(Schedule):
    """The warm-up is the Schedule's: its `rate` is the lower of the two.

    Args:
        warmup: share of the run in which the rate rises linearly from 0 (WARMUP).
        decay: d, the share of the run, at its end, in which the rate falls.
    """

    def __init__(self, warmup: float, decay: float = 0.5):
        super().__init__(warmup)
        self.decay = decay

    def share(self, progress: float) -> float:
        """The rate as a share of the highest, from 0 to 1. progress: 0 at the start of the run, 1 at its end."""
        return min(1.0, (1 - progress) / self.decay) ** 0.5
