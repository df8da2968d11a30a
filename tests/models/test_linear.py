"""Linear: y = x Wᵀ + b by every road, and its gradient."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from microformer.models import linear
from microformer.models.linear import Linear


def built(bias: bool, inputs=96, outputs=(40, 24)) -> Linear:
    made = Linear(inputs, *outputs, bias=bias, std=0.2)
    with torch.no_grad():
        made.start(torch.Generator().manual_seed(1))
    if made.bias is not None:
        torch.nn.init.normal_(made.bias, generator=torch.Generator().manual_seed(2))
    return made


def numbers(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(400, 96), (8, 50, 96), (2, 3, 96)], ids=str)
@pytest.mark.parametrize("x_learns", [False, True])
@pytest.mark.parametrize("onednn", [False, torch.backends.mkldnn.is_available()])
def test_the_product_and_its_gradients_are_the_plain_ones(bias, shape, x_learns, onednn, monkeypatch):
    monkeypatch.setattr(linear, "_ONEDNN", onednn)
    layer, x = built(bias), numbers(*shape).requires_grad_(x_learns)
    dy = numbers(*shape[:-1], 64, seed=4)
    learned = [*([x] if x_learns else []), *layer.parameters()]

    found = layer(x)
    gradients = torch.autograd.grad(found, learned, dy)
    expected = F.linear(x, layer.weight, layer.bias)

    assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients, torch.autograd.grad(expected, learned, dy), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_product_of_columns_that_lie_apart_is_the_same():
    layer, x = built(True), numbers(96, 400).T

    assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_answer_has_the_precision_of_what_was_asked_and_weights_keep_theirs(dtype):
    layer, x = built(True), numbers(400, 96).to(dtype)
    layer(x).sum().backward()

    assert layer(x).dtype == dtype
    assert layer.weight.dtype == layer.weight.grad.dtype == layer.bias.grad.dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 96), (1, 1, 96), (96,)], ids=str)
def test_the_loop_that_compiled_code_makes_of_one_vector_is_the_product(shape):
    layer, x = built(False), numbers(*shape)

    assert_close(linear._of_one_vector(x, layer.weight), F.linear(x, layer.weight))
