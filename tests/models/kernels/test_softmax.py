"""Dense attention: the block-wise, the fused and the tapped road, each against three nested loops."""

import math

import pytest
import torch
from torch.testing import assert_close

from microformer.models.kernels import Softmax, softmax
from microformer.models.positions.base import Order
from microformer.models.spec import Gelu, LayerSpec, ModelSpec, NoPositions, RMSNorm
from microformer.models.spec import Softmax as SoftmaxSpec
from microformer.models.state import KVCache, Positions, State
from microformer.models.taps import Record, Scope

NO_TAP = Scope(None)
MODEL = ModelSpec(11, 8, 2, 8, 512, (LayerSpec(SoftmaxSpec(), Gelu()),), NoPositions(), RMSNorm())


def softmax_attention(q, k, v, where, bias, state, tap):
    """The kernel, with a bias that is a tensor of all pairs."""
    return Softmax(MODEL)(q, k, v, Order(where, None, None if bias is None else lambda query, key: bias), state, tap)


def random_qkv(length, d_head=4, rows=2, heads=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(rows, heads, length, d_head, generator=generator) for _ in range(3))


def triangle(length) -> Positions:
    return State.empty(1).positions(length, torch.device("cpu"))


def three_loops(q, k, v, bias=None):
    """The formula, a query, a key and a number at a time."""
    z = torch.zeros_like(q, dtype=torch.float64)
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            for query in range(q.shape[2]):
                scores = [
                    sum(a * b for a, b in zip(q[row, head, query].tolist(), k[row, head, key].tolist(), strict=True))
                    / math.sqrt(q.shape[3])
                    + (0.0 if bias is None else float(bias[head, query, key]))
                    for key in range(query + 1)
                ]
                weights = [math.exp(score - max(scores)) for score in scores]
                for key, weight in enumerate(weights):
                    z[row, head, query] += weight / sum(weights) * v[row, head, key]
    return z.float()


def every_road(q, k, v, bias=None):
    """The answers with a tap, fused, and in blocks."""
    where = triangle(q.shape[2])
    yield softmax_attention(q, k, v, where, bias, None, Scope(Record()))[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax, "_IN_BLOCKS_UP_TO", 0)
        yield softmax_attention(q, k, v, where, bias, None, NO_TAP)[0]
    yield softmax_attention(q, k, v, where, bias, None, NO_TAP)[0]


@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize("biased", [False, True])
def test_every_road_is_the_formula(length, biased):
    q, k, v = random_qkv(length)
    bias = torch.randn(2, length, length, generator=torch.Generator().manual_seed(2)) if biased else None

    for z in every_road(q, k, v, bias):
        assert_close(z, three_loops(q, k, v, bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [63, 64, 65, 127, 128, 129, 255, 256, 257])
@pytest.mark.parametrize("biased", [False, True])
def test_roads_agree_where_blocks_begin_and_end(length, biased):
    q, k, v = random_qkv(length, rows=1)
    bias = torch.randn(2, length, length, generator=torch.Generator().manual_seed(2)) if biased else None

    tapped, fused, in_blocks = every_road(q, k, v, bias)

    assert_close(fused, tapped, rtol=1e-5, atol=1e-5)
    assert_close(in_blocks, tapped, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [65, 128, 257])
def test_roads_agree_on_gradients_too(length):
    gradients = []
    for tap in (NO_TAP, Scope(Record())):
        q, k, v = (part.requires_grad_() for part in random_qkv(length, rows=1))
        z, _ = softmax_attention(q, k, v, triangle(length), None, None, tap)
        gradients.append(torch.autograd.grad(z, (q, k, v), torch.ones_like(z).cumsum(2) / length))

    for one, other in zip(*gradients, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_short_texts_are_computed_in_blocks_and_long_ones_are_not(monkeypatch):
    blocks, seen = softmax._blocks, []
    monkeypatch.setattr(softmax, "_blocks", lambda length: seen.append(blocks(length)) or blocks(length))

    softmax_attention(*random_qkv(300), triangle(300), None, None, NO_TAP)
    assert seen == []
    softmax_attention(*random_qkv(130), triangle(130), None, None, NO_TAP)
    assert seen == [[(0, 64), (64, 128), (128, 130)]]


@pytest.mark.parametrize("cut", [1, 5, 8])
@pytest.mark.parametrize("gradient", [False, True])
def test_with_a_cache_the_answers_are_those_of_the_whole(cut, gradient):
    q, k, v = random_qkv(9)
    whole, _ = softmax_attention(q, k, v, triangle(9), None, None, NO_TAP)
    remembered = KVCache(k[:, :, :cut], v[:, :, :cut])
    where = Positions(query=torch.arange(cut, 9), key=torch.arange(9))

    later = q[:, :, cut:].clone().requires_grad_(gradient)
    z, state = softmax_attention(later, k[:, :, cut:], v[:, :, cut:], where, None, remembered, NO_TAP)

    assert_close(z, whole[:, :, cut:], rtol=1e-5, atol=1e-5)
    assert torch.equal(state.keys, k)
    assert torch.equal(state.values, v)
    assert remembered.keys.shape[2] == cut


def test_a_key_before_a_rows_start_is_never_seen():
    q, k, v = random_qkv(6)
    keys = torch.arange(6) - torch.tensor([0, 4])[:, None]  # the second row's text begins at slot 4
    where = Positions(query=keys[:, 4:], key=keys)

    z, _ = softmax_attention(
        q[:, :, 4:], k[:, :, 4:], v[:, :, 4:], where, None, KVCache(k[:, :, :4], v[:, :, :4]), NO_TAP
    )

    assert_close(z[0], three_loops(q, k, v)[0, :, 4:], rtol=1e-5, atol=1e-5)
    assert_close(z[1:], three_loops(q[1:, :, 4:], k[1:, :, 4:], v[1:, :, 4:]), rtol=1e-5, atol=1e-5)


def test_scores_too_large_for_an_exponential_give_finite_answers():
    q, k, v = random_qkv(70, rows=1)

    for z in every_road(1e4 * q, k, v):
        assert torch.isfinite(z).all()
