"""Which road to the loss a training takes."""

import pytest
import torch

from microformer import devices, playback
from microformer.models.model import Microformer
from microformer.pipeline import fast_loss as fast_loss_of
from microformer.pipeline.fast_loss import fast_loss
from microformer.settings import Settings, model_spec

VOCAB = 11
CPU, CUDA = (devices.Compute(device, "float32", 1, "") for device in ("cpu", "cuda"))
CORES = devices.Compute("cpu", "float32", 3, "")
TARGETS = IDS = torch.randint(VOCAB, (2, 8), generator=torch.Generator().manual_seed(1))
MASK = torch.ones(2, 8, dtype=torch.bool)


@pytest.fixture
def taken(monkeypatch):
    """The roads that were taken, in the place of a compiler and a GPU."""
    roads = []

    def compiled(function, what):
        return lambda *arguments: roads.append("compiled") or function(*arguments)

    def recorded(function, weights, what):
        return lambda *arguments: roads.append("recorded") or function(*arguments)

    def shared(function, weights, cores, after):
        return lambda *arguments: roads.append(f"shared by {cores}, {after}") or function(*arguments)

    monkeypatch.setattr(devices, "compiled", compiled)
    monkeypatch.setattr(devices, "recorded", recorded)
    monkeypatch.setattr(playback, "with_gradient", lambda function, weights, after: recorded(function, weights, ""))
    monkeypatch.setattr(fast_loss_of, "shared", shared)
    return roads


def made(compute, masked=False, own=False, **given):
    settings = Settings().changed({"embed_dim": 16, "ff_dim": 16, "num_layers": 1, "max_seq_len": 8, **given})
    model = Microformer(model_spec(settings, VOCAB))
    return model, fast_loss(settings, model, compute, masked=masked, own=own)


def test_on_a_cpu_a_large_step_is_computed_as_it_stands(taken):
    assert made(CPU, batch_size=10**6)[1] is None


@pytest.mark.parametrize(
    ("compute", "compile", "roads"),
    [
        (CPU, False, ["recorded"]), (CPU, True, ["compiled"]),
        (CUDA, False, ["recorded"]), (CUDA, True, ["recorded", "compiled"]),
    ],
    ids=str,
)  # fmt: skip
def test_the_loss_is_recorded_or_compiled_or_both(taken, compute, compile, roads):
    model, loss = made(compute, compile=compile)

    assert loss(IDS, TARGETS, None, None)[0] == model.loss(IDS, TARGETS, None)
    assert taken == roads


@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_unlike_most_takes_the_plain_road(taken, masked):
    model, loss = made(CUDA, masked=masked)
    usual, other = (MASK, None) if masked else (None, MASK)

    assert loss(IDS, TARGETS, other, None)[0] == model.loss(IDS, TARGETS, other)
    assert taken == []
    loss(IDS, TARGETS, usual, None)
    assert taken == ["recorded"]


@pytest.mark.parametrize("compute", [CPU, CUDA], ids=["cpu", "cuda"])
@pytest.mark.parametrize("given", [{"own": True}, {"accumulate": 2}, {"memory": "xl(4)"}], ids=str)
def test_what_may_differ_from_step_to_step_is_not_recorded(taken, given, compute):
    assert made(compute, **given)[1] is None
    assert made(compute)[1] is not None


@pytest.mark.parametrize(
    ("batch", "road"),
    [(1, "recorded"), (10**4, "shared by 3, 200"), (10**6, "shared by 3, None")],
    ids=["small", "large enough to be shared", "too large to be recorded"],
)
def test_a_step_is_shared_among_the_cores_where_that_is_worth_it(taken, batch, road):
    model, loss = made(CORES, batch_size=batch)

    assert loss(IDS, TARGETS, None, None)[0] == model.loss(IDS, TARGETS, None)
    assert taken == [road]


def test_a_batch_that_cant_be_dealt_out_evenly_is_not_shared(taken):
    made(CORES, batch_size=4, max_seq_len=10**4)[1](IDS, TARGETS, None, None)

    assert taken == ["recorded"]


@pytest.mark.parametrize(("given", "count"), [({}, 0), ({"tie_embeddings": True}, 0), ({"loops": 3}, 2)], ids=str)
def test_what_a_token_goes_through_twice_counts_twice_and_a_matrix_that_is_looked_up_too_once(given, count):
    model, _ = made(CPU, **given)
    blocks = sum(one.numel() for one in model.blocks.parameters())
    once = blocks + sum(one.numel() for one in model.norm.parameters()) + VOCAB * 16

    assert fast_loss_of._for_a_token(model) == once + count * blocks


@pytest.mark.parametrize(
    "given",
    [
        {"dropout": 0.1}, {"attention_dropout": 0.1}, {"ngrams": 2, "ngram_dropout": 0.1}, {"feedforward": "moe"},
        {"own": True}, {"accumulate": 2}, {"memory": "xl(4)"}, {"compile": True},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_each_sequences_own_is_not_shared(taken, given):
    loss = made(CORES, batch_size=10**6, **given)[1]

    if loss is not None:
        loss(IDS, TARGETS, None, None)
    assert not [road for road in taken if road.startswith("shared")]


def test_experts_that_are_not_balanced_are_shared(taken):
    made(CORES, batch_size=10**6, feedforward="moe(4, 2, 0)")[1](IDS, TARGETS, None, None)

    assert taken == ["shared by 3, None"]
