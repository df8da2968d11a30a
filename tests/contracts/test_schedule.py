"""Schedules keep their contracts, and each contract can fail."""

from functools import partial

import pytest

from microformer import contracts
from microformer.training import schedules
from microformer.training.schedules import Schedule


@pytest.mark.parametrize("kind", ["cosine", "linear", "wsd", "constant"])
@pytest.mark.parametrize("decay", [0.0, 0.4, 1.0])
def test_the_built_in_schedules_keep_every_contract(kind, decay):
    verdicts = contracts.check_schedule(partial(schedules.build, kind, decay=decay))

    assert [verdict for verdict in verdicts if not verdict.kept] == []


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), "high", None])
def test_what_is_no_share_is_found(share):
    class Odd(Schedule):
        def share(self, progress):
            return share if progress > 0.5 else 1.0

    first, second = contracts.check_schedule(Odd)

    assert not first.kept
    assert "at 50.5% of the run" in first.detail
    assert second.kept == (share == share)  # not a number is like nothing, not even itself


def test_one_that_counts_how_often_it_was_asked_is_found():
    class Counter(Schedule):
        asked = 0

        def share(self, progress):
            type(self).asked += 1
            return 1 / self.asked

    assert [verdict.kept for verdict in contracts.check_schedule(Counter)] == [True, False]
