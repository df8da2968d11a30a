"""Intervals: the textbook's numbers, and how often they are right."""

import random

import pytest

from microformer.experiments.intervals import compare, student


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)]
)
def test_students_quantiles_are_the_tables(degrees, quantile):
    assert student(0.975, degrees) == pytest.approx(quantile, abs=1e-4)


def test_two_arms_give_the_paired_t_interval():
    found = compare({"base": [1.0, 2.0, 3.0], "arm": [0.9, 1.7, 2.6]})["arm"]

    # Differences −0.1, −0.3, −0.4: mean −0.2667, standard deviation 0.15275, t of 2 degrees 4.3027.
    assert found.difference == pytest.approx(-0.26667, abs=1e-5)
    assert found.within == pytest.approx(4.3027 * 0.152753 / 3**0.5, abs=1e-4)
    assert found.verdict == "can't tell"


def test_what_seeds_share_does_not_widen_an_interval():
    found = compare({"base": [1.0, 5.0, 9.0], "arm": [0.5, 4.5001, 8.5]})["arm"]

    assert found.within is not None
    assert found.within < 0.001
    assert found.verdict == "better"


def test_one_seed_can_tell_nothing():
    found = compare({"base": [1.0], "arm": [0.1]})["arm"]

    assert found.within is None
    assert found.verdict == "can't tell"


def test_arms_that_differ_in_nothing_are_called_different_one_time_in_twenty():
    draw = random.Random(1)
    wrong = 0
    for _ in range(2000):
        seeds = [draw.gauss(1.5, 0.05) for _ in range(3)]
        arms = {name: [seed + draw.gauss(0, 0.01) for seed in seeds] for name in ("base", "arm")}
        wrong += compare(arms)["arm"].verdict != "can't tell"

    assert 0.03 < wrong / 2000 < 0.07


def test_arms_with_different_numbers_of_seeds_are_refused():
    with pytest.raises(ValueError, match="a loss for each seed"):
        compare({"base": [1.0, 2.0], "arm": [1.0]})
