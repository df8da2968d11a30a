"""The mixture of experts: its formula, its two roads, and the loss that keeps experts in use."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from microformer.models.feedforward import MoE
from microformer.models.model import Microformer
from microformer.models.spec import LayerSpec, ModelSpec, RMSNorm, Rope, Softmax
from microformer.models.spec import MoE as MoESpec
from microformer.models.taps import Edit, Record, Scope

NO_TAP = Scope(None)


def built(experts=4, k=2, balance=0.01, bias=True) -> MoE:
    layer = MoE(6, 8, experts, k, balance, bias=bias)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5, generator=torch.Generator().manual_seed(2))
    return layer


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def by_hand(layer: MoE, x: torch.Tensor) -> torch.Tensor:
    """One token, one expert at a time."""
    y = torch.zeros_like(x)
    for row in range(len(x)):
        p = torch.softmax(layer.W_router.weight @ x[row], 0)
        chosen = p.topk(layer.k).indices
        for i in chosen.tolist():
            gate, into = (
                one.weight.view(4, 8, 6)[i] @ x[row] + one.bias.view(4, 8)[i] for one in (layer.W_gate, layer.W_in)
            )
            made = layer.W_out.weight.view(4, 6, 8)[i] @ (F.silu(gate) * into) + layer.W_out.bias.view(4, 6)[i]
            y[row] += p[i] / p[chosen].sum() * made
    return y


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("training", [True, False])
def test_it_is_the_chosen_experts_weighed_by_the_router(k, training):
    layer, x = built(k=k).train(training), numbers(2, 5, 6)

    made, _ = layer(x, NO_TAP)

    assert_close(made.view(-1, 6), by_hand(layer, x.view(-1, 6)), rtol=1e-4, atol=1e-5)


def test_both_roads_have_the_same_gradients():
    layer, x = built(balance=0.0), numbers(2, 5, 6).requires_grad_()
    learned = [x, *layer.parameters()]

    sent = torch.autograd.grad(layer.train()(x, NO_TAP)[0].square().sum(), learned)
    everywhere = torch.autograd.grad(layer.eval()(x, NO_TAP)[0].square().sum(), learned)

    for one, other in zip(sent, everywhere, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_balance_loss_is_least_where_experts_are_used_alike_and_is_asked_in_training_alone():
    layer, x = built(balance=0.5), numbers(4, 50, 6)
    one_sided = built(balance=0.5)
    with torch.no_grad():
        layer.W_router.weight.zero_()
        one_sided.W_router.weight.zero_()
        one_sided.W_router.weight[:2, 0] = 5.0
    x = x.abs()  # so that the first two experts are the likeliest for every token

    alike, unlike = (one.train()(x, NO_TAP)[1].detach() for one in (layer, one_sided))

    assert float(alike) == pytest.approx(0.5, rel=1e-4)
    assert float(unlike) > float(alike)
    assert layer.eval()(x, NO_TAP)[1] == 0.0
    assert built(balance=0.0).train()(x, NO_TAP)[1] == 0.0


def test_the_balance_loss_reaches_the_models_loss_in_training():
    layers = tuple(LayerSpec(Softmax(), MoESpec(balance=0.5)) for _ in range(2))
    model = Microformer(ModelSpec(11, 16, 2, 24, 8, layers, Rope(), RMSNorm()), seed=1)
    ids = torch.randint(11, (3, 8), generator=torch.Generator().manual_seed(1))

    training, evaluating = model.train()(ids), model.eval()(ids)

    assert float(training.aux_loss.detach()) == pytest.approx(
        2 * 0.5, rel=0.3
    )  # a half a layer where all are used alike
    assert evaluating.aux_loss == 0.0
    assert_close(model.train().loss(ids, ids, None), model.eval().loss(ids, ids, None) + training.aux_loss)


def test_a_tap_sees_how_much_of_each_expert_a_token_takes_and_can_change_it():
    layer, x, record = built().eval(), numbers(2, 5, 6), Record()
    layer(x, Scope(record))
    gates = record.activations["hook_gates"]

    assert gates.shape == (2, 5, 4)
    assert ((gates > 0).sum(-1) == 2).all()
    assert_close(gates.sum(-1), torch.ones(2, 5))
    assert record.activations["hook_post"].shape == (2, 5, 4, 8)

    without = Edit({"hook_gates": lambda gates: 0 * gates})
    for training in (True, False):
        assert layer.train(training)(x, Scope(without))[0].abs().sum() == 0
