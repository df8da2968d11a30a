"""Scaling laws: a law that made the losses is found again, and the intervals hold it."""

import numpy as np
import pytest

from microformer.experiments.laws import fit

SIZES = ((15_000, 1_600_000), (70_000, 900_000), (260_000, 400_000), (900_000, 160_000), (2_200_000, 80_000))
SECONDS = (5, 12, 30, 75)


def loss(parameters, tokens):
    return 1.1 + 12 / parameters**0.3 + 400 / tokens**0.45


def cells(noise, seed=0):
    random = np.random.default_rng(seed)
    points = [(parameters, speed * seconds) for parameters, speed in SIZES for seconds in SECONDS]
    return points, [loss(*point) * float(np.exp(random.normal(0, noise))) for point in points]


def test_a_law_is_found_again_from_losses_that_follow_it():
    law = fit(*cells(noise=0.0), draws=3)

    assert law is not None
    assert law.floor == pytest.approx(1.1, abs=1e-3)
    assert law.exponents == pytest.approx((0.3, 0.45), abs=1e-3)
    assert law.factors == pytest.approx((12, 400), rel=0.02)
    assert law.error < 1e-5
    assert law(10**7, 10**9) == pytest.approx(loss(10**7, 10**9), rel=1e-3)


def test_of_one_quantity_too():
    xs = [2.0**power for power in range(8)]

    law = fit([(x,) for x in xs], [1.5 + 3 / x**0.7 for x in xs], draws=3)

    assert law is not None
    assert (law.floor, law.factors[0], law.exponents[0]) == pytest.approx((1.5, 3, 0.7), abs=1e-3)


def test_intervals_hold_the_law_and_are_wider_with_more_noise_and_farther_off():
    held, widths = [], {}
    for noise in (0.003, 0.012):
        for seed in range(5):
            law = fit(*cells(noise, seed), draws=40)
            assert law is not None
            for seconds in (30, 600):
                point = (260_000, 400_000 * seconds)
                low, high = law.interval(*point)
                held.append(low <= loss(*point) <= high)
                widths.setdefault((noise, seconds), []).append(high - low)

    assert sum(held) >= 0.8 * len(held)
    mean = {case: float(np.mean(found)) for case, found in widths.items()}
    assert mean[0.012, 30] > 2 * mean[0.003, 30]
    assert mean[0.003, 600] > mean[0.003, 30]


def test_one_cell_that_went_wrong_does_not_move_the_law_much():
    points, losses = cells(noise=0.002)
    wrong = [*losses[:7], 1.3 * losses[7], *losses[8:]]

    law, bent = fit(points, losses, draws=3), fit(points, wrong, draws=3)

    assert law is not None
    assert bent is not None
    assert bent(260_000, 10**8) == pytest.approx(law(260_000, 10**8), rel=0.01)


def test_the_same_losses_give_the_same_law():
    first, again = fit(*cells(noise=0.01), draws=20), fit(*cells(noise=0.01), draws=20)

    assert first is not None
    assert again is not None
    assert first.exponent_interval(1) == again.exponent_interval(1)


def test_too_few_losses_or_sizes_give_no_law():
    points, losses = cells(noise=0.0)

    assert fit(points[:5], losses[:5]) is None
    assert fit(points[:8], losses[:8]) is None  # two sizes
    assert fit([(1.0,), (2.0,), (3.0,)], [3.0, 2.0, 1.5]) is None
