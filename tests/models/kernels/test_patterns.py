"""Kinds of attention that differ from the dense one in their pattern: against its definition, found another way."""

import pytest
import torch
from torch.testing import assert_close

from microformer.models.kernels import build
from microformer.models.kernels.entmax import entmax
from microformer.models.positions.base import Order
from microformer.models.spec import (
    Entmax15,
    Gelu,
    LayerSpec,
    ModelSpec,
    NoPositions,
    RMSNorm,
    Sigmoid,
    Softmax,
    Sparsemax,
    TopK,
)
from microformer.models.state import State
from microformer.models.taps import Record, Scope

ALPHA = {1.5: Entmax15(), 2.0: Sparsemax()}


def kernel(kind, **changes):
    sizes = {"vocab_size": 11, "embed_dim": 8, "num_heads": 2, "ff_dim": 8, "max_seq_len": 64, **changes}
    model = ModelSpec(layers=(LayerSpec(kind, Gelu()),), positions=NoPositions(), norm=RMSNorm(), **sizes)
    return build(kind, model)


def random(*shape, seed=1, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_bisection(scores, alpha):
    """The α-entmax of each row: τ narrowed down by halves, in double."""
    x = scores.double() * (alpha - 1)
    low, high = x.amax(-1, keepdim=True) - 1, x.amax(-1, keepdim=True)
    for _ in range(80):
        middle = (low + high) / 2
        over = (x - middle).clamp_min(0).pow(1 / (alpha - 1)).sum(-1, keepdim=True) > 1
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return (x - low).clamp_min(0).pow(1 / (alpha - 1))


# -------------------------------------------------------------------------------------------------------- entmax


@pytest.mark.parametrize("alpha", ALPHA)
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("length", [1, 2, 7, 300])
def test_entmax_is_the_distribution_that_bisection_finds(alpha, scale, length):
    scores = random(40, length, scale=scale)

    p = entmax(scores, alpha)

    assert_close(p.double(), by_bisection(scores, alpha), rtol=1e-4, atol=2e-6)
    assert_close(p.sum(-1), torch.ones(40), rtol=0, atol=2e-6)
    assert (p >= 0).all()


@pytest.mark.parametrize("alpha", ALPHA)
def test_entmax_of_equal_scores_is_uniform_however_many_there_are(alpha):
    for length in (1, 2, 3, 100, 4096):
        assert_close(
            entmax(torch.full((2, length), 3.0), alpha), torch.full((2, length), 1 / length), rtol=1e-3, atol=0
        )


@pytest.mark.parametrize("alpha", ALPHA)
def test_entmax_of_scores_that_drop_out_one_by_one(alpha):
    """Scores in a geometric row are the hardest: each round of Newton's method may take away but one."""
    scores = (1 - 0.5 ** torch.arange(40.0)).flip(0)[None] / (alpha - 1)

    assert_close(entmax(scores, alpha).double(), by_bisection(scores, alpha), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("alpha", ALPHA)
def test_far_scores_get_exactly_nothing_and_what_may_not_be_seen_too(alpha):
    scores = torch.tensor([[5.0, 5.1, -3.0, float("-inf")], [float("-inf"), 2.0, float("-inf"), float("-inf")]])

    p = entmax(scores, alpha)

    assert (p[0, 2:] == 0).all()
    assert torch.equal(p[1], torch.tensor([0.0, 1.0, 0.0, 0.0]))
    assert p[0, 1] > p[0, 0] > 0


@pytest.mark.parametrize("alpha", ALPHA)
def test_the_gradient_of_entmax_is_what_differences_say(alpha):
    scores = random(3, 4, 9).double().requires_grad_()

    assert torch.autograd.gradcheck(lambda s: entmax(s, alpha), (scores,), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("alpha", ALPHA)
def test_the_gradient_of_entmax_past_a_mask_is_finite_and_zero_outside_the_support(alpha):
    scores = random(2, 6, scale=2.0)
    scores[:, 4:] = float("-inf")
    scores.requires_grad_()
    p = entmax(scores, alpha)
    (gradient,) = torch.autograd.grad(p, scores, random(2, 6, seed=2))

    assert torch.isfinite(gradient).all()
    assert (gradient[p == 0] == 0).all()
    assert_close(gradient.sum(-1), torch.zeros(2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("alpha", ALPHA)
def test_many_rows_are_solved_as_few_are(alpha):
    scores = random(5000, 12)

    assert torch.equal(entmax(scores, alpha)[4000:4010], entmax(scores[4000:4010], alpha))
    assert entmax(scores[:0], alpha).shape == (0, 12)


# --------------------------------------------------------------------------------------- top-k, sigmoid and the rest


def patterns(kind, length=9, **changes):
    """What the kernel looks at: [row head query key]."""
    q, k, v = (random(2, 2, length, 4, seed=seed) for seed in (1, 2, 3))
    seen = Record()
    order = Order(State.empty(1).positions(length, torch.device("cpu")), None, None)
    kernel(kind, **changes)(q, k, v, order, None, Scope(seen))
    return seen.activations["hook_pattern"], seen.activations["hook_attn_scores"]


@pytest.mark.parametrize("k", [1, 3, 9, 50])
def test_topk_keeps_the_k_highest_as_softmax_would_and_nothing_else(k):
    pattern, scores = patterns(TopK(k))

    for query in range(9):
        kept = min(k, query + 1)
        assert ((pattern[..., query, :] > 0).sum(-1) == kept).all()
        highest = scores[..., query, :].topk(kept).values
        assert_close(pattern[..., query, :].topk(kept).values, highest.softmax(-1))
    if k >= 9:
        assert_close(pattern, patterns(Softmax())[0])


def test_topk_of_equal_scores_keeps_k_of_them():
    pattern = kernel(TopK(3)).pattern(torch.zeros(1, 1, 2, 8))

    assert ((pattern > 0).sum(-1) == 3).all()
    assert_close(pattern.sum(-1), torch.ones(1, 1, 2))


def test_under_sigmoid_a_share_does_not_depend_on_the_other_keys_scores():
    scores = random(1, 1, 1, 6)
    other = scores.clone()
    other[..., 1:] += 7

    one, another = (kernel(Sigmoid()).pattern(s) for s in (scores, other))

    assert torch.equal(one[..., 0], another[..., 0])
    assert_close(one, torch.sigmoid(scores) / (6 - 5 * torch.sigmoid(scores)))  # sigmoid(s - ln 6), written out


def test_a_cap_squeezes_scores_and_attention_dropout_drops_in_training_alone():
    _, scores = patterns(Softmax(), score_cap=0.5)
    assert scores[scores > float("-inf")].abs().max() < 0.5

    dropping = kernel(Softmax(), attention_dropout=0.5)
    q, k, v = (random(2, 2, 30, 4, seed=seed) for seed in (1, 2, 3))
    order = Order(State.empty(1).positions(30, torch.device("cpu")), None, None)
    z = {training: dropping.train(training)(q, k, v, order, None, Scope(None))[0] for training in (True, False)}
    assert_close(z[False], kernel(Softmax())(q, k, v, order, None, Scope(None))[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(z[True], z[False])


@pytest.mark.parametrize("kind", [Softmax(), Entmax15(), TopK(3), Sigmoid()], ids=str)
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_queries_that_share_keys_are_as_if_each_had_its_own(kind, kv_heads):
    q = random(2, 4, 9, 2)
    k, v = (random(2, kv_heads, 9, 2, seed=seed) for seed in (2, 3))
    order = Order(State.empty(1).positions(9, torch.device("cpu")), None, None)

    z, state = kernel(kind, num_heads=4, num_kv_heads=kv_heads)(q, k, v, order, None, Scope(None))

    own = (one.repeat_interleave(4 // kv_heads, dim=1) for one in (k, v))
    assert_close(z, kernel(kind, num_heads=4)(q, *own, order, None, Scope(None))[0])
    assert state.keys.shape == (2, kv_heads, 9, 2)
