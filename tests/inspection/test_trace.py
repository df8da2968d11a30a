"""A trace is what the model did: its parts add up, and its patterns stand where the text's tokens do."""

import math

import pytest
import torch
from small_models import CONTEXT, KINDS, SUMMED, VOCAB, model_of, text_of
from torch.testing import assert_close

from microformer.inspection import Activations, HookPoint, TraceError, run_with_cache, run_with_hooks, trace
from microformer.inspection.trace import spelled
from microformer.models.model import Microformer
from microformer.models.taps import TapError
from microformer.tokenization import train as tokenizer_of

PRE = [kind for kind in KINDS if KINDS[kind].get("norm_placement", "pre") == "pre" and "loops" not in KINDS[kind]]
# In the others memory tokens, means of keys or a store take part, which are not the text's.
MADE_OF_VALUES = [kind for kind in SUMMED if kind not in ("knn", "recurrent", "tokens", "compressive")]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def seen(kind):
    return trace(model_of(kind), text_of(kind))


def test_a_trace_has_the_logits_and_losses_of_the_model(kind):
    made, ids = seen(kind), text_of(kind)
    with torch.no_grad():
        logits = model_of(kind)(ids[None]).logits[0]

    assert_close(made.logits, logits)
    assert_close(made.losses, -logits.log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0])
    assert made.tokens == [str(one) for one in ids.tolist()]


@pytest.mark.parametrize("kind", PRE)
def test_what_each_half_says_is_what_the_stream_grows_by(kind):
    cache, spec = seen(kind).cache, model_of(kind).spec

    assert_close(cache["embed"] + cache.get("hook_pos_embed", 0), cache["resid_pre", 0])
    for layer in range(spec.depth):
        assert torch.equal(cache["resid_pre", layer] + cache["attn_out", layer], cache["resid_mid", layer])
        assert torch.equal(cache["resid_mid", layer] + cache["mlp_out", layer], cache["resid_post", layer])
    assert torch.equal(cache["resid_pre", -1], cache["resid_post", 0])


def test_every_activation_has_a_row_for_each_token_of_the_text(kind):
    made = seen(kind)

    assert set(made.cache) == set(model_of(kind).tap_names())
    for name, one in made.cache.items():
        assert one.shape[2 if name.endswith(("pattern", "attn_scores")) else 1] == len(made.ids), name


def test_no_query_looks_at_a_later_token(kind):
    made = seen(kind)
    for layer in range(made.model.spec.depth):
        pattern = made.pattern(layer)
        assert pattern.shape == (4, len(made.ids), len(made.remembered) + len(made.ids))
        assert (pattern[..., len(made.remembered) :].triu(1) == 0).all()
        assert (pattern != 0).any()


@pytest.mark.parametrize("kind", SUMMED)
def test_the_shares_of_a_query_sum_to_1(kind):
    made = seen(kind)
    for layer in range(made.model.spec.depth):
        assert_close(made.pattern(layer).sum(-1), torch.ones(4, len(made.ids)))


@pytest.mark.parametrize(
    "kind", [kind for kind in SUMMED if kind not in ("knn", "linear", "recurrent", "tokens", "compressive")]
)
def test_z_is_the_pattern_times_the_values_of_the_text_in_whichever_segment_they_stand(kind):
    made = seen(kind)
    for layer in range(made.model.spec.depth):
        v = made.cache["v", layer][0]
        v = v.repeat_interleave(4 // v.shape[1], dim=1)
        assert_close(torch.einsum("hqk,khd->qhd", made.pattern(layer), v), made.cache["z", layer][0])


def test_a_transformer_xl_sees_tokens_of_earlier_segments_in_their_own_columns():
    pattern = seen("xl").pattern(1)

    assert (pattern[:, CONTEXT, CONTEXT - 5 : CONTEXT + 1] > 0).all()
    assert (pattern[:, CONTEXT, : CONTEXT - 5] == 0).all()


def test_what_is_remembered_and_is_no_token_has_a_column_with_a_label():
    assert seen("tokens").remembered == ("memory 0", "memory 1")
    assert seen("recurrent").remembered == ("memory 0", "memory 1")
    pooled = seen("compressive")
    assert pooled.remembered[:2] == ("0–1", "2–3")
    assert (pooled.pattern(0)[:, CONTEXT:, :2] > 0).any()
    assert (pooled.pattern(0)[:, :CONTEXT, : len(pooled.remembered)] == 0).all()
    assert seen("usual").remembered == seen("xl").remembered == ()


def test_weighted_is_the_pattern_times_the_length_of_each_value(kind):
    made = seen(kind)
    for layer in range(made.model.spec.depth):
        v, offset = made.cache["v", layer][0].norm(dim=-1), len(made.remembered)
        lengths = v.repeat_interleave(4 // v.shape[1], dim=1).T[:, None]
        weighted = made.weighted(layer)
        assert weighted.shape == made.pattern(layer).shape
        assert_close(weighted[..., offset:], made.pattern(layer)[..., offset:] * lengths)
        assert not offset or (weighted[..., :offset] != 0).any()


def test_scores_are_what_softmax_made_the_pattern_of_and_say_so_where_there_are_none():
    made = seen("usual")
    assert_close(made.scores(0).softmax(-1), made.pattern(0))

    with pytest.raises(TraceError, match=r"layer 1 has no scores: LinearAttention sums keys and values up"):
        seen("linear").scores(1)
    with pytest.raises(TraceError, match=r"two sets of scores"):
        seen("differential").scores(0)
    with pytest.raises(TraceError, match=r"no layer 2"):
        made.pattern(2)


def test_a_kernel_that_shows_no_pattern_is_told_by_its_name(monkeypatch):
    model = Microformer(model_of("usual").spec).eval()
    monkeypatch.setattr(type(model.blocks[0].attention.kernel), "tap_names", ())
    monkeypatch.setattr(type(model.blocks[0].attention.kernel), "as_written", lambda self, q, k, v, *_: v)

    with pytest.raises(TraceError, match=r"layer 0 shows no pattern: Softmax has no hook_pattern"):
        trace(model, [1, 2]).pattern(0)


def test_of_a_text_longer_than_can_be_read_the_beginning_is_and_the_rest_is_counted():
    long = torch.arange(50) % VOCAB

    cut, carried = trace(model_of("usual"), long), trace(model_of("xl"), long)

    assert (len(cut.ids), cut.left_out) == (CONTEXT, 50 - CONTEXT)
    assert (len(carried.ids), carried.left_out) == (4 * CONTEXT, 50 - 4 * CONTEXT)
    assert torch.equal(cut.logits, trace(model_of("usual"), long[:CONTEXT]).logits)


def test_a_text_that_can_not_be_read_is_refused():
    for ids, told in (([], "no token"), ([1, VOCAB], f"no token {VOCAB}"), ([-1], "no token -1")):
        with pytest.raises(TraceError, match=told):
            trace(model_of("usual"), ids)
    with pytest.raises(TraceError, match="a model alone knows no text"):
        trace(model_of("usual"), "text")


def test_a_text_of_one_token_has_a_trace_and_no_loss():
    made = trace(model_of("usual"), [3])

    assert made.losses.shape == (0,)
    assert made.pattern(0).tolist() == [[[1.0]]] * 4


def test_weights_that_are_no_numbers_are_seen_as_such():
    model = Microformer(model_of("usual").spec).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    made = trace(model, [1, 2, 3], "L0H1 mean")

    assert made.logits.isnan().all()
    assert made.losses.isnan().all()
    assert made.pattern(0)[:, 1].isnan().any()
    assert "nan" in made._repr_html_()


# ------------------------------------------------------------------------------------------- activations and hooks


def test_only_the_names_that_were_asked_for_are_kept():
    model, ids = model_of("usual"), text_of("usual")[None]
    name = "blocks.1.hook_mlp_out"

    for asked in (name, [name], lambda one: one == name):
        assert list(run_with_cache(model, ids, asked)[1]) == [name]
    with pytest.raises(TapError, match=r"did you mean blocks.1.hook_mlp_out\?"):
        run_with_cache(model, ids, "blocks.1.hook_mlp_ot")
    with pytest.raises(TapError):
        run_with_cache(model, ids, lambda one: False)


def test_activations_have_their_short_names_too():
    cache = seen("usual").cache

    assert cache["pattern", 1] is cache["blocks.1.attn.hook_pattern"]
    assert cache["post", -1] is cache["blocks.1.mlp.hook_post"]
    assert cache["resid_mid", 0] is cache["blocks.0.hook_resid_mid"]
    assert cache["normalized"] is cache["ln_final.hook_normalized"]
    with pytest.raises(TraceError, match=r"\('pattern', 7\) was not kept"):
        cache["pattern", 7]
    with pytest.raises(TraceError, match="was not kept"):
        Activations({})["embed"]


def test_a_hook_changes_what_it_gives_back_or_writes_into():
    model, ids = model_of("usual"), text_of("usual")
    layers = []

    def give(value, hook):
        layers.append(hook.layer())
        return 0 * value

    def write(value, hook):
        assert isinstance(hook, HookPoint)
        value[:] = 0

    given = run_with_hooks(model, ids, [(lambda name: name.endswith("hook_z"), give)])
    written = run_with_hooks(model, ids, [([f"blocks.{i}.attn.hook_z" for i in range(2)], write)])

    assert layers == [0, 1]
    assert torch.equal(given, written)
    assert not torch.allclose(given, model(ids[None]).logits)
    assert torch.equal(run_with_hooks(model, ids, [("hook_embed", lambda value, hook: None)]), model(ids[None]).logits)


def test_a_hook_of_what_the_model_does_not_have_is_an_error():
    with pytest.raises(TapError, match="no activation 'hook_pos_embed'"):
        run_with_hooks(model_of("usual"), text_of("usual"), [("hook_pos_embed", lambda value, hook: value)])


def test_gradients_flow_where_the_caller_keeps_them():
    cache = run_with_cache(model_of("usual"), text_of("usual"), "blocks.0.hook_resid_pre")[1]

    assert cache["resid_pre", 0].requires_grad
    assert not seen("usual").cache["resid_pre", 0].requires_grad


# ------------------------------------------------------------------------------------------------- tokens, notebook


def test_a_token_that_is_no_text_alone_is_shown_as_the_vocabulary_writes_it():
    tokenizer = tokenizer_of("byte", [""])
    ids = tokenizer.encode("aé").tolist()

    assert spelled(tokenizer, ids)[0] == "a"
    assert "\ufffd" not in "".join(spelled(tokenizer, ids))
    assert spelled(None, [3]) == ["3"]


def test_a_notebook_shows_a_trace_twice_and_fetches_nothing(kind):
    shown = seen(kind)._repr_html_()

    assert shown.count("<img") == 4 * model_of(kind).spec.depth
    assert "http" not in shown
    assert "<script" not in shown
    assert " id=" not in shown
