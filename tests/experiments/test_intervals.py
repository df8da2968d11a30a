"""Intervals: the textbook's numbers, and how often they are right."""

import random

import pytest

from microformer.experiments.intervals import compare, fisher, student


@pytest.mark.parametrize(
    ("probability", "degrees", "quantile"),
    [
        (0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.975, 3, 3.1824), (0.975, 4, 2.7764), (0.975, 9, 2.2622),
        (0.975, 30, 2.0423), (0.995, 4, 4.6041), (0.975, 3.2, 3.0728),
    ],
)  # fmt: skip
def test_students_quantiles_are_the_tables(probability, degrees, quantile):
    assert student(probability, degrees) == pytest.approx(quantile, abs=1e-4)


@pytest.mark.parametrize(
    ("above", "below", "quantile"), [(2, 2, 19.0), (2, 4, 6.9443), (4, 8, 3.8379), (1, 10, 4.9646)]
)
def test_fishers_quantiles_are_the_tables(above, below, quantile):
    assert fisher(0.95, above, below) == pytest.approx(quantile, abs=1e-4)


def test_one_arm_has_the_paired_t_interval():
    found = compare({"base": [1.0, 2.0, 3.0], "arm": [0.9, 1.7, 2.6]})["arm"]

    # Differences −0.1, −0.3, −0.4: mean −0.2667, standard deviation 0.15275, t of 2 degrees 4.3027.
    assert found.difference == pytest.approx(-0.26667, abs=1e-5)
    assert found.within == pytest.approx(4.3027 * 0.152753 / 3**0.5, abs=1e-4)
    assert found.verdict == "can't tell"
    # The losses 0.9, 1.7, 2.6 themselves: standard deviation 0.85049.
    assert found.spread == pytest.approx(4.3027 * 0.850490 / 3**0.5, abs=1e-4)


def test_two_arms_share_their_noise_and_each_has_the_wider_interval_that_both_together_need():
    found = compare({"base": [1.0, 2.0, 3.0], "one": [0.9, 1.7, 2.6], "two": [1.1, 1.9, 3.0]})

    # Variances of the differences 0.0233333 and 0.01; (S − 1)(2 A)² / (A − 1 + (A + 1)²) = 2 · 16 / 10 degrees.
    expected = student(0.9875, 3.2) * ((0.0233333 + 0.01) / 2 / 3) ** 0.5
    assert found["one"].within == found["two"].within == pytest.approx(expected, abs=1e-5)
    assert found["base"].within == 0


def test_what_seeds_share_does_not_widen_an_interval():
    found = compare({"base": [1.0, 5.0, 9.0], "arm": [0.5, 4.5001, 8.5]})["arm"]

    assert found.within is not None
    assert found.within < 0.001
    assert found.verdict == found.said == "better"


def test_one_seed_can_tell_nothing_and_what_would_is_said():
    found = compare({"base": [1.0], "arm": [0.1]})["arm"]

    assert (found.within, found.spread) == (None, None)
    assert found.verdict == "can't tell"
    assert found.said == "can't tell from one seed: 2 more give an interval"


def test_how_many_more_seeds_would_tell_is_what_the_same_difference_and_noise_would_need():
    losses = {"base": [1.0, 2.0, 3.0], "arm": [0.9, 1.7, 2.6]}
    found = compare(losses)["arm"]
    assert found.said == "can't tell yet: about 1 more seed would"

    # Of as many seeds with that mean and standard deviation the interval leaves out 0, and of one fewer it doesn't.
    def interval(seeds):
        return student(0.975, seeds - 1) * 0.152753 / seeds**0.5

    assert interval(4) < 0.26667 < interval(3)


def test_where_many_more_seeds_would_be_needed_the_largest_difference_that_there_can_be_is_said():
    found = compare({"base": [1.0, 2.0, 3.0], "arm": [1.1, 1.9, 3.0001]})["arm"]

    assert found.more is None
    bound = abs(found.difference) + found.within
    assert found.said == "can't tell: any difference is below 0.25"
    assert bound <= 0.25 < bound * 1.04


def test_arms_that_are_the_same_to_the_bit_are_called_so_and_lend_the_others_no_calm():
    losses = {"base": [1.0, 2.0, 3.0], "same": [1.0, 2.0, 3.0], "other": [0.9, 2.2, 2.9]}
    found = compare(losses)
    alone = compare({"base": losses["base"], "other": losses["other"]})

    assert found["same"].said == "the same to the bit"
    assert (found["same"].difference, found["same"].within) == (0, 0)
    assert found["other"] == alone["other"]


def families(number, arms, seeds, noise=None, shift=0.0):
    """Losses of a base and so many arms, the last one shifted; a noise of its own for each."""
    draw = random.Random(1)
    noise = noise or [1.0] * (arms + 1)
    for _ in range(number):
        of_seed = [draw.gauss(0, 3) for _ in range(seeds)]
        rows = [[seed + draw.gauss(0, spread) for seed in of_seed] for spread in noise]
        rows[-1] = [loss + shift for loss in rows[-1]]
        yield {str(arm): row for arm, row in enumerate(rows)}


def told(losses):
    return any(found.verdict in ("better", "worse") for found in compare(losses).values())


@pytest.mark.parametrize(("arms", "low", "high"), [(1, 0.035, 0.065), (3, 0.01, 0.05)])
def test_of_families_in_which_nothing_differs_five_in_a_hundred_at_most_are_called_different(arms, low, high):
    wrong = sum(told(losses) for losses in families(1500, arms, 3))

    assert low < wrong / 1500 < high


@pytest.mark.parametrize("noisy", [1, 2])
def test_a_noisy_arm_is_not_judged_by_the_calm_of_the_others(noisy):
    noise = [1.0, 1.0, 1.0, 1.0]
    noise[noisy] = 10.0
    wrong = sum(told(losses) for losses in families(1500, 3, 3, noise))

    assert wrong / 1500 < 0.05


def test_the_others_noise_helps_to_find_a_difference():
    found = sum(compare(losses)["3"].verdict == "worse" for losses in families(500, 3, 3, shift=4.0))
    # What each arm's own three differences would find: a third.
    alone = student(1 - 0.05 / 6, 2)

    assert found / 500 > 0.6
    own = 0
    for losses in families(500, 3, 3, shift=4.0):
        d = [y - x for x, y in zip(losses["0"], losses["3"], strict=True)]
        middle = sum(d) / 3
        spread = (sum((one - middle) ** 2 for one in d) / 2) ** 0.5
        own += middle > alone * spread / 3**0.5
    assert own / 500 < 0.45


def test_arms_with_different_numbers_of_seeds_are_refused():
    with pytest.raises(ValueError, match="a loss for each seed"):
        compare({"base": [1.0, 2.0], "arm": [1.0]})
