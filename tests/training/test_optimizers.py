"""Optimizers: every parameter is moved by exactly one rule, that of the role it declares."""

import pytest
import torch

from microformer.models.model import Microformer
from microformer.models.spec import Gelu, LayerNorm, LayerSpec, Learned, ModelSpec, Softmax, Swiglu
from microformer.training.muon import Muon
from microformer.training.optimizers import Optimizer, Recipe

VOCAB = 11


def small_model(embed_dim=16, **changes) -> Microformer:
    layers = (LayerSpec(Softmax(), Gelu()), LayerSpec(Softmax(), Swiglu()))
    values = {"qk_norm": True, "bias": True, **changes}
    return Microformer(ModelSpec(VOCAB, embed_dim, 2, 24, 8, layers, Learned(), LayerNorm(), **values))


def recipe(kind="muon", rate="auto", decay=0.1):
    return Recipe(kind=kind, rate=rate, weight_decay=decay, momentum=0.95, betas=(0.9, 0.95))


def trained(model, optimizer, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        ids = torch.randint(VOCAB, (2, 9), generator=generator)
        model.loss(ids[:, :-1], ids[:, 1:], None).backward()
        optimizer.step()


def group_of(optimizer, model) -> dict[str, tuple[str, float, float]]:
    """For each parameter: the rule, the rate and the decay that move it."""
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [
        (named[id(one)], (type(part).__name__, group["lr"], group["weight_decay"]))
        for part in optimizer.parts
        for group in part.param_groups
        for one in group["params"]
    ]
    assert len(found) == len(dict(found)), "a parameter is in two groups"
    return dict(found)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_is_moved_by_exactly_one_rule(kind, tied):
    model = small_model(tie_embeddings=tied)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = Optimizer(model, recipe(kind, 0.01))

    assert set(group_of(optimizer, model)) == set(before)
    trained(model, optimizer, 3)
    assert [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])] == []
    assert all(parameter.grad is None for parameter in model.parameters())


def test_under_muon_the_matrices_are_muons_and_the_rest_adamws_by_role():
    model = small_model()
    groups = group_of(Optimizer(model, recipe("muon", 0.02, decay=0.1)), model)

    for name, role in model.roles().items():
        rule, rate, decay = groups[name]
        assert rule == ("Muon" if role == "matrix" else "AdamW"), name
        assert decay == (0.0 if role in ("gain", "bias") else 0.1), name
        assert rate == 0.02 if role == "matrix" else 0.002 < rate < 0.2, name


def test_under_adamw_all_are_adamws_and_only_gains_and_biases_do_not_shrink():
    model = small_model()
    optimizer = Optimizer(model, recipe("adamw", 0.003, decay=0.1))
    groups, roles = group_of(optimizer, model), model.roles()

    assert not any(isinstance(part, Muon) for part in optimizer.parts)
    assert all(groups[name] == ("AdamW", 0.003, 0.0 if roles[name] in ("gain", "bias") else 0.1) for name in groups)


def test_a_tied_matrix_is_moved_as_an_embedding_and_once():
    model = small_model(tie_embeddings=True)
    groups = group_of(Optimizer(model, recipe()), model)

    assert groups["embed.weight"][0] == "AdamW"
    assert "unembed.weight" not in groups


def test_the_automatic_rate_falls_with_the_width_where_adamw_sums_over_it():
    narrow, wide = small_model(128), small_model(256)

    for kind, name in (("adamw", "blocks.0.attention.W_QKV.weight"), ("muon", "unembed.weight")):
        rates = [group_of(Optimizer(model, recipe(kind)), model)[name][1] for model in (narrow, wide)]
        assert rates[0] == pytest.approx(2 * rates[1])
    muons = [
        group_of(Optimizer(model, recipe()), model)["blocks.0.attention.W_QKV.weight"][1] for model in (narrow, wide)
    ]
    assert muons[0] == muons[1]


def test_the_highest_rate_is_the_one_that_was_asked_for():
    model = small_model()

    assert Optimizer(model, recipe("muon", 0.05)).highest == Optimizer(model, recipe("adamw", 0.05)).highest == 0.05
    assert Optimizer(model, recipe("adamw")).highest > 0


def test_a_share_of_the_rate_scales_every_group_from_its_own_highest():
    model = small_model()
    optimizer = Optimizer(model, recipe())
    highest = {name: rate for name, (_, rate, _) in group_of(optimizer, model).items()}
    for share in (0.0, 0.5, 0.25, 1.0):
        optimizer.set_rate(share)
        assert {name: rate for name, (_, rate, _) in group_of(optimizer, model).items()} == {
            name: share * rate for name, rate in highest.items()
        }


def test_at_rate_0_nothing_moves():
    model = small_model()
    optimizer = Optimizer(model, recipe())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer.set_rate(0.0)
    trained(model, optimizer, 2)

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_memory_goes_on_to_the_bit(kind, tied):
    model = small_model(tie_embeddings=tied)
    optimizer = Optimizer(model, recipe(kind))
    trained(model, optimizer, 3)
    saved = {name: value.clone() for name, value in optimizer.state_dict().items()}
    again = small_model(tie_embeddings=tied)
    again.load_state_dict(model.state_dict())
    resumed = Optimizer(again, recipe(kind))
    resumed.load_state_dict(saved)
    for one, moves in ((model, optimizer), (again, resumed)):
        trained(one, moves, 3, seed=2)

    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in optimizer.state_dict().items())
    assert set(saved) == set(resumed.state_dict())
