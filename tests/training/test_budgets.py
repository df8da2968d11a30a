"""Budgets: how much of a run is used, whichever limit comes first."""

import pytest

from microformer.training.budgets import Budget, Record, steps_for


def test_progress_is_the_share_of_steps_or_of_time_whichever_is_larger():
    both = Budget(steps=100, seconds=60.0)

    assert Budget(steps=100).progress(25, 1e9) == 0.25
    assert Budget(steps=None, seconds=60.0).progress(10**9, 15.0) == 0.25
    assert both.progress(25, 30.0) == 0.5
    assert both.progress(75, 30.0) == 0.75
    assert both.progress(100, 0.0) == both.progress(0, 60.0) == 1


def test_a_leg_counts_from_where_it_began():
    leg = Budget(steps=300, seconds=90.0, from_step=100, from_seconds=30.0)

    assert leg.progress(100, 30.0) == 0
    assert leg.progress(200, 30.0) == 0.5
    assert leg.progress(100, 75.0) == 0.75


def test_a_leg_with_nothing_to_use_is_used_up():
    assert Budget(steps=100, from_step=100).used_up(100, 5.0)
    assert Budget(steps=None, seconds=5.0).used_up(1, 5.0)
    assert not Budget(steps=101, seconds=6.0, from_step=100, from_seconds=5.0).used_up(100, 5.0)
    assert Budget(steps=100, from_step=100).progress(100, 0.0) == 0


def test_a_recorded_schedule_is_followed_whatever_the_clock_says():
    replay = Budget(steps=None, seconds=60.0, recorded=Record([0.0, 0.2, 0.7]))

    assert [replay.progress(step, 1e6) for step in range(4)] == [0.0, 0.2, 0.7, 1.0]
    assert not replay.on_the_clock


def test_only_a_limit_in_time_is_on_the_clock():
    assert Budget(steps=None, seconds=1.0).on_the_clock
    assert not Budget(steps=5).on_the_clock


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps"),
    [(2.0, 0, 20), (2.0, 7, 7), (2.0, 70, 20), (0.0, 7, 7), (0.0, 0, None), (0.01, 0, 1), (1.26, 0, 13)],
)
def test_epochs_are_counted_in_steps(epochs, max_steps, steps):
    assert steps_for(epochs, max_steps, samples_per_epoch=80.0, batch_size=8) == steps
