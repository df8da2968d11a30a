"""The norms: each the formula it claims, and the gradient written by hand the one that autograd finds."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from microformer.models import norms, spec
from microformer.models.norms import LayerNorm, RMSNorm
from microformer.settings import Settings, model_spec


def plain_rms(x, gain, eps):
    return gain * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def case(shape, dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    x = (scale * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()
    norm = RMSNorm(shape[-1], 1e-6)
    with torch.no_grad():
        norm.gain.normal_(generator=generator)
    return norm.to(dtype), x, torch.randn(shape, generator=generator).to(dtype)


@pytest.mark.parametrize("shape", [(5,), (4, 8), (2, 3, 16), (2, 3, 2, 6), (1, 2)], ids=str)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_hand_written_gradient_is_that_of_the_plain_formula(shape, scale):
    norm, x, dy = case(shape, scale=scale)
    y = norm(x)
    found = torch.autograd.grad(y, (x, norm.gain), dy)
    formula = plain_rms(x.double(), norm.gain.double(), norm.eps)
    expected = torch.autograd.grad(formula, (x, norm.gain), dy.double())

    assert_close(y, formula.float(), rtol=1e-5, atol=1e-6)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4 * max(float(other.abs().max()), 1e-6))


def test_the_gradient_holds_to_the_last_digit_of_float64():
    norm, x, _ = case((3, 7), torch.float64)

    assert torch.autograd.gradcheck(norm, (x,))
    gain = norm.gain.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda gain: torch.func.functional_call(norm, {"gain": gain}, (x.detach().requires_grad_(),)), (gain,)
    )


def test_with_and_without_a_gradient_the_values_agree():
    norm, x, _ = case((2, 5, 16))

    with torch.no_grad():
        assert_close(norm(x), norm(x.requires_grad_()))
    assert_close(norm(x), norm(x.detach()))


def test_in_bfloat16_the_mean_square_is_taken_in_float32():
    norm, x, _ = case((4, 4096))
    coarse = norm(x.detach().bfloat16().requires_grad_())

    assert coarse.dtype == torch.bfloat16
    assert_close(coarse.float(), norm(x), rtol=0.02, atol=0.02)


def test_a_row_of_zeros_stays_zero_and_has_a_finite_gradient():
    norm = RMSNorm(4, 1e-6)
    x = torch.zeros(2, 4, requires_grad=True)
    norm(x).sum().backward()

    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert norm(x).eq(0).all()


def test_a_second_derivative_is_refused_rather_than_wrong():
    norm, x, dy = case((2, 4))
    (dx,) = torch.autograd.grad(norm(x), x, dy, create_graph=True)

    with pytest.raises(RuntimeError, match="does not require grad"):
        dx.sum().backward()


@pytest.mark.parametrize("bias", [False, True])
def test_layernorm_is_its_formula(bias):
    norm, x = LayerNorm(6, 1e-5, bias=bias), torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(2))
    shift = 0 if norm.bias is None else norm.bias
    centred = x - x.mean(-1, keepdim=True)

    assert_close(norm(x), norm.gain * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() + shift)
    assert len(list(norm.parameters())) == 1 + bias


def test_a_spec_builds_the_norm_it_names_with_its_epsilon():
    model = model_spec(Settings(), vocab_size=5)
    layernorm, rms = (norms.build(replace(model, norm=kind(eps=0.25))) for kind in (spec.LayerNorm, spec.RMSNorm))

    assert (type(layernorm), layernorm.eps) == (LayerNorm, 0.25)
    assert (type(rms), rms.eps) == (RMSNorm, 0.25)
