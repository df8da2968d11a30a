"""Weight averaging: a second set of weights that follows the first."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from microformer.training.averaging import Average


def moved(model, value):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def test_the_average_follows_its_formula():
    model = nn.Linear(2, 1)
    moved(model, 0.0)
    average, expected = Average(model, decay=0.5), 0.0
    for updates, value in enumerate([1.0, 5.0, -2.0, 7.0, 3.0, 1.0]):
        moved(model, value)
        average.update()
        decay = min(0.5, (1 + updates) / (10 + updates))
        expected = decay * expected + (1 - decay) * value

    assert_close(average.averaged["weight"], torch.full((1, 2), expected))


def test_the_average_stands_in_for_the_weights_for_a_while_even_if_something_fails():
    model = nn.Linear(2, 1)
    moved(model, 1.0)
    average = Average(model, decay=0.9)
    moved(model, 3.0)

    with average.in_place():
        assert model.weight.eq(1).all()
    assert model.weight.eq(3).all()
    with pytest.raises(ZeroDivisionError), average.in_place():
        raise ZeroDivisionError
    assert model.weight.eq(3).all()
    assert average.averaged["weight"].eq(1).all()


def test_without_averaging_the_weights_stand_for_the_average_and_nothing_is_kept():
    model = nn.Linear(2, 1)
    average = Average(model, decay=0.0)
    average.update()
    weight = model.weight.detach().clone()

    with average.in_place():
        assert torch.equal(model.weight, weight)
    assert average.state_dict() == {}
    average.load_state_dict({})


def test_a_saved_average_goes_on_to_the_bit():
    model = nn.Linear(2, 1)
    average = Average(model, decay=0.9)
    moved(model, 3.0)
    average.update()
    saved = {name: value.clone() for name, value in average.state_dict().items()}
    again = Average(nn.Linear(2, 1), decay=0.9)
    again.load_state_dict(saved)
    again.weights = average.weights
    for one in (average, again):
        one.update()

    assert again.updates == average.updates == 2
    assert torch.equal(again.averaged["weight"], average.averaged["weight"])
