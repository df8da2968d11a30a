"""Budgets: how much of a run is used, counted in steps, on the clock, or as another run recorded it.

Progress is the largest of the shares used, so that whichever limit comes first ends the run with its schedule
complete. A leg is what a run does until its budget is used; going on after that is a leg of its own.
"""

from dataclasses import dataclass, field


@dataclass
class Record:
    """What a run on the clock did at which step, so that it can be done again whatever the clock says then.

    Args:
        progress: at each step.
        validated: the steps after which it validated.
    """

    progress: list[float] = field(default_factory=list)
    validated: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Budget:
    """What one leg may use.

    Args:
        steps: the step at which it ends; None for no such limit.
        seconds: the time at which it ends, counted from the beginning of the whole run; None for no such limit.
        from_step, from_seconds: where the leg began.
        recorded: what another run did at each of its steps, to be followed instead.
    """

    steps: int | None
    seconds: float | None = None
    from_step: int = 0
    from_seconds: float = 0.0
    recorded: Record | None = None

    def progress(self, step: int, seconds: float) -> float:
        """The share that is used when `step` steps and `seconds` seconds are; 1 or more: it is over."""
        if self.recorded is not None:
            return self.recorded.progress[step] if step < len(self.recorded.progress) else 1.0
        shares = []
        if self.leg_steps is not None:
            shares.append((step - self.from_step) / self.leg_steps)
        if self.seconds is not None:
            shares.append((seconds - self.from_seconds) / max(1e-9, self.seconds - self.from_seconds))
        return max(shares)

    def used_up(self, step: int, seconds: float) -> bool:
        """Whether a leg that begins here would have nothing to use."""
        limits = [(self.steps, step), (self.seconds, seconds)]
        return any(limit is not None and used >= limit for limit, used in limits)

    @property
    def leg_steps(self) -> int | None:
        """How many steps the leg has; None where the clock alone ends it."""
        return None if self.steps is None else max(1, self.steps - self.from_step)

    @property
    def on_the_clock(self) -> bool:
        """Whether the schedule depends on the time that steps take, so that it must be recorded to be repeated."""
        return self.seconds is not None and self.recorded is None


def steps_for(epochs: float, max_steps: int, samples_per_epoch: float, batch_size: int) -> int | None:
    """The step at which a run by epochs or steps ends, whichever comes first; None if neither limits it."""
    limits = [max_steps] if max_steps else []
    if epochs:
        limits.append(max(1, round(epochs * samples_per_epoch / batch_size)))
    return min(limits) if limits else None
