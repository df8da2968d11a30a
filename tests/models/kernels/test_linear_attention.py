"""Linear attention: blocks, pairs and one by one are the same sums, and the memory does not grow."""

import pytest
import torch
from torch.testing import assert_close

from microformer.models.kernels import build
from microformer.models.positions.base import Order
from microformer.models.spec import Gelu, LayerSpec, LinearAttention, ModelSpec, NoPositions, RMSNorm
from microformer.models.state import State
from microformer.models.taps import Record, Scope

NO_TAP = Scope(None)
MODEL = ModelSpec(11, 8, 2, 8, 512, (LayerSpec(LinearAttention(), Gelu()),), NoPositions(), RMSNorm())


def qkv(length):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 2, length, 4, generator=generator, requires_grad=True) for _ in range(3)]


def order(length, seen=0):
    return Order(State((None,), length=seen).positions(length, torch.device("cpu")), None, None)


def formula(q, k, v):
    """The definition, a query and a key at a time, in double."""
    phi_q, phi_k = (torch.where(x > 0, x + 1, x.exp()).double() for x in (q, k))
    z = []
    for i in range(q.shape[2]):
        shares = torch.stack([(phi_q[:, :, i] * phi_k[:, :, j]).sum(-1) for j in range(i + 1)], dim=-1)
        z.append((shares / shares.sum(-1, keepdim=True)).unsqueeze(-2) @ v[:, :, : i + 1].double())
    return torch.cat(z, dim=2).float()


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 130])
def test_every_road_is_the_formula_and_gradients_agree(length):
    gradients = []
    for tap in (NO_TAP, Scope(Record())):
        parts = qkv(length)
        z, _ = build(LinearAttention(), MODEL)(*parts, order(length), None, tap)
        assert_close(z, formula(*parts), rtol=1e-4, atol=1e-5)
        gradients.append(torch.autograd.grad(z, parts, torch.linspace(-1, 1, z.numel()).view_as(z)))

    for one, other in zip(*gradients, strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("pieces", [1, 7, 70])
def test_what_is_remembered_is_one_sum_a_head_however_long_the_text(pieces):
    q, k, v = (one.detach() for one in qkv(200))
    kernel, memory, z = build(LinearAttention(), MODEL), None, []
    for start in range(0, 200, pieces):
        here = slice(start, start + pieces)
        now = order(len(range(200)[here]), start)
        part, memory = kernel(*(one[:, :, here] for one in (q, k, v)), now, memory, NO_TAP)
        z.append(part)
        assert memory.sums.shape == (2, 2, 4, 5)

    assert_close(torch.cat(z, dim=2), formula(q, k, v), rtol=1e-4, atol=1e-5)


def test_the_pattern_that_is_shown_sums_to_one_over_what_was_seen():
    seen = Record()
    build(LinearAttention(), MODEL)(*qkv(9), order(9), None, Scope(seen))
    pattern = seen.activations["hook_pattern"]

    assert_close(pattern.sum(-1), torch.ones(2, 2, 9))
    assert (pattern.triu(1) == 0).all()


def test_queries_and_keys_far_below_zero_still_take_from_someone():
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = (one.detach().to(dtype) for one in qkv(70))
        for tap in (NO_TAP, Scope(Record())):
            z, _ = build(LinearAttention(), MODEL)(q - 80, k - 80, v, order(70), None, tap)
            assert torch.isfinite(z).all()


def test_token_by_token_a_long_text_in_bfloat16_is_what_it_is_as_a_whole():
    q, k, v = (one.detach().bfloat16() for one in qkv(1500))
    kernel, memory = build(LinearAttention(), MODEL), None
    whole = kernel(q, k, v, order(1500), None, NO_TAP)[0]
    for i in range(1500):
        z, memory = kernel(*(one[:, :, i : i + 1] for one in (q, k, v)), order(1, i), memory, NO_TAP)

    assert_close(z.float(), whole[:, :, -1:].float(), rtol=0.02, atol=0.02)
    assert memory.sums.dtype == torch.float32


def test_a_text_far_longer_than_bfloat16_counts_keeps_its_sums():
    q, k, v = (one.detach().bfloat16() for one in qkv(3000))
    z, memory = build(LinearAttention(), MODEL)(q, k, v, order(3000), None, NO_TAP)

    exact = build(LinearAttention(), MODEL)(q.float(), k.float(), v.float(), order(3000), None, NO_TAP)
    assert z.dtype == torch.bfloat16
    assert_close(z.float(), exact[0], rtol=0, atol=0.05)
    assert_close(memory.sums, exact[1].sums, rtol=0.02, atol=1.0)
