"""Lens, attribution, head scores, knock-outs and circuits say what they claim, for every kind of model."""

from dataclasses import replace

import pytest
import torch
from small_models import KINDS, VOCAB, model_of, text_of
from torch.testing import assert_close

from microformer.inspection import (
    DEFINITIONS,
    TraceError,
    Weights,
    ablate,
    direct_logit_attribution,
    edited,
    effect,
    head_scores,
    knock_out_map,
    logit_lens,
    ov_table,
    patch,
    qk_table,
    residual_norms,
    trace,
)
from microformer.inspection.heads import pattern_entropy, repeated_tokens
from microformer.models.model import Microformer


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def seen(kind, *edits):
    return ablate(model_of(kind), text_of(kind), *edits)


def test_the_last_row_of_the_lens_is_what_the_model_says(kind):
    made = seen(kind)
    lens = logit_lens(made)

    assert lens.shape == (made.model.spec.depth + 1, len(made.ids), VOCAB)
    assert_close(lens[-1], made.logits)
    assert not torch.allclose(lens[0], made.logits)
    assert_close(logit_lens(made, [1]), lens[1:2])


def test_the_norms_of_the_stream_are_those_of_its_vectors(kind):
    made = seen(kind)
    norms = residual_norms(made)

    assert len(norms) == (1 if made.model.spec.parallel else 2) * made.model.spec.depth + 1
    assert_close(norms[0], made.cache["resid_pre", 0][0].norm(dim=-1))
    assert_close(norms[-1], made.cache["resid_post", -1][0].norm(dim=-1))


@pytest.mark.parametrize("edits", [(), ("L0H1 mean", "L1.attn x0.5", "L0.mlp x2")], ids=str)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "post"])
def test_the_parts_of_a_logit_sum_to_it(kind, edits):
    made = seen(kind, *edits)
    for position in (0, len(made.ids) // 2, len(made.ids) - 1):
        for rival in (None, 4):
            labels, values = direct_logit_attribution(made, position, 3, rival)
            logit = made.logits[position, 3] - (0 if rival is None else made.logits[position, 4])
            assert_close(values.sum(), logit, rtol=0, atol=1e-4)
    assert len(labels) == len(set(labels)) == len(values)
    assert ("L1.attn" in labels) == bool(edits)


def test_a_logit_that_is_no_sum_is_told():
    made = seen("usual")
    with pytest.raises(TraceError, match="a norm stands after every half"):
        direct_logit_attribution(seen("post"), 0, 0)
    with pytest.raises(TraceError, match=r"a patch replaced blocks.1.hook_resid_pre"):
        direct_logit_attribution(patch(made, made, "blocks.1.hook_resid_pre"), 0, 0)
    with pytest.raises(TraceError, match=f"no token {VOCAB}"):
        direct_logit_attribution(made, 0, VOCAB)
    with pytest.raises(TraceError, match="no position 8"):
        direct_logit_attribution(made, 8, 0)


def test_a_norm_of_the_users_own_is_not_taken_apart():
    model = Microformer(model_of("usual").spec).eval()
    model.norm = torch.nn.Tanh()
    with pytest.raises(TraceError, match="what its norm Tanh does"):
        direct_logit_attribution(trace(model, [1, 2]), 0, 0)


# ------------------------------------------------------------------------------------------------------ head scores


def test_every_head_has_every_score(kind):
    model = model_of(kind)
    scores = head_scores(model)

    assert list(scores) == list(DEFINITIONS)
    assert all(one.shape == (model.spec.depth, 4) and one.isfinite().all() for one in scores.values())
    assert all(torch.equal(one, scores[name]) for name, one in head_scores(model).items())


def test_random_tokens_come_twice_and_fill_what_there_is():
    ids, n = repeated_tokens(65, 128, seed=0, rows=3)
    assert ids.shape == (3, 100)
    assert torch.equal(ids[:, :n], ids[:, n:])
    assert all(len(set(row[:n].tolist())) == n for row in ids)

    ids, n = repeated_tokens(3, 9, seed=0)
    assert (ids.shape, n) == ((1, 8), 4)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_context_too_short_for_a_score_gives_no_number_and_no_error(length):
    scores = head_scores(Microformer(replace(model_of("usual").spec, max_seq_len=length)).eval())

    assert scores["first_token"].isfinite().all()


def test_a_head_that_looks_one_back_is_a_previous_token_head():
    model = Microformer(model_of("gpt2").spec).eval()
    with torch.no_grad():  # a query asks for the position before its own, by eight directions for eight positions
        for parameter in model.blocks[0].attention.parameters():
            parameter.zero_()
        model.positions.table.weight.zero_()
        model.positions.table.weight[:, :8] = 50 * torch.eye(8)
        model.embed.weight.mul_(1e-3)
        W_Q, W_K, _ = model.blocks[0].attention.W_QKV.weight.split(16)
        for head in range(4):  # heads are 4 wide: two directions tell eight places by an angle
            angle = 0.7 * torch.arange(8.0)
            W_K[4 * head : 4 * head + 2, :8] = torch.stack([angle.cos(), angle.sin()])
            W_Q[4 * head : 4 * head + 2, :8] = torch.stack([(angle - 0.7).cos(), (angle - 0.7).sin()])
        W_Q.mul_(50)
    scores = head_scores(model)

    assert (scores["previous_token"][0] > 0.9).all()
    assert (scores["duplicate_token"][0] < 0.1).all()
    assert (scores["entropy"][0] < 0.3).all()


def test_entropy_is_that_of_a_distribution_in_nats():
    even = torch.full((4, 4), 0.25)

    assert_close(pattern_entropy(even), torch.full((4,), 4.0).log())
    assert_close(pattern_entropy(torch.eye(4)), torch.zeros(4))
    assert_close(pattern_entropy(2 * even - 0.0), torch.full((4,), 4.0).log())


def test_a_model_whose_heads_show_nothing_says_so(monkeypatch):
    model = Microformer(model_of("usual").spec).eval()
    monkeypatch.setattr(type(model.blocks[0].attention.kernel), "tap_names", ())

    with pytest.raises(TraceError, match="no head of this model shows a pattern"):
        head_scores(model)


# -------------------------------------------------------------------------------------------------------- knock-outs


def test_the_map_is_the_loss_without_each_part_less_the_loss_with_it(kind):
    made = seen(kind, "L0H2 x2", "L1H0 mean")
    found = knock_out_map(made)

    def without(part):
        words = [str(one) for one in made.edits]
        return edited(made, [*words, f"{part} zero"]).losses.mean() - made.losses.mean()

    assert found.heads.shape == (made.model.spec.depth, 4)
    for layer in range(2):
        assert_close(found.heads[layer, 1], without(f"L{layer}H1"), rtol=0, atol=1e-5)
        assert_close(found.attn[layer], without(f"L{layer}.attn"), rtol=0, atol=1e-5)
        assert_close(found.mlps[layer], without(f"L{layer}.mlp"), rtol=0, atol=1e-5)


def test_a_map_that_nobody_waits_for_is_not_made(kind):
    asked = []

    assert knock_out_map(seen(kind), stop=lambda: len(asked) == 1 or asked.append(1)) is None
    assert asked == [1]


def test_one_token_alone_has_nothing_to_lose():
    with pytest.raises(TraceError, match="one token alone has no loss"):
        knock_out_map(trace(model_of("usual"), [1]))


def test_an_effect_is_0_without_an_edit_and_starts_where_the_text_differs():
    plain, changed = seen("usual"), seen("usual", "L0H1 zero")
    none, some = effect(plain, seen("usual")), effect(plain, changed)

    assert (none.kl == 0).all()
    assert torch.equal(none.before, none.after)
    assert (some.kl > 0).all()
    p, q = plain.logits.softmax(-1), changed.logits.softmax(-1)
    assert_close(some.kl, (p * (p / q).log()).sum(-1), rtol=1e-3, atol=1e-6)
    with pytest.raises(TraceError, match="different texts"):
        effect(plain, trace(model_of("usual"), [1, 2]))


# ---------------------------------------------------------------------------------------------------------- circuits


def test_a_qk_table_is_what_heads_of_the_first_layer_score_where_there_are_no_positions():
    made = seen("sparsemax, entmax")
    ids, lower = made.ids, torch.ones(8, 8).tril().bool()

    for head in range(4):
        table = qk_table(made.model, 0, head)
        assert table.shape == (VOCAB, VOCAB)
        assert_close(table[ids][:, ids][lower], made.scores(0)[head][lower])
    assert_close(qk_table(made.model, 0, 1, tokens=[3, 4]), qk_table(made.model, 0, 1)[3:5, 3:5])


def test_an_ov_table_is_what_a_head_that_looks_at_a_token_alone_adds_to_the_logits():
    model = model_of("usual")
    one = trace(model, [5])  # a text of one token, which every head looks at alone
    scale = (one.cache["resid_post", 1][0].square().mean() + model.norm.eps).sqrt()
    labels, _ = direct_logit_attribution(one, 0, 0)

    for out in range(VOCAB):
        value = direct_logit_attribution(one, 0, out)[1][labels.index("L0H2")]
        assert_close(ov_table(model, 0, 2)[5, out] / scale, value)


def test_tables_say_what_they_can_not_be():
    model = model_of("usual")
    with pytest.raises(TraceError, match="no head 4"):
        qk_table(model, 0, 4)
    with pytest.raises(TraceError, match="no layer 2"):
        ov_table(model, 2, 0)
    with pytest.raises(TraceError, match="no token 11"):
        ov_table(model, 0, 0, tokens=[11])
    with pytest.raises(TraceError, match="compares no pairs"):
        qk_table(model_of("linear"), 0, 0)


def test_weights_are_those_of_every_head(kind):
    model, made = model_of(kind), seen(kind)
    w, cache = Weights(model), made.cache
    block = model.blocks[0]
    read = block.residual_1.read(cache["resid_pre", 0])[0]

    for name, matrix, bias in (("q", w.W_Q, w.b_Q), ("k", w.W_K, w.b_K), ("v", w.W_V, w.b_V)):
        made_of = cache[name, 0][0]
        shared = 4 // made_of.shape[1]
        assert matrix.shape == (model.spec.depth, 4, 16, 4)
        expected = torch.einsum("pm,hmd->phd", read, matrix[0]) + bias[0]
        assert_close(expected, made_of.repeat_interleave(shared, dim=1))
    assert w.W_O.shape == (model.spec.depth, 4, 4, 16)
    assert (w.W_E.shape, w.W_U.shape) == ((VOCAB, 16), (16, VOCAB))


def test_weights_that_a_model_does_not_have_are_told():
    for ask, told in (
        (lambda: Weights(model_of("usual")).W_pos, "no table of positions"),
        (lambda: Weights(model_of("usual")).W_gate, "MLP has no W_gate"),
        (lambda: Weights(model_of("differential")).W_in, "differ in shape"),
    ):
        with pytest.raises(TraceError, match=told):
            ask()
    assert Weights(model_of("linear")).W_gate.shape == (2, 16, 24)
