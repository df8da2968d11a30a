"""An edit does what its words say, to the part that they name, and to nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import KINDS, VOCAB, model_of, text_of
from torch.testing import assert_close

from microformer.generation import Sampler, stream
from microformer.inspection import Edit, EditError, TraceError, ablate, edited, parse, patch, tap_of, trace
from microformer.models.taps import TapError

SPEC = model_of("usual").spec
# What a recurrent memory writes at a segment's end is patched nowhere, and the next segment reads it.
PATCHED = [kind for kind in KINDS if kind != "recurrent"]
LAST = {kind: model_of(kind).spec.depth - 1 for kind in KINDS}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


heads = st.tuples(st.integers(0, 1), st.integers(0, 3)).map(lambda at: f"L{at[0]}H{at[1]}")
halves = st.sampled_from(["L0", "L1", "L0.attn", "L1.mlp"])
factors = st.floats(allow_nan=False, allow_infinity=False).map(lambda factor: f"x{factor!r}")


@given(
    st.tuples(heads, st.sampled_from(["zero", "mean", "solo"]) | factors)
    | st.tuples(halves, st.sampled_from(["zero", "mean"]) | factors)
)
def test_an_edit_is_spelled_as_it_is_read(words):
    edit = parse(" ".join(words), SPEC)

    assert parse(str(edit), SPEC) == edit
    assert edit.target == words[0]


def test_the_spelling_is_short():
    for words in ("L0H2 zero", "L1H0 x0.5", "L1H0 x2", "L0H1 x-1", "L1.attn mean", "L0 zero", "L0H3 solo"):
        assert str(parse(words, SPEC)) == words
    assert str(parse(" l0h2  ZERO ", SPEC)) == "L0H2 zero"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "is no edit"), ("L0H2", "is no edit"), ("H2 zero", "is no edit"), ("L2H0 zero", "no layer 2"),
        ("L0H4 zero", "no head 4"), ("L0.ff zero", r"no part 'ff'"), ("L0H1 zeros", r"did you mean zero\?"),
        ("L0H1 xnan", "nothing is called 'xnan'"), ("L0H1 x", "nothing is called 'x'"), ("L0 solo", "heard alone"),
        ("L0H1 xinf", "nothing is called"),
    ],
)  # fmt: skip
def test_what_is_no_edit_of_this_model_is_told(words, told):
    with pytest.raises(EditError, match=told):
        parse(words, SPEC)


def test_a_part_times_1_changes_no_bit(kind):
    plain = trace(model_of(kind), text_of(kind))
    once = edited(plain, ["L0H1 x1", f"L{LAST[kind]}.mlp x1", "L0 x1", f"L{LAST[kind]}.attn x1"])

    assert torch.equal(once.logits, plain.logits)


def test_an_edit_reaches_the_logits_and_nothing_before_it(kind):
    plain, last = trace(model_of(kind), text_of(kind)), LAST[kind]
    for words in ("L0H2 zero", f"L{last}H1 mean", "L0.attn mean", f"L{last}.mlp zero", "L0 x-0.5", f"L{last}H0 solo"):
        changed = edited(plain, words)
        assert not torch.allclose(changed.logits, plain.logits, atol=1e-5), words
        assert torch.equal(changed.cache["hook_embed"], plain.cache["hook_embed"])


def test_zero_mean_factor_and_solo_are_what_they_say():
    plain = trace(model_of("usual"), text_of("usual"))
    z = plain.cache["z", 0]

    def heads(words):
        return edited(plain, words).cache["z", 0]

    assert (heads("L0H2 zero")[:, :, 2] == 0).all()
    assert_close(heads("L0H2 mean")[0, :, 2], z[0, :, 2].mean(0).expand(8, -1))
    assert torch.equal(heads("L0H2 x0.5")[:, :, 2], 0.5 * z[:, :, 2])
    assert torch.equal(heads("L0H2 zero")[:, :, [0, 1, 3]], z[:, :, [0, 1, 3]])
    alone = heads("L0H2 solo")
    assert torch.equal(alone[:, :, 2], z[:, :, 2])
    assert (alone[:, :, [0, 1, 3]] == 0).all()
    two = heads(["L0H2 solo", "L0H1 solo", "L0H1 x2"])
    assert torch.equal(two[:, :, 1:3], torch.stack([2 * z[:, :, 1], z[:, :, 2]], dim=2))
    assert (two[:, :, [0, 3]] == 0).all()
    assert torch.equal(edited(plain, "L1 zero").cache["resid_post", 1], plain.cache["resid_pre", 1])


def test_writing_on_with_the_cache_gives_what_writing_without_gives(kind):
    seen = ablate(model_of(kind), text_of(kind)[:5], "L0H1 mean", "L0H2 zero", "L1.mlp x0.5", "L1H3 solo")

    def written(**options):
        return [one for (one,) in stream(seen.model, [seen.ids.tolist()], Sampler(1.0), 9, tap=seen.tap(), **options)]

    assert written() == written(use_cache=False)


def test_the_cached_logits_of_an_edited_text_are_those_of_reading_it_at_once():
    model, ids = model_of("gpt2"), text_of("gpt2")
    seen = ablate(model, ids, "L0H1 mean", "L1.mlp x0.5")
    state, rows = model.empty_state(), []
    with torch.no_grad():
        for one in ids:
            output = model(one.view(1, 1), state, seen.tap())
            state = output.state
            rows.append(output.logits[0, 0])

    assert_close(torch.stack(rows), seen.logits)


def test_a_mean_without_a_text_and_an_edit_that_never_fires_are_errors():
    mean, far = parse("L0H1 mean", SPEC), Edit(9, 0, "head", "zero")
    with pytest.raises(EditError, match='"L0H1 mean" needs a text'):
        tap_of([mean])
    with pytest.raises(TapError, match=r"blocks.9.attn.hook_z never fired"):
        _ = ablate(model_of("usual"), [1, 2], far).logits


# ----------------------------------------------------------------------------------------------------- patching


@pytest.mark.parametrize("kind", PATCHED)
def test_what_is_patched_everywhere_gives_the_others_answer(kind):
    model = model_of(kind)
    to, source = trace(model, text_of(kind)), trace(model, (text_of(kind) + 1) % VOCAB)

    assert_close(patch(to, source, "blocks.1.hook_resid_pre").logits, source.logits)
    assert not torch.allclose(to.logits, source.logits)


@pytest.mark.parametrize("kind", PATCHED)
def test_a_head_is_patched_at_the_positions_that_were_named(kind):
    model = model_of(kind)
    to, source = trace(model, text_of(kind)), trace(model, (text_of(kind) + 1) % VOCAB)
    z = patch(to, source, heads=["L0H1"], positions=[2, len(to.ids) - 1]).cache["z", 0][0]

    for position in range(len(to.ids)):
        for head in range(4):
            one = source if head == 1 and position in (2, len(to.ids) - 1) else to
            assert torch.equal(z[position, head], one.cache["z", 0][0, position, head])


def test_patches_add_up():
    model = model_of("usual")
    to, source = trace(model, text_of("usual")), trace(model, (text_of("usual") + 1) % VOCAB)
    one_by_one = patch(patch(to, source, heads=["L0H1"]), source, heads=["L0H2"])

    assert torch.equal(one_by_one.logits, patch(to, source, heads=["L0H1", "L0H2"]).logits)
    assert not torch.equal(one_by_one.logits, patch(to, source, heads=["L0H2"]).logits)


def test_what_can_not_be_patched_is_told():
    model = model_of("usual")
    to, shorter = trace(model, text_of("usual")), trace(model, [1, 2, 3])
    for arguments, told in (
        ({}, "nothing is named"), ({"heads": ["L0"]}, "'L0' is no head"), ({"heads": ["L0H1"]}, "8 and 3 tokens"),
        ({"heads": ["L0H1"], "positions": [3]}, "no position 3 in both"),
        ({"names": "blocks.0.attn.hook_pattern", "positions": [0]}, "keys are not the other's"),
    ):  # fmt: skip
        with pytest.raises(TraceError, match=told):
            patch(to, shorter, **arguments)
