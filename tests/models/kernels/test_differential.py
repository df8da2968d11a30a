"""Differential attention: its formula, head by head, and that rope survives the split of a head."""

import pytest
import torch
from torch.testing import assert_close

from microformer.models.kernels import build
from microformer.models.positions import Rope
from microformer.models.positions.base import Order
from microformer.models.spec import Differential, Gelu, LayerSpec, ModelSpec, NoPositions, RMSNorm
from microformer.models.state import State
from microformer.models.taps import Record, Scope


def kernel():
    model = ModelSpec(11, 16, 2, 8, 64, (LayerSpec(Differential(), Gelu()),), NoPositions(), RMSNorm())
    made = build(Differential(), model)
    with torch.no_grad():
        made.start(torch.Generator().manual_seed(1))
        made.norm.gain.mul_(1.5)
    return made


def qkv(length, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 2, length, 8, generator=generator) for _ in range(3)]


def order(length):
    return Order(State.empty(1).positions(length, torch.device("cpu")), None, None)


def test_z_is_the_formula_for_each_head():
    made, (q, k, v) = kernel(), qkv(5)
    seen = Record()
    z, _ = made(q, k, v, order(5), None, Scope(seen))
    q1, k1, q2, k2 = made.lambdas.detach()
    strength = (q1 @ k1).exp() - (q2 @ k2).exp() + 0.8

    for head in range(2):
        halves = []
        for part in (0, 1):  # every other number belongs to the first pattern, the rest to the second
            scores = q[0, head, :, part::2] @ k[0, head, :, part::2].T / 2.0  # sqrt(d) of half a head of 8
            halves.append(scores.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf")).softmax(-1))
        pattern = halves[0] - strength * halves[1]
        taken = pattern @ v[0, head]
        normed = taken / (taken.square().mean(-1, keepdim=True) + 1e-5).sqrt() * 1.5
        assert_close(seen.activations["hook_pattern"][0, head], pattern, rtol=1e-4, atol=1e-6)
        assert_close(z[0, head], 0.2 * normed, rtol=1e-4, atol=1e-5)


def test_lambda_starts_near_its_first_value_and_the_seed_decides_it():
    one, other = kernel(), kernel()

    assert torch.equal(one.lambdas, other.lambdas)
    q1, k1, q2, k2 = one.lambdas.detach()
    assert float((q1 @ k1).exp() - (q2 @ k2).exp()) == pytest.approx(0, abs=0.3)


def test_under_rope_both_patterns_depend_on_distance_alone():
    rope, made = Rope(64, 8, 10000.0), kernel()
    q, k, v = (one[:, :, :1].expand(-1, -1, 12, -1) for one in qkv(1))
    turned = [rope.turn(torch.arange(12), x.dtype)(x.transpose(1, 2)).transpose(1, 2) for x in (q, k)]
    seen = Record()
    made(*turned, v, order(12), None, Scope(seen))
    scores = seen.activations["hook_attn_scores"]

    assert scores.shape == (1, 4, 12, 12)
    for distance in range(6):
        along = scores.diagonal(-distance, dim1=-2, dim2=-1)
        assert_close(along, along[..., :1].expand_as(along), rtol=1e-4, atol=1e-4)
