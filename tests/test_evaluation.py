"""Evaluation: the exact loss, against an oracle that scores one token at a time."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from microformer import baselines, evaluation
from microformer.baselines import uniform, unigram
from microformer.errors import DataError
from microformer.evaluation import Loss, evaluate
from microformer.models.grammar import one
from microformer.models.model import Microformer, Output, token_losses
from microformer.models.spec import MEMORY, Gelu, LayerSpec, Learned, ModelSpec, RMSNorm, Rope, Softmax

VOCAB, CONTEXT = 11, 6


def small_model(context=CONTEXT) -> Microformer:
    layers = (LayerSpec(Softmax(), Gelu()),)
    model = Microformer(ModelSpec(VOCAB, 16, 2, 24, context, layers, Learned(), RMSNorm())).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def random_ids(length, dtype=torch.long):
    return torch.randint(VOCAB, (length,), generator=torch.Generator().manual_seed(2)).to(dtype)


@torch.no_grad()
def token_by_token(model, ids, prime, context):
    """Each token's own forward pass over exactly what it may see."""
    text = ids.tolist() if prime is None else [prime, *ids.tolist()]
    length = model.spec.max_seq_len
    past = 0 if context == "blocks" else length // 2
    total = 0.0
    for scored in range(len(text) - 1):  # the prediction of text[scored + 1]
        begin = scored // (length - past) * (length - past)
        seen = text[max(0, begin - past) : scored + 1]
        total -= float(model(torch.tensor([seen])).logits[0, -1].log_softmax(-1)[text[scored + 1]])
    return total / (len(text) - 1)


@pytest.mark.parametrize("context", ["blocks", "sliding"])
@pytest.mark.parametrize("length", [1, 2, 3, 6, 7, 13, 30])
@pytest.mark.parametrize("prime", [None, 4])
def test_the_loss_is_that_of_scoring_one_token_at_a_time(context, length, prime):
    model, ids = small_model(), random_ids(length + (prime is None))

    expected = token_by_token(model, ids, prime, context)
    for tokens_at_once in (1, 12, 10_000):
        loss = evaluate(model, ids, prime, context=context, tokens_at_once=tokens_at_once)

        assert loss.nats_per_token == pytest.approx(expected, rel=1e-5)
        assert loss.tokens == length


@pytest.mark.parametrize("max_seq_len", [1, 2, 5])
@pytest.mark.parametrize("context", ["blocks", "sliding"])
def test_contexts_of_any_length_are_scored_exactly(max_seq_len, context):
    model, ids = small_model(max_seq_len), random_ids(17)

    loss = evaluate(model, ids, 0, context=context)

    assert loss.nats_per_token == pytest.approx(token_by_token(model, ids, 0, context), rel=1e-5)


@pytest.mark.parametrize("context", ["blocks", "sliding"])
@pytest.mark.parametrize("length", [1, 3, 6, 7, 23, 24, 25])
def test_every_token_is_scored_exactly_once_with_the_one_before_it_as_the_last_seen(monkeypatch, context, length):
    text, read = torch.arange(1, length + 1), []  # each token says where it stands

    class Reader(Microformer):
        def forward(self, ids, state=None, tap=None):
            read.append(ids)
            return super().forward(ids * 0)

    def countable(logits, targets):
        assert torch.equal(read[-1][:, -targets.shape[1] :], targets - 1)
        return 4.0 ** targets.double()  # in base 4 the sum counts each token in a digit of its own

    monkeypatch.setattr(evaluation, "token_losses", countable)
    loss = evaluate(Reader(small_model().spec).eval(), text, 0, context=context, tokens_at_once=12)

    assert round(loss.nats_per_token * loss.tokens) == sum(4**token for token in text.tolist())


def test_sliding_sees_more_and_a_token_never_sees_itself():
    model = small_model()
    with torch.no_grad():  # a model that repeats what it just read
        for parameter in model.parameters():
            parameter.zero_()
        model.norm.gain.fill_(10.0)
        model.embed.weight.copy_(torch.eye(VOCAB, 16))
        model.unembed.weight.copy_(torch.eye(VOCAB, 16))
    repeating, other = torch.full((20,), 3), torch.arange(20) % VOCAB

    for context in ("blocks", "sliding"):
        assert evaluate(model, repeating, 3, context=context).nats_per_token < 0.01
        assert evaluate(model, other, 10, context=context).nats_per_token > 5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_a_memory_mapped_text_in_any_integer_type_gives_the_same_loss(tmp_path, dtype):
    ids = random_ids(50, dtype)
    torch.save(ids, tmp_path / "val.pt")
    mapped = torch.load(tmp_path / "val.pt", mmap=True, weights_only=True)
    assert mapped.dtype == dtype

    for context in ("blocks", "sliding"):
        assert evaluate(small_model(), mapped, 1, context=context) == evaluate(
            small_model(), ids.long(), 1, context=context
        )
    assert unigram(mapped, mapped, VOCAB) == unigram(ids.long(), ids.long(), VOCAB)


@pytest.mark.parametrize(("ids", "prime"), [([], 3), ([], None), ([3], None)], ids=str)
def test_a_text_without_a_token_to_score_is_refused(ids, prime):
    with pytest.raises(DataError, match="too short"):
        evaluate(small_model(), torch.tensor(ids, dtype=torch.long), prime)


def test_the_models_mode_is_left_as_it_is_and_no_gradient_is_kept():
    model = small_model().train()
    evaluate(model, random_ids(20), 0)

    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2, 5, CONTEXT])
def test_a_sliding_context_moves_on_by_the_stride_that_is_asked_for(stride):
    model, ids = small_model(), random_ids(70)

    found = evaluate(model, ids, 3, context="sliding", stride=stride)

    text = torch.cat([torch.tensor([3]), ids])
    losses = []
    for at in range(len(ids)):
        begin = at // stride * stride
        first = max(0, begin - (CONTEXT - stride))
        logits = model(text[None, first : at + 1]).logits[0, -1]
        losses.append(-float(logits.log_softmax(-1)[ids[at]]))
    assert found.nats_per_token == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert found.each.tolist() == pytest.approx(losses, abs=1e-4)


@pytest.mark.parametrize(("context", "stride"), [("blocks", 4), ("sliding", 0), ("sliding", 7)])
def test_a_stride_that_can_not_be_is_refused(context, stride):
    with pytest.raises(DataError, match=f"a stride of {stride} can't be"):
        evaluate(small_model(), random_ids(70), 3, context=context, stride=stride)


def test_figures_follow_from_the_loss():
    loss = Loss(nats_per_token=math.log(8), tokens=100)

    assert loss.perplexity == pytest.approx(8)
    assert loss.bits_per(100) == pytest.approx(3)
    assert loss.bits_per(300) == pytest.approx(1)  # a token of three characters


def test_knowing_nothing_costs_the_logarithm_of_the_vocabulary():
    untrained = Microformer(small_model().spec).eval()

    assert uniform(65) == pytest.approx(math.log(65))
    assert evaluate(untrained, random_ids(40), 0).nats_per_token == pytest.approx(uniform(VOCAB), rel=1e-6)


def test_knowing_frequencies_alone_is_the_entropy_with_one_added_to_each_count():
    train, ids = torch.tensor([0, 0, 0, 1, 2], dtype=torch.uint8), torch.tensor([0, 1, 3])
    by_hand = -(math.log(4 / 9) + math.log(2 / 9) + math.log(1 / 9)) / 3

    assert unigram(train, ids, 4) == pytest.approx(by_hand)
    assert_close(unigram(random_ids(100_000), random_ids(100_000), VOCAB), uniform(VOCAB), rtol=1e-3, atol=0)


def test_counts_in_pieces_are_those_of_the_whole():
    ids = random_ids(1000)

    counts = baselines._counts(ids, VOCAB, piece=7)

    assert counts.tolist() == np.bincount(ids.numpy(), minlength=VOCAB).tolist()


# ---------------------------------------------------------------------------------------------------------- memory


def remembering(memory="xl(6)", context=6):
    layers = (LayerSpec(Softmax(), Gelu()),) * 2
    model = Microformer(
        ModelSpec(VOCAB, 16, 2, 24, context, layers, Rope(), RMSNorm(), memory=one(memory, MEMORY, "MEMORY"))
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model.eval()


@pytest.mark.parametrize("memory", ["xl(6)", "compressive(3, 4, 2)", "recurrent(2)", "knn(20, 3)"])
def test_a_model_with_a_memory_is_scored_as_it_reads_on(memory):
    model, ids = remembering(memory), random_ids(50)
    with torch.no_grad():
        logits = model(torch.cat([torch.tensor([3]), ids[:-1]])[None]).logits[0]

    loss = evaluate(model, ids, 3)

    assert loss.tokens == 50
    assert loss.nats_per_token == pytest.approx(torch.nn.functional.cross_entropy(logits, ids).item(), rel=1e-5)


def test_long_texts_are_read_in_stretches_each_token_once(monkeypatch):
    model = remembering()
    length = 6 * 64 * 3 + 17
    text, scored = torch.arange(length), []
    monkeypatch.setattr(
        Microformer, "forward", lambda self, ids, state=None, tap=None: Output(ids[..., None].float(), state, 0.0)
    )
    monkeypatch.setattr(
        evaluation, "token_losses", lambda logits, targets: scored.append((logits[..., 0], targets)) or targets * 0.0
    )

    evaluate(model, text, -1)

    read, targets = (torch.cat([pair[i].flatten() for pair in scored]) for i in (0, 1))
    assert sorted(targets.tolist()) == list(range(length))
    assert torch.equal(read.long(), targets - 1)


def test_a_model_with_a_memory_has_no_sliding_context():
    with pytest.raises(DataError, match="no sliding context"):
        evaluate(remembering(), random_ids(50), 3, context="sliding")


def test_of_a_task_only_what_counts_is_scored_and_an_example_is_right_where_all_of_it_is(monkeypatch):
    """Ten examples of six tokens whose last two count; the stand-in knows every token but two."""
    ids = torch.arange(60) % VOCAB
    wrong = {3 * 6 + 5, 7 * 6 + 1}  # the one counts, the other doesn't

    def knowing(self, read, state=None, tap=None):
        at = knowing.at[: read.numel()].view_as(read)
        knowing.at = knowing.at[read.numel() :]
        logits = 50 * torch.nn.functional.one_hot((read + 1) % VOCAB, VOCAB).float()
        for place in wrong:
            logits[at == place - 1] = logits[at == place - 1].roll(1, -1)
        return Output(logits, state, 0.0)

    knowing.at = torch.arange(59)
    monkeypatch.setattr(Microformer, "forward", knowing)

    loss = evaluate(small_model(), ids, 9, counted=torch.arange(60) % 6 >= 4, example=6)

    assert loss.tokens == 20
    assert loss.exact_match == pytest.approx(0.9)
    assert loss.nats_per_token == pytest.approx(50 / 20, rel=1e-3)


@torch.no_grad()
def test_the_mean_over_places_is_the_whole_loss_and_each_place_is_that_of_its_tokens():
    model, ids = small_model(), random_ids(4 * CONTEXT + 3)
    found = evaluate(model, ids, 0)

    inputs = torch.cat([torch.zeros(1, dtype=torch.long), ids[:-1].long()])
    first = [
        float(token_losses(model(inputs[None, at : at + 1]).logits, ids[None, at : at + 1].long()))
        for at in range(0, len(ids), CONTEXT)
    ]
    counts = [5 if place < 3 else 4 for place in range(CONTEXT)]
    assert found.by_position[0] == pytest.approx(sum(first) / 5, rel=1e-5)
    weighted = sum(loss * count for loss, count in zip(found.by_position, counts, strict=True))
    assert weighted / sum(counts) == pytest.approx(found.nats_per_token, rel=1e-6)
    assert evaluate(model, ids, 0, context="sliding").by_position == ()


def test_the_standard_error_is_that_of_blocks_and_falls_with_their_number():
    model = small_model()
    few, many = (evaluate(model, random_ids(count * CONTEXT), 0) for count in (8, 128))

    blocks = random_ids(8 * CONTEXT).long().view(8, CONTEXT)
    inputs = torch.cat([torch.zeros(1, dtype=torch.long), blocks.flatten()[:-1]]).view(8, CONTEXT)
    with torch.no_grad():
        means = token_losses(model(inputs).logits, blocks).mean(1).double()
    assert few.standard_error == pytest.approx(float(means.std() / 8**0.5), rel=1e-5)
    assert many.standard_error < 0.5 * few.standard_error
    assert evaluate(model, random_ids(CONTEXT), 0).standard_error is None
