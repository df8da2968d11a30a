"""Where the norms of a block stand: each placement is its formula."""

import pytest
import torch
from torch.testing import assert_close

from microformer.models.model import Microformer
from microformer.models.residual import Residual
from microformer.models.spec import Gelu, LayerNorm, LayerSpec, ModelSpec, NoPositions, RMSNorm, Softmax
from microformer.models.taps import Record, Scope


def spec(**changes) -> ModelSpec:
    layers = (LayerSpec(Softmax(), Gelu()),)
    return ModelSpec(11, 16, 2, 24, 8, layers, NoPositions(), LayerNorm(), **changes)


def numbers(seed):
    return torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("placement", ["pre", "post", "sandwich"])
@pytest.mark.parametrize("scalars", [False, True])
def test_a_half_is_read_and_added_as_the_formula_says(placement, scalars):
    half = Residual(spec(norm_placement=placement, residual_scalars=scalars)).eval()
    a, b = 1.0, 1.0
    with torch.no_grad():
        half.norm.gain.mul_(2)
        if half.norm_after is not None:
            half.norm_after.gain.mul_(3)
        if half.scalars is not None:
            a, b = 0.5, -2.0
            half.scalars.copy_(torch.tensor([a, b]))
    x, made = numbers(1), numbers(2)

    def norm(y, gain=2.0):
        return gain * (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()

    wanted = {
        "pre": (norm(x), a * x + b * made),
        "post": (x, norm(a * x + b * made)),
        "sandwich": (norm(x), a * x + b * norm(made, 3.0)),
    }[placement]
    assert_close(half.read(x), wanted[0], rtol=1e-5, atol=1e-5)
    assert_close(half.add(x, made), wanted[1], rtol=1e-5, atol=1e-5)


def test_what_is_added_is_dropped_by_chance_in_training_alone():
    half = Residual(spec(dropout=0.5))
    x, made = torch.zeros(2, 5, 16), numbers(2)

    assert torch.equal(half.eval().add(x, made), made)
    added = half.train().add(x, made)
    assert 0 < (added == 0).sum() < added.numel()
    assert_close(added[added != 0], 2 * made[added != 0])


def test_after_post_norms_the_stream_is_not_normed_again():
    names = {name for name, _ in Microformer(spec(norm_placement="post")).named_parameters()}

    assert "norm.gain" not in names
    assert "blocks.0.residual_2.norm.gain" in names


def test_a_scaled_embedding_is_that_many_times_as_long():
    ids = torch.tensor([[1, 2, 3]])
    seen = {}
    for scale in (1.0, 4.0):
        model = Microformer(spec(embed_scale=scale), seed=1)
        seen[scale] = model.embed(ids) * scale
        logits = model(ids).logits
        assert logits.shape == (1, 3, 11)
    assert_close(seen[4.0], 4 * seen[1.0])


def test_rmsnorm_serves_every_placement():
    layers = (LayerSpec(Softmax(), Gelu()),)
    for placement in ("pre", "post", "sandwich"):
        half = Residual(ModelSpec(11, 16, 2, 24, 8, layers, NoPositions(), RMSNorm(), norm_placement=placement))
        assert torch.isfinite(half.add(numbers(1), half.read(numbers(2)))).all()


def test_in_parallel_both_halves_read_what_came_in():
    model = Microformer(spec(parallel=True), seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    seen = Record()
    ids = torch.tensor([[1, 2, 3]])
    model(ids, tap=seen)
    at = {name.removeprefix("blocks.0."): value for name, value in seen.activations.items()}
    block = model.blocks[0]

    assert "hook_resid_mid" not in at
    assert_close(at["hook_mlp_out"], block.feedforward(block.residual_1.read(at["hook_resid_pre"]), Scope(None))[0])
    assert_close(at["hook_resid_post"], at["hook_resid_pre"] + at["hook_attn_out"] + at["hook_mlp_out"])


def test_a_loop_more_is_the_same_blocks_again_and_no_parameter_more():
    once, twice = (Microformer(spec(loops=loops), seed=1).eval() for loops in (1, 2))
    ids = torch.tensor([[1, 2, 3]])
    seen = Record()
    twice(ids, tap=seen)

    assert once.num_parameters() == twice.num_parameters()
    assert torch.equal(seen.activations["blocks.1.hook_resid_pre"], seen.activations["blocks.0.hook_resid_post"])
    assert len(twice.empty_state().layers) == 2 == twice.spec.depth
