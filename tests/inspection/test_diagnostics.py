"""Diagnostics: a model with a fault is told with its layer; one without is not."""

import math
from collections import deque
from pathlib import Path

import pytest
import torch
from small_runs import book, resume, stopped_at, train, without_picture_and_sample

from microformer.inspection import diagnostics
from microformer.inspection.diagnostics import Diagnosing, changed, look, silent_units, spikes, vanished
from microformer.models.model import Microformer
from microformer.settings import Settings, model_spec
from microformer.training.loop import Loop
from microformer.training.norms import Norms

CONTEXT = 16
SMALL = {"embed_dim": 16, "num_heads": 2, "num_layers": 3, "ff_dim": 32, "max_seq_len": CONTEXT, "init": "normal"}


def model(**kind):
    return Microformer(model_spec(Settings().changed({**SMALL, **kind}), 30), seed=1).eval()


def text(length=1000):
    return torch.randint(30, (length,), generator=torch.Generator().manual_seed(1))


def found(model_):
    return [one.sentence for one in look(model_, diagnostics.texts(text(), CONTEXT))]


@pytest.mark.parametrize(
    "kind",
    [
        {}, {"feedforward": "relu"}, {"feedforward": "relu2"}, {"feedforward": "gelu"}, {"feedforward": "moe"},
        {"init": "zero"}, {"init": "scaled"}, {"norm_placement": "post"}, {"norm_placement": "sandwich"},
        {"attention": "sparsemax"}, {"attention": "entmax15"}, {"attention": "linear", "positions": "none"},
        {"attention": "differential"}, {"attention": "window(8)"}, {"qk_norm": False}, {"parallel": True},
        {"loops": 3}, {"memory": "recurrent(tokens=2)"}, {"memory": "compressive"}, {"residual_scalars": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_healthy_model_of_any_kind_is_silent(kind):
    assert found(model(**kind)) == []


@torch.no_grad()
@pytest.mark.parametrize("feedforward", ["relu", "relu2", "gelu", "swiglu"])
def test_units_that_are_silent_for_every_token_are_counted_and_their_layer_named(feedforward):
    broken = model(feedforward=feedforward, bias=True)
    part = broken.blocks[1].feedforward
    gate = part.W_gate if feedforward == "swiglu" else part.W_in
    gate.bias[:20] = -30.0

    assert found(broken) == ["layer 1: 20 of its 32 units are silent for every one of 992 tokens."]


@torch.no_grad()
def test_an_expert_that_is_never_chosen_is_silent_as_a_whole():
    broken = model(feedforward="moe(4, 1)", bias=True)
    # Everything is sent to the first expert.
    broken.blocks[2].residual_2.norm.register_forward_hook(lambda module, given, out: out.abs() + 1)
    router = broken.blocks[2].feedforward.W_router.weight
    router.zero_()
    router[0] = 1.0

    assert "layer 2: 96 of its 128 units are silent for every one of 992 tokens." in found(broken)


def test_a_unit_that_speaks_once_is_not_silent():
    post = torch.zeros(2, 8, 4)
    post[0, 0, 0] = 1.0
    post[1, 7, 1] = -0.5

    assert silent_units(post).tolist() == [False, False, True, True]
    assert silent_units(torch.zeros(2, 8, 4)).all()


@torch.no_grad()
def test_heads_that_look_at_one_token_alone_are_named():
    broken = model(qk_norm=False, positions="none")
    attention = broken.blocks[1].attention
    queries = attention.W_QKV.weight[: 2 * 8]
    queries[8:] *= 1e5  # the second head's

    # No token comes twice: two of a kind would share.
    different = torch.stack(
        [torch.randperm(30, generator=torch.Generator().manual_seed(i))[:CONTEXT] for i in range(9)]
    )
    (told,) = look(broken, different)
    assert told.sentence == "layer 1: its head 1 looks at one token alone, wherever in the text (entropy below 0.05)."
    queries[:8] *= 1e5
    assert look(broken, different)[0].sentence.startswith("layer 1: its heads 0, 1 look at one token alone")


@torch.no_grad()
def test_a_stream_that_explodes_or_vanishes_is_told_with_the_first_layer_at_which_it_does():
    broken = model()
    broken.blocks[1].feedforward.W_out.weight.fill_(1000.0)
    (told,) = found(broken)
    assert told.startswith("layer 1: the stream grows to ")

    broken = model(residual_scalars=True)
    for one in (broken.blocks[2].residual_1, broken.blocks[2].residual_2):
        for scalar in one.parameters(recurse=False):
            scalar.fill_(1e-3)
    assert any(line.startswith("layer 2: the stream vanishes to ") for line in found(broken)), found(broken)


def test_gradients_that_explode_or_vanish_name_their_layer():
    usual = {"embed": 0.1, "blocks.0": 1.0, "blocks.1": 1.0, "unembed": 0.5}
    recent = {part: [norm] * 10 for part, norm in usual.items()}

    assert spikes(usual, recent) == []
    assert spikes({**usual, "blocks.1": 50.0}, {part: [norm] * 5 for part, norm in usual.items()}) == []  # too early
    (told,) = spikes({**usual, "blocks.1": 50.0}, recent)
    assert told.sentence == "layer 1: its gradient explodes: norm 50, 50 times what is usual here."
    assert vanished(usual) == []
    (told,) = vanished({**usual, "blocks.0": 1e-5})
    assert told.sentence == "layer 0: its gradient vanishes: norm 1e-05, and 1 elsewhere."
    assert vanished(dict.fromkeys(usual, 0.0)) == []  # all is learned


def test_weights_that_grow_or_shrink_out_of_bounds_name_their_layer():
    first = {"embed": 10.0, "blocks.0": 3.0, "unembed": 0.0}

    assert changed({"embed": 12.0, "blocks.0": 9.0, "unembed": 5.0}, first) == []
    (told,) = changed({"embed": 12.0, "blocks.0": 36.0}, first)
    assert told.sentence == "layer 0: its weights grow to 12 times their first norm, 3."
    (told,) = changed({"embed": 0.1, "blocks.0": 3.0}, first)
    assert told.sentence == "embed: its weights shrink to 0.01 times their first norm, 10."


def test_a_finding_is_told_once_and_again_when_it_is_twice_as_bad():
    told = []
    watched = model(feedforward="relu", bias=True)
    norms = Norms(watched)
    one = Diagnosing(watched, diagnostics.texts(text(), CONTEXT), norms, 10, lambda *what: told.append(what))
    bias = watched.blocks[0].feedforward.W_in.bias
    for step, silent in ((10, 5), (20, 5), (30, 8), (40, 10), (50, 32)):
        with torch.no_grad():
            bias[:silent] = -30.0
        one.on_step(step - 1, 0.5, 0.0)
        one.on_step(step, 0.5, 0.0)

    assert [(step, sentence.split(" units")[0]) for step, sentence in told] == [
        (10, "layer 0: 5 of its 32"), (40, "layer 0: 10 of its 32"), (50, "layer 0: 32 of its 32"),
    ]  # fmt: skip
    again = Diagnosing(watched, one.ids, norms, 10, lambda *what: told.append(what))
    again.load_state_dict(one.state_dict())
    again.on_step(60, 0.5, 0.0)
    assert len(told) == 3


def test_looking_puts_everything_back():
    watched = model(dropout=0.5).train()
    watched.compute_dtype = torch.bfloat16
    before, state = {k: v.clone() for k, v in watched.state_dict().items()}, torch.get_rng_state()

    look(watched, diagnostics.texts(text(), CONTEXT))

    assert watched.training
    assert watched.compute_dtype == torch.bfloat16
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], one) for name, one in watched.state_dict().items())


def test_a_look_that_fails_is_told_once_and_that_is_all(capsys, monkeypatch):
    def broken(*_):
        raise ValueError("broken")

    monkeypatch.setattr(diagnostics, "look", broken)
    watched = model()
    one = Diagnosing(watched, diagnostics.texts(text(), CONTEXT), Norms(watched), 10)
    for step in (10, 20, 30):
        one.on_step(step, 0.5, 0.0)

    assert capsys.readouterr().err == "note: diagnostics failed and are off from here on: ValueError: broken\n"


def test_texts_are_from_all_over_and_no_more_than_there_is():
    assert diagnostics.texts(text(100_000), 128).shape == (8, 128)
    assert diagnostics.texts(text(100_000), 4096).shape == (4, 256)
    assert diagnostics.texts(text(100), 64).shape == (1, 64)
    assert diagnostics.texts(text(20), 64).shape == (1, 20)


# ------------------------------------------------------------------------------------------------------ in a training


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(book())
    without_picture_and_sample(monkeypatch)


def said(capsys):
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("note: step ")]


def test_a_healthy_training_says_nothing(here, capsys):
    assert train("--run", "r", diagnostics=True, probe_steps=20, max_steps=60, num_layers=2, log_every=5) == 0

    assert said(capsys) == []


def test_a_training_that_breaks_says_where_once(here, capsys, monkeypatch):
    real = Loop._step

    def broken(loop, progress):
        real(loop, progress)
        with torch.no_grad():
            loop.model.blocks[1].feedforward.W_in.bias.fill_(-30.0)

    monkeypatch.setattr(Loop, "_step", broken)
    kind = {"feedforward": "relu", "bias": True, "num_layers": 2}
    assert train("--run", "r", diagnostics=True, probe_steps=10, max_steps=40, eval_every=10, **kind) == 0

    told = said(capsys)
    assert told == ["note: step 10, layer 1: 32 of its 32 units are silent for every one of 608 tokens."]


def test_what_was_told_is_not_told_again_after_a_resume(here, capsys, monkeypatch):
    kind = {"feedforward": "relu", "bias": True, "num_layers": 2}
    real = diagnostics.look

    def look_(model_, ids):
        with torch.no_grad():
            model_.blocks[1].feedforward.W_in.bias.fill_(-30.0)
        return real(model_, ids)

    monkeypatch.setattr(diagnostics, "look", look_)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stopped_at(25))
        train("--run", "r", diagnostics=True, probe_steps=10, max_steps=40, eval_every=10, **kind)
    before = said(capsys)
    assert len([line for line in before if "silent" in line]) == 1
    assert resume("--run", "r") == 0
    assert said(capsys) == []


def test_norms_are_remembered_over_a_resume_as_plain_numbers():
    watched = model()
    one = Diagnosing(watched, diagnostics.texts(text(), CONTEXT), Norms(watched), 10)
    one.recent = {"embed": deque([1.0, 2.0], maxlen=20)}
    one.first = {"embed": 3.0}
    other = Diagnosing(watched, one.ids, one.norms, 10)
    other.load_state_dict(one.state_dict())

    assert other.recent == one.recent
    assert other.recent["embed"].maxlen == 20
    assert other.first == one.first
    assert math.isfinite(sum(other.recent["embed"]))


def test_norms_of_logged_rows_are_looked_at(monkeypatch):
    told = []
    watched = model()
    norms = Norms(watched)
    one = Diagnosing(watched, diagnostics.texts(text(), CONTEXT), norms, 1000, lambda *what: told.append(what))
    usual = {f"{what}/{part}": 1.0 for what in ("grad_norm", "weight_norm") for part in norms.parts}
    for step in range(10, 210, 10):
        norms.read = (step, {**usual, "grad_norm/blocks.2": 45.0 if step >= 150 else 1.0})
        one.on_row({"step": step})
    one.on_row({"step": 215})  # a validation alone has no norms

    assert told == [(150, "layer 2: its gradient explodes: norm 45, 45 times what is usual here.")]
