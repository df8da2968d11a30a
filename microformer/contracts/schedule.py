"""The contracts of a schedule. Knows no particular one."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from microformer.contracts.verdict import Verdict, verdict

_MOMENTS = [moment / 200 for moment in range(201)]


@runtime_checkable
class Falls(Protocol):
    """A schedule (training/schedules.py)."""

    def share(self, progress: float) -> float: ...
    def rate(self, progress: float) -> float: ...


# What makes the schedule, with a share of the run for its warm-up.
Make = Callable[[float], Falls]


def check_schedule(make: Make) -> list[Verdict]:
    """Every contract of a schedule."""
    return [contract(make) for contract in SCHEDULE_CONTRACTS]


def stays_a_share(make: Make) -> Verdict:
    """At every moment of the run, and with any warm-up, it gives a share from 0 to 1."""
    for warmup in (0.0, 0.1, 1.0):
        schedule = make(warmup)
        for moment in _MOMENTS:
            for asked in (schedule.share, schedule.rate):
                share = asked(moment)
                if not isinstance(share, int | float) or not 0 <= share <= 1:
                    return verdict(stays_a_share, f"{share!r} at {moment:.1%} of the run")
    return verdict(stays_a_share, "")


def forgets(make: Make) -> Verdict:
    """A moment's share does not depend on what was asked before: a resumed run begins in the middle."""
    first = make(0.1)
    shares = [first.share(moment) for moment in _MOMENTS]
    for moment, share in reversed(list(zip(_MOMENTS, shares, strict=True))):
        if (again := make(0.1).share(moment)) != share:
            return verdict(forgets, f"{share:g} and {again:g} at {moment:.1%} of the run")
    return verdict(forgets, "")


SCHEDULE_CONTRACTS: tuple[Callable[[Make], Verdict], ...] = (stays_a_share, forgets)
