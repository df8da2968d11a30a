"""Looking inside: what a tap asks for it is given, what it gives back is used, and a name that is wrong is told."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from microformer.models.kernels import softmax
from microformer.models.model import Microformer
from microformer.models.spec import (
    FEEDFORWARD,
    Gelu,
    LayerSpec,
    Learned,
    ModelSpec,
    NoPositions,
    RMSNorm,
    Rope,
    Softmax,
)
from microformer.models.taps import Edit, Record, TapError, check_names

VOCAB, LENGTH = 11, 7


def small_model(positions=None, feedforward=None) -> Microformer:
    layers = (LayerSpec(Softmax(), feedforward or Gelu()),) * 2
    model = Microformer(ModelSpec(VOCAB, 16, 2, 24, 8, layers, positions or Rope(), RMSNorm())).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


IDS = torch.randint(VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(2))


def recorded(model, names=None):
    tap = Record(names)
    with torch.no_grad():
        logits = model(IDS, tap=tap).logits
    return tap.activations, logits


def test_names_are_those_of_the_field():
    assert small_model().tap_names()[:15] == [
        "hook_embed",
        "blocks.0.hook_resid_pre",
        "blocks.0.attn.hook_q",
        "blocks.0.attn.hook_k",
        "blocks.0.attn.hook_v",
        "blocks.0.attn.hook_rot_q",
        "blocks.0.attn.hook_rot_k",
        "blocks.0.attn.hook_attn_scores",
        "blocks.0.attn.hook_pattern",
        "blocks.0.attn.hook_z",
        "blocks.0.hook_attn_out",
        "blocks.0.hook_resid_mid",
        "blocks.0.mlp.hook_pre",
        "blocks.0.mlp.hook_post",
        "blocks.0.hook_mlp_out",
    ]
    assert small_model().tap_names()[-1] == "ln_final.hook_normalized"


def test_a_model_lists_only_what_its_positions_have():
    rope, learned, none = (small_model(kind).tap_names() for kind in (Rope(), Learned(), NoPositions()))

    assert "hook_pos_embed" in learned
    assert "hook_pos_embed" not in rope + none
    assert "blocks.1.attn.hook_rot_k" in rope
    assert "blocks.1.attn.hook_rot_k" not in learned + none


def test_activations_have_the_shapes_that_their_names_promise():
    seen, _ = recorded(small_model(Learned()))
    stream, heads, square, wide = (2, LENGTH, 16), (2, LENGTH, 2, 8), (2, 2, LENGTH, LENGTH), (2, LENGTH, 24)
    shapes = {
        **dict.fromkeys(("hook_embed", "hook_pos_embed", "ln_final.hook_normalized"), stream),
        **{f"blocks.1.hook_{part}": stream for part in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")},
        **{f"blocks.1.attn.hook_{part}": heads for part in ("q", "k", "v", "z")},
        **{f"blocks.1.attn.hook_{part}": square for part in ("attn_scores", "pattern")},
        **{f"blocks.1.mlp.hook_{part}": wide for part in ("pre", "post")},
    }

    assert {name: tuple(seen[name].shape) for name in shapes} == shapes


@pytest.mark.parametrize("feedforward", FEEDFORWARD)
def test_the_activations_are_those_that_made_the_logits(feedforward):
    model = small_model(Learned(), FEEDFORWARD[feedforward]())
    seen, logits = recorded(model)

    def block(name):
        return seen["blocks.0." + name]

    assert torch.equal(block("hook_resid_pre"), seen["hook_embed"] + seen["hook_pos_embed"])
    assert torch.equal(block("hook_resid_mid"), block("hook_resid_pre") + block("hook_attn_out"))
    assert torch.equal(block("hook_resid_post"), block("hook_resid_mid") + block("hook_mlp_out"))
    assert torch.equal(seen["blocks.1.hook_resid_pre"], block("hook_resid_post"))
    assert_close(block("attn.hook_pattern"), block("attn.hook_attn_scores").softmax(-1))
    assert_close(block("attn.hook_pattern").sum(-1), torch.ones(2, 2, LENGTH))
    mixed = torch.einsum("bhqk,bkhd->bqhd", block("attn.hook_pattern"), block("attn.hook_v"))
    assert_close(block("attn.hook_z"), mixed)
    assert_close(F.linear(seen["ln_final.hook_normalized"], model.unembed.weight), logits)


def test_a_record_keeps_only_the_names_it_was_given():
    seen, _ = recorded(small_model(), ["blocks.1.hook_mlp_out"])

    assert list(seen) == ["blocks.1.hook_mlp_out"]


class Nothing:
    def wants(self, name):
        return False

    def __call__(self, name, tensor):
        raise AssertionError(f"asked for {name}, which it does not want")


def test_a_tap_that_wants_nothing_costs_nothing_and_changes_no_bit(monkeypatch):
    model = small_model()
    untapped = model(IDS).logits
    monkeypatch.setattr(softmax, "_IN_BLOCKS_UP_TO", 0)
    monkeypatch.setattr(torch, "softmax", None)  # the explicit road's; the fused one has its own
    with torch.no_grad():
        fused, tapped = model(IDS).logits, model(IDS, tap=Nothing()).logits
        elsewhere = model(IDS, tap=Record(["blocks.0.hook_resid_mid"])).logits
    monkeypatch.undo()

    assert torch.equal(fused, tapped)
    assert torch.equal(fused, elsewhere)
    assert torch.equal(untapped, model(IDS, tap=Nothing()).logits)


def test_an_edit_that_gives_back_what_it_was_given_changes_nothing():
    model = small_model()
    _, logits = recorded(model)
    edit = Edit({name: lambda tensor: tensor.clone() for name in model.tap_names()})

    with torch.no_grad():
        edited = model(IDS, tap=edit).logits

    assert torch.equal(edited, logits)
    edit.check_all_fired()


@pytest.mark.parametrize("name", small_model(Learned()).tap_names() + small_model(Rope()).tap_names()[5:7])
def test_every_edit_reaches_the_logits(name):
    model = small_model(Rope() if "rot" in name else Learned())
    noise = torch.Generator().manual_seed(3)
    edit = Edit({name: lambda tensor: tensor + torch.randn(tensor.shape, generator=noise)})

    with torch.no_grad():
        changed = (model(IDS, tap=edit).logits - recorded(model)[1]).abs().max()

    assert changed > 1e-4
    edit.check_all_fired()


def test_silencing_a_head_is_the_same_as_taking_its_output_weights_away():
    model, without = small_model(), small_model()
    with torch.no_grad():
        without.blocks[0].attention.W_O.weight[:, :8] = 0

    def silence_the_first_head(z):
        return torch.cat([torch.zeros_like(z[:, :, :1]), z[:, :, 1:]], dim=2)

    with torch.no_grad():
        silenced = model(IDS, tap=Edit({"blocks.0.attn.hook_z": silence_the_first_head})).logits
        assert_close(silenced, without(IDS).logits)
    assert not torch.allclose(silenced, model(IDS).logits)


def test_an_edit_that_changes_the_shape_is_refused():
    edit = Edit({"blocks.0.hook_mlp_out": lambda tensor: tensor[:, :1]})

    with pytest.raises(TapError, match=r"the edit of blocks.0.hook_mlp_out gave shape \(2, 1, 16\) for \(2, 7, 16\)"):
        small_model()(IDS, tap=edit)


def test_an_edit_that_never_fired_is_an_error():
    edit = Edit({"hook_embed": lambda tensor: tensor, "blocks.7.hook_mlp_out": lambda tensor: tensor})
    small_model()(IDS, tap=edit)

    with pytest.raises(TapError, match=r"the edit of blocks.7.hook_mlp_out never fired"):
        edit.check_all_fired()


def test_an_unknown_name_is_told_with_the_nearest():
    known = small_model().tap_names()
    check_names(known, known)

    with pytest.raises(TapError, match=r"did you mean blocks.0.attn.hook_pattern\?"):
        check_names(["hook_embed", "blocks.0.attn.hook_patern"], known)
    with pytest.raises(TapError, match="tap_names"):
        check_names(["weights"], known)


def test_gradients_flow_through_a_tap():
    model = small_model()
    tap = Record()
    model(IDS, tap=tap).logits.sum().backward()

    assert all(activation.requires_grad for activation in tap.activations.values())
    assert model.embed.weight.grad is not None
