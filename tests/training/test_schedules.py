"""Schedules: the shape of the rate over a run, whatever the run is measured in."""

import itertools

import pytest

from microformer.training import schedules

KINDS = ["linear", "cosine", "wsd", "constant"]
MOMENTS = [i / 1000 for i in range(1001)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_rises_in_a_line_to_its_highest(kind):
    schedule = schedules.build(kind, warmup=0.1, decay=0.4)

    assert [schedule.rate(progress) for progress in (0.0, 0.025, 0.05)] == pytest.approx([0, 0.25, 0.5])
    assert schedule.rate(0.1) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_the_rate_never_jumps_never_rises_again_and_never_leaves_0_to_1(kind, warmup):
    rates = [schedules.build(kind, warmup, decay=0.3).rate(progress) for progress in MOMENTS]
    after = [rate for progress, rate in zip(MOMENTS, rates, strict=True) if progress >= warmup]

    assert all(0 <= rate <= 1 for rate in rates)
    assert after == sorted(after, reverse=True)
    assert all(abs(later - earlier) < 0.02 for earlier, later in itertools.pairwise(rates))


@pytest.mark.parametrize(
    ("kind", "middle", "end"), [("linear", 0.5, 0), ("cosine", 0.5, 0), ("wsd", 1, 0), ("constant", 1, 1)]
)
def test_each_kind_has_its_way_down(kind, middle, end):
    schedule = schedules.build(kind, warmup=0.0, decay=0.4)

    assert schedule.rate(0.0) == pytest.approx(1)
    assert schedule.rate(0.5) == pytest.approx(middle)
    assert schedule.rate(1.0) == pytest.approx(end)


def test_a_quarter_down_the_cosine_is_above_the_line():
    assert schedules.build("cosine", 0.0, 0.4).rate(0.25) == pytest.approx((1 + 2**-0.5) / 2)
    assert schedules.build("linear", 0.0, 0.4).rate(0.25) == pytest.approx(0.75)


def test_wsd_falls_in_its_last_share_alone():
    schedule = schedules.build("wsd", warmup=0.1, decay=0.4)

    assert [schedule.rate(progress) for progress in (0.6, 0.8, 0.9)] == pytest.approx([1, 0.5, 0.25])
    assert schedules.build("wsd", warmup=0.1, decay=0.0).rate(1.0) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_beyond_the_end_the_rate_is_that_of_the_end(kind):
    schedule = schedules.build(kind, warmup=0.1, decay=0.4)

    assert schedule.rate(1.7) == schedule.rate(1.0)
    assert schedule.rate(-0.1) == schedule.rate(0.0)


def test_an_unknown_kind_is_a_defect():
    with pytest.raises(ValueError, match="step-wise"):
        schedules.build("step-wise", 0.0, 0.4)
