"""On the same weights, TransformerLens 4.3.0 and this library see the same: what it saw is kept beside this file."""

import runpy
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from microformer.inspection import (
    Weights,
    accumulated_resid,
    decompose_resid,
    direct_logit_attribution,
    head_scores,
    logit_lens,
    trace,
)
from microformer.models.model import Microformer
from microformer.runs import load_tensors

made = runpy.run_path(str(Path(__file__).parent / "make_transformer_lens.py"))
THEIRS = load_tensors(made["KEPT"])
NAMES = [name.removeprefix("cache.") for name in THEIRS if name.startswith("cache.")]
TOKEN, RIVAL, POSITION = made["TOKEN"], made["RIVAL"], made["POSITION"]


def our_model() -> Microformer:
    model = made["model"]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(THEIRS[f"weights.{name}"])
    return model


MODEL = our_model()
SEEN = trace(MODEL, THEIRS["ids"][0])


def equal(ours, theirs):
    assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_every_activation_that_both_have_is_there():
    assert len(NAMES) == len(MODEL.tap_names())


@pytest.mark.parametrize("name", NAMES)
def test_an_activation_is_theirs(name):
    theirs = THEIRS[f"cache.{name}"]
    seen = theirs > -1e30 if name.endswith("attn_scores") else torch.ones_like(theirs, dtype=torch.bool)

    if name == "ln_final.hook_normalized":  # since version 4 theirs is what the gain and the bias are yet to meet
        theirs = theirs * MODEL.norm.gain + MODEL.norm.bias
    equal(SEEN.cache[name][seen], theirs[seen])


def test_logits_and_the_loss_of_each_token_are_theirs():
    equal(SEEN.logits, THEIRS["logits"][0])
    equal(SEEN.losses, THEIRS["losses"][0])


def test_the_logit_lens_is_theirs():
    equal(accumulated_resid(SEEN), THEIRS["accumulated_resid"][:, 0])
    equal(logit_lens(SEEN), THEIRS["logit_lens"][:, 0])


def test_the_residual_stream_is_the_sum_of_the_same_parts():
    labels, parts = decompose_resid(SEEN, POSITION)
    ours = dict(zip(labels, parts[:, 0].float(), strict=True))

    equal(torch.stack([ours[f"L{layer}H{head}"] for layer in range(2) for head in range(4)]), THEIRS["heads"][:8, 0])
    names = ("embed", "pos_embed", "L0.mlp", "L1.mlp")
    equal(torch.stack([ours[name] for name in names]), THEIRS["embeddings_and_mlps"][:4, 0])


def test_direct_logit_attribution_is_theirs():
    labels, values = direct_logit_attribution(SEEN, POSITION, TOKEN, RIVAL)
    ours = dict(zip(labels, values, strict=True))

    heads = torch.stack([ours[f"L{layer}H{head}"] for layer in range(2) for head in range(4)])
    equal(heads, THEIRS["attribution.heads"][:8])
    rest = torch.stack([ours[name] for name in ("embed", "pos_embed", "L0.mlp", "L1.mlp")])
    equal(rest, THEIRS["attribution.embeddings_and_mlps"][:4])
    equal(values.sum(), SEEN.logits[POSITION, TOKEN] - SEEN.logits[POSITION, RIVAL])


@pytest.mark.parametrize("name", ["previous_token", "induction", "duplicate_token", "first_token"])
def test_head_scores_are_those_of_their_demonstrations(name):
    equal(head_scores(MODEL, rows=1)[name], THEIRS[name])


def test_their_head_detector_sums_up_the_same_diagonals_and_divides_by_all_queries():
    seen = trace(MODEL, THEIRS["shorter"][0])
    patterns, length = torch.stack([seen.pattern(layer) for layer in range(2)]), len(seen.ids)
    offsets = {"previous_token": -1, "duplicate_token": -(length // 2)}

    for name, offset in offsets.items():
        equal(patterns.diagonal(offset, -2, -1).sum(-1) / length, THEIRS[f"detect_head.{name}_head"])
    of_the_second_time = patterns.diagonal(1 - length // 2, -2, -1)[..., 1:]
    equal(of_the_second_time.sum(-1) / length, THEIRS["detect_head.induction_head"])


def test_weights_have_their_shapes_and_make_their_activations():
    w, x = Weights(MODEL), THEIRS["cache.blocks.0.hook_resid_pre"][0]
    normed = MODEL.blocks[0].residual_1.norm(x)

    equal(torch.einsum("pm,hmd->phd", normed, w.W_Q[0]) + w.b_Q[0], THEIRS["cache.blocks.0.attn.hook_q"][0])
    z = THEIRS["cache.blocks.0.attn.hook_z"][0]
    equal(torch.einsum("phd,hdm->pm", z, w.W_O[0]) + w.b_O[0], THEIRS["cache.blocks.0.hook_attn_out"][0])
    post = THEIRS["cache.blocks.1.mlp.hook_post"][0]
    equal(post @ w.W_out[1] + w.b_out[1], THEIRS["cache.blocks.1.hook_mlp_out"][0])
    equal(w.W_E[THEIRS["ids"][0]], THEIRS["cache.hook_embed"][0])
    equal(w.W_pos[:20], THEIRS["cache.hook_pos_embed"][0].expand(20, -1))
    equal(SEEN.cache["ln_final.hook_normalized"][0] @ w.W_U + w.b_U, THEIRS["logits"][0])
