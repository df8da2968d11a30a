"""Window, strided and fixed attention: in parts they are the masked dense one, and each sees what it says it sees."""

import pytest
import torch
from torch.testing import assert_close

from microformer.models.kernels import build, near
from microformer.models.positions import T5, Alibi
from microformer.models.positions.base import Order
from microformer.models.spec import Fixed, Gelu, LayerSpec, ModelSpec, NoPositions, RMSNorm, Strided, Window
from microformer.models.state import State
from microformer.models.taps import Record, Scope

NO_TAP = Scope(None)
KINDS = [Window(1), Window(4), Window(4, sinks=1), Window(5, sinks=5), Strided(2), Strided(5), Fixed(4, 1), Fixed(5, 5)]


def kernel(kind, **changes):
    sizes = {"vocab_size": 11, "embed_dim": 8, "num_heads": 2, "ff_dim": 8, "max_seq_len": 512, **changes}
    return build(kind, ModelSpec(layers=(LayerSpec(kind, Gelu()),), positions=NoPositions(), norm=RMSNorm(), **sizes))


def qkv(length, heads=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, heads, length, 4, generator=generator, requires_grad=True) for _ in range(3)]


def order(length, bias=None):
    return Order(State.empty(1).positions(length, torch.device("cpu")), None, bias)


def both_roads(kind, length, bias=None, **changes):
    """z and the gradients in parts, and by the formula over all pairs."""
    for tap in (NO_TAP, Scope(Record())):
        parts = qkv(length)
        z, _ = kernel(kind, **changes)(*parts, order(length, bias), None, tap)
        yield z, torch.autograd.grad(z, parts, torch.linspace(-1, 1, z.numel()).view_as(z))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("length", [2, 6, 8, 9, 10, 31])
@pytest.mark.parametrize("biased", [None, "alibi", "t5"])
def test_in_parts_it_is_the_masked_formula_and_so_are_its_gradients(kind, length, biased):
    bias = {None: None, "alibi": Alibi(2).bias, "t5": T5(2, 8, 20).bias}[biased]
    (parts, gradients), (whole, expected) = both_roads(kind, length, bias)

    assert_close(parts, whole, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients, expected, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Window(4, sinks=1), Strided(5), Fixed(4, 1)], ids=str)
def test_a_cap_on_scores_holds_in_parts_too_and_dropout_drops(kind):
    (parts, gradients), (whole, expected) = both_roads(kind, 23, Alibi(2).bias, score_cap=0.5)
    assert_close(parts, whole, rtol=1e-5, atol=1e-5)
    assert_close(gradients[0], expected[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(parts, next(both_roads(kind, 23, Alibi(2).bias))[0], atol=1e-3)

    dropping = kernel(kind, attention_dropout=0.5)
    z = [dropping.train(training)(*qkv(23), order(23), None, NO_TAP)[0] for training in (True, False)]
    assert not torch.allclose(*z)
    assert_close(z[1], next(both_roads(kind, 23))[0])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_few_blocks_at_a_time_are_all_of_them(kind, monkeypatch):
    whole = [z for z, _ in both_roads(kind, 40)]
    monkeypatch.setattr(near, "_SCORES", 1)
    singly = [z for z, _ in both_roads(kind, 40)]

    assert_close(singly[0], whole[0], rtol=1e-6, atol=1e-6)
    assert torch.equal(singly[1], whole[1])


SEEN = {
    Window(4): lambda q, k: q - k < 4,
    Window(4, sinks=2): lambda q, k: q - k < 4 or k < 2,
    Strided(3): lambda q, k: q - k < 3 or (q - k) % 3 == 0,
    Fixed(4, 1): lambda q, k: q // 4 == k // 4 or k % 4 == 3,
    Fixed(5, 2): lambda q, k: q // 5 == k // 5 or k % 5 >= 3,
}


@pytest.mark.parametrize("kind", SEEN, ids=str)
def test_a_query_looks_where_the_definition_says_and_nowhere_else(kind):
    seen = Record()
    kernel(kind)(*qkv(14), order(14), None, Scope(seen))

    looked = seen.activations["hook_pattern"][0, 0] > 0
    for q in range(14):
        assert looked[q].tolist() == [k <= q and SEEN[kind](q, k) for k in range(14)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_lies_out_of_sight_changes_nothing_in_parts_either(kind):
    q, k, v = (one.detach() for one in qkv(23))
    seen = Record()
    kernel(kind)(q, k, v, order(23), None, Scope(seen))
    hidden = seen.activations["hook_pattern"][0, 0, 20] == 0
    before = kernel(kind)(q, k, v, order(23), None, NO_TAP)[0]
    k[:, :, hidden], v[:, :, hidden] = 50.0, 50.0

    assert torch.equal(kernel(kind)(q, k, v, order(23), None, NO_TAP)[0][:, :, 20], before[:, :, 20])


def test_a_long_text_in_parts_never_makes_the_scores_of_all_pairs():
    class Watched(torch.utils._python_dispatch.TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            for one in made if isinstance(made, (tuple, list)) else (made,):
                if isinstance(one, torch.Tensor):
                    self.largest = max(self.largest, one.numel())
            return made

    for kind in (Window(16, sinks=2), Strided(32), Fixed(32, 2)):
        with Watched() as watched:
            kernel(kind)(*(one.detach() for one in qkv(512)), order(512), None, NO_TAP)
        assert watched.largest < 2 * 2 * 512 * 512 / 3, kind


def test_tokens_that_come_one_by_one_are_compared_with_those_in_the_window_alone():
    window, compared = kernel(Window(4)), []
    as_written = window.as_written
    window.as_written = lambda q, k, v, added, tap: compared.append(k.shape[2]) or as_written(q, k, v, added, tap)
    state, memory = State.empty(1), None
    q, k, v = (one.detach() for one in qkv(12))
    for i in range(12):
        where = State(state.layers, length=i).positions(1, torch.device("cpu"))
        _, memory = window(
            q[:, :, i : i + 1], k[:, :, i : i + 1], v[:, :, i : i + 1], Order(where, None, None), memory, NO_TAP
        )

    assert compared == [1, 2, 3, *[4] * 9]
