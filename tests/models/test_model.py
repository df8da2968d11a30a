"""The whole model: what it starts as, what it computes, what it declares, what it refuses."""

import math
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from microformer.errors import MicroformerError
from microformer.models.feedforward import MLP, Gated
from microformer.models.linear import Linear
from microformer.models.model import Microformer, token_losses
from microformer.models.spec import Gelu, LayerNorm, LayerSpec, Learned, ModelSpec, RMSNorm, Rope, Softmax, Swiglu
from microformer.models.taps import Scope

VOCAB = 13


def spec_with(**changes) -> ModelSpec:
    values = {
        "vocab_size": VOCAB, "embed_dim": 16, "num_heads": 2, "ff_dim": 24, "max_seq_len": 8,
        "layers": (LayerSpec(Softmax(), Gelu()),) * 2, "positions": Rope(), "norm": RMSNorm(),
    }  # fmt: skip
    return ModelSpec(**{**values, **changes})


def random_ids(*shape):
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(1))


def loss_of(model):
    ids = random_ids(2, 9)
    return model.loss(ids[:, :-1], ids[:, 1:], None).item()


@pytest.mark.parametrize("feedforward", [Gelu(), Swiglu()])
def test_before_training_every_token_is_equally_likely(feedforward):
    model = Microformer(spec_with(layers=(LayerSpec(Softmax(), feedforward),)))

    # The unembedding starts at zero, so the first loss is that of knowing nothing, to the last digit.
    assert model(random_ids(2, 8)).logits.eq(0).all()
    assert loss_of(model) == pytest.approx(math.log(VOCAB), rel=1e-6)


def test_tied_embeddings_start_near_knowing_nothing():
    model = Microformer(spec_with(tie_embeddings=True))

    assert model.unembed.weight is model.embed.weight
    assert loss_of(model) == pytest.approx(math.log(VOCAB), rel=0.05)


def test_every_block_starts_as_the_identity():
    model = Microformer(spec_with())
    x, _, _ = model.hidden(random_ids(1, 8))

    assert_close(x, model.norm(model.embed(random_ids(1, 8))))


def test_weights_are_drawn_from_the_seed_alone_and_from_no_global_state():
    torch.manual_seed(1)
    first = Microformer(spec_with(), seed=5).state_dict()
    torch.manual_seed(2)
    drawn = torch.random.get_rng_state()
    again, other = Microformer(spec_with(), seed=5).state_dict(), Microformer(spec_with(), seed=6).state_dict()

    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embed.weight"], other["embed.weight"])


def test_weights_start_at_the_size_that_keeps_activations_at_1():
    model = Microformer(spec_with(embed_dim=256, num_heads=4, ff_dim=512))
    block = model.blocks[0]
    assert isinstance(block.feedforward, MLP)

    assert model.embed.weight.std().item() == pytest.approx(1, abs=0.05)
    assert block.attention.W_QKV.weight.std().item() == pytest.approx(1 / 16, rel=0.05)
    assert block.feedforward.W_in.weight.std().item() == pytest.approx(1 / 16, rel=0.05)
    assert block.attention.W_O.weight.eq(0).all()
    assert block.feedforward.W_out.weight.eq(0).all()


def test_the_model_is_its_formula():
    """The whole forward pass again, in a dozen plain lines."""
    model = Microformer(spec_with(positions=Learned(), norm=LayerNorm(), bias=True, tie_embeddings=True)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    ids = random_ids(2, 8)
    w = model.state_dict()

    x = w["embed.weight"][ids] + w["positions.table.weight"]
    for i in range(2):
        part = {name.split(".", 2)[2]: value for name, value in w.items() if name.startswith(f"blocks.{i}.")}

        def linear(x, name, part=part):
            return x @ part[f"{name}.weight"].T + part[f"{name}.bias"]

        y = F.layer_norm(x, (16,), part["residual_1.norm.gain"], part["residual_1.norm.bias"])
        q, k, v = (one.view(2, 8, 2, 8).transpose(1, 2) for one in linear(y, "attention.W_QKV").chunk(3, -1))
        scores = (q @ k.mT / math.sqrt(8)).masked_fill(~torch.ones(8, 8).tril().bool(), float("-inf"))
        x = x + linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), "attention.W_O")
        y = F.layer_norm(x, (16,), part["residual_2.norm.gain"], part["residual_2.norm.bias"])
        x = x + linear(F.gelu(linear(y, "feedforward.W_in")), "feedforward.W_out")
    logits = F.layer_norm(x, (16,), w["norm.gain"], w["norm.bias"]) @ w["embed.weight"].T

    assert_close(model(ids).logits, logits, rtol=1e-4, atol=1e-4)


_WRITTEN = {
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: torch.where(x > 0, x, 0),
    "relu2": lambda x: torch.where(x > 0, x**2, 0),
    "silu": lambda x: x * torch.sigmoid(x),
}


@pytest.mark.parametrize(
    ("kind", "activation"),
    [*((MLP, act) for act in ("gelu", "gelu_tanh", "relu", "relu2")), (Gated, "silu"), (Gated, "gelu")],
)
@pytest.mark.parametrize("rows", [1, 200])
def test_feedforwards_are_their_formulas(kind, activation, rows):
    x, no_tap = torch.randn(rows, 2, 6, generator=torch.Generator().manual_seed(1)), Scope(None)
    layer, act = kind(6, 8, activation, bias=True), _WRITTEN[activation]
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
    wide = layer.W_in(x)
    middle = act(wide) if kind is MLP else act(layer.W_gate(x)) * wide

    assert_close(layer(x, no_tap)[0], layer.W_out(middle), rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # few numbers take a road of their own
        assert_close(layer(x, no_tap)[0], layer.W_out(middle), rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_mean_over_the_targets_that_count():
    model = Microformer(spec_with())
    with torch.no_grad():
        model.unembed.weight.normal_(generator=torch.Generator().manual_seed(1))
    ids, targets = random_ids(2, 8), random_ids(2, 8).flip(0)
    mask = torch.rand(2, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    losses = token_losses(model(ids).logits, targets)

    assert_close(losses, -model(ids).logits.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1))
    assert_close(model.loss(ids, targets, None), losses.mean())
    assert_close(model.loss(ids, targets, mask), losses[mask].mean())


def test_losses_are_in_float32_whatever_the_logits_are():
    logits = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(1)).bfloat16()

    assert token_losses(logits, torch.zeros(1, 3, dtype=torch.long)).dtype == torch.float32


def test_in_bfloat16_activations_are_coarse_and_weights_and_gradients_are_not():
    model = Microformer(spec_with(bias=True))
    model.compute_dtype = torch.bfloat16
    ids = random_ids(2, 8)
    model.loss(ids, ids, None).backward()

    assert model(ids).logits.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in model.parameters() if parameter.grad is not None} == {torch.float32}


def test_kept_in_a_precision_only_the_matrices_are_its_own_and_nothing_changes():
    model = Microformer(spec_with(bias=True, tie_embeddings=True, ngrams=2, ngram_entries=50), seed=1).eval()
    model.unembed.weight.data.normal_()
    ids, before = random_ids(2, 8), {name: one.clone() for name, one in model.named_parameters()}

    kept = model.kept_in(torch.bfloat16)

    own = {name for name, one in kept.named_parameters() if one is not model.get_parameter(name)}
    assert own == {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Linear)}
    assert {kept.get_parameter(name).dtype for name in own} == {torch.bfloat16}
    assert kept.embed.weight.dtype == torch.float32
    assert all(torch.equal(one, before[name]) for name, one in model.named_parameters())
    assert model.compute_dtype == torch.float32
    model.compute_dtype = torch.bfloat16
    assert torch.equal(kept(ids).logits, model(ids).logits)


def test_dropout_acts_in_training_alone():
    model = Microformer(spec_with(dropout=0.5))
    with torch.no_grad():
        model.unembed.weight.normal_(generator=torch.Generator().manual_seed(1))
    ids = random_ids(2, 8)

    with torch.random.fork_rng():
        torch.manual_seed(1)
        assert not torch.equal(model(ids).logits, model(ids).logits)
        assert torch.equal(model.eval()(ids).logits, model(ids).logits)


def test_every_parameter_declares_its_role():
    model = Microformer(spec_with(positions=Learned(), norm=LayerNorm(), bias=True, qk_norm=True))
    roles = model.roles()

    assert set(roles) == {name for name, _ in model.named_parameters()}
    assert {name for name, role in roles.items() if role == "embedding"} == {"embed.weight", "positions.table.weight"}
    assert {name for name, role in roles.items() if role == "unembedding"} == {"unembed.weight"}
    assert all(roles[name] == "bias" for name in roles if name.endswith("bias"))
    assert all(roles[name] == "gain" for name in roles if name.endswith("gain"))
    matrices = [parameter for name, parameter in model.named_parameters() if roles[name] == "matrix"]
    assert len(matrices) == 2 * 4
    assert all(matrix.dim() == 2 for matrix in matrices)


def test_a_parameter_says_how_many_rows_each_of_its_matrices_has():
    model = Microformer(spec_with())
    outputs, parameters = model.outputs(), dict(model.named_parameters())

    assert outputs["blocks.0.attention.W_QKV.weight"] == (16, 16, 16)
    assert outputs["blocks.0.attention.W_O.weight"] == (16,)
    assert all(sum(rows) == parameters[name].shape[0] for name, rows in outputs.items())


def test_tied_embeddings_are_one_parameter_and_counted_once():
    tied, apart = Microformer(spec_with(tie_embeddings=True)), Microformer(spec_with())

    assert tied.roles()["embed.weight"] == "embedding"
    assert "unembed.weight" not in tied.roles()
    assert apart.num_parameters() - tied.num_parameters() == VOCAB * 16


def test_more_tokens_than_the_context_are_refused():
    with pytest.raises(MicroformerError, match=r"9 tokens are more than the model's context of 8.") as raised:
        Microformer(spec_with())(random_ids(1, 9))
    assert "MAX_SEQ_LEN" in raised.value.hint


@pytest.mark.parametrize("outside", [VOCAB, -1])
def test_an_id_outside_the_vocabulary_is_an_error_and_never_another_tokens_vector(outside):
    with pytest.raises(IndexError):
        Microformer(spec_with())(torch.tensor([[0, outside]]))


def test_a_linear_map_works_in_the_precision_it_is_given():
    layer = Linear(4, 2, bias=True, std=1.0)

    assert layer(torch.ones(4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert layer(torch.ones(3, 4)).shape == (3, 2)


def test_describing_a_model_needs_no_torch():
    code = "import sys, microformer, microformer.models.spec; assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True)
