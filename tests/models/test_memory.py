"""Memory: what goes over from segment to segment, by hand and through the whole model."""

import pytest
import torch
from torch.testing import assert_close

from microformer.errors import MicroformerError
from microformer.models.grammar import one
from microformer.models.memory import KNN, XL, Compressive, Retrieval
from microformer.models.model import Microformer
from microformer.models.spec import MEMORY, Gelu, LayerSpec, ModelSpec, RMSNorm, Rope, Softmax, Window
from microformer.models.state import KVCache, Positions, Retrieved, State

VOCAB, CONTEXT = 11, 8
CARRIED = ["xl(5)", "xl(20)", "compressive(3, 4, 2)", "recurrent(2)", "knn(20, 3)"]


def model_with(memory: str, **changes) -> Microformer:
    values = {"positions": Rope(), "norm": RMSNorm(), **changes}
    layers = tuple(LayerSpec(Softmax(), Gelu()) for _ in range(2))
    model = Microformer(ModelSpec(VOCAB, 16, 2, 24, CONTEXT, layers, memory=one(memory, MEMORY, "MEMORY"), **values))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def random_ids(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def numbered(*slots: float) -> KVCache:
    """Keys that say which they are; values are ten times that."""
    keys = torch.tensor(slots, dtype=torch.float32)[None, None, :, None]
    return KVCache(keys, 10 * keys)


@pytest.mark.parametrize("memory", CARRIED)
def test_what_was_said_in_an_earlier_segment_changes_what_is_expected_in_a_later_one(memory):
    model, ids = model_with(memory), random_ids(2, 2 * CONTEXT)
    other = ids.clone()
    other[0, CONTEXT - 2] = (other[0, CONTEXT - 2] + 1) % VOCAB

    before, after = model(ids).logits[:, CONTEXT:], model(other).logits[:, CONTEXT:]

    assert not torch.allclose(before[0], after[0], atol=1e-5)
    assert_close(before[1], after[1])


def test_without_a_memory_a_text_ends_with_the_context():
    for memory in ("none", "tokens(2)"):
        with pytest.raises(MicroformerError, match="9 tokens are more than the model's context of 8"):
            model_with(memory)(random_ids(1, CONTEXT + 1))


def test_xl_is_attention_to_the_last_keys_of_the_segments_before():
    """In one layer the memory is a window: the same model with so much context sees the same."""
    small, large = (
        Microformer(ModelSpec(VOCAB, 16, 2, 24, context, (LayerSpec(Softmax(), Gelu()),), Rope(), RMSNorm(), **more))
        for context, more in ((CONTEXT, {"memory": one(f"xl({CONTEXT})", MEMORY, "MEMORY")}), (2 * CONTEXT, {}))
    )
    with torch.no_grad():
        for one_, other in zip(small.parameters(), large.parameters(), strict=True):
            other.copy_(one_.normal_(0, 0.3, generator=torch.Generator().manual_seed(2)))
    ids = random_ids(2, 2 * CONTEXT)

    assert_close(small(ids).logits, large(ids).logits, rtol=1e-4, atol=1e-5)


def test_xl_keeps_the_last_keys_and_their_slots():
    state = State((numbered(0, 1, 2, 3),), length=4)

    state = XL(3).between(state, None)

    assert (state.segment, state.past.tolist()) == (4, [1, 2, 3])
    assert state.layers[0].keys.flatten().tolist() == [1, 2, 3]
    assert state.layers[0].values.flatten().tolist() == [10, 20, 30]


def test_compressive_pools_what_is_older_and_drops_what_is_oldest():
    memory = Compressive(length=2, pooled=2, rate=2)
    state = memory.between(State((numbered(0, 1, 2, 3, 4),), length=5), None)

    # Three are too old, and make one pair; the other waits.
    assert (state.past.tolist(), state.pooled) == ([0, 2, 3, 4], 1)
    assert state.layers[0].keys.flatten().tolist() == [0.5, 2, 3, 4]

    grown = numbered(0.5, 2, 3, 4, 5, 6, 7, 8, 9)
    state = memory.between(State((grown,), length=10, segment=5, past=state.past, pooled=1), None)

    assert (state.past.tolist(), state.pooled) == ([4, 6, 8, 9], 2)
    assert state.layers[0].keys.flatten().tolist() == [4.5, 6.5, 8, 9]


def test_retrieval_is_softmax_over_the_nearest_keys_mixed_in_by_the_gate():
    spec = model_with("knn(20, 3)").spec
    retrieval, generator = Retrieval(2, spec), torch.Generator().manual_seed(3)
    q, z = (torch.randn(1, 2, 4, 8, generator=generator) for _ in range(2))
    keys, values = (torch.randn(1, 2, 6, 8, generator=generator) for _ in range(2))
    with torch.no_grad():
        retrieval.gate.copy_(torch.tensor([-1.0, 2.0]))
    state = Retrieved(q[:, :, :0], q[:, :, :0], keys, values)

    where = Positions(torch.arange(4), torch.arange(4), segment=6)
    found, seen = retrieval(z, q, q, z, state, KVCache(q, z), where)

    scores = q @ keys.mT / 8**0.5
    scores = scores.masked_fill(scores < scores.topk(2).values[..., -1:], float("-inf"))
    gate = torch.sigmoid(retrieval.gate)[:, None, None]
    assert_close(found, gate * (scores.softmax(-1) @ values) + (1 - gate) * z)
    assert torch.equal(seen.keys, q)


def test_a_store_keeps_the_last_keys_and_no_graph():
    keys = torch.randn(1, 2, 8, 4, requires_grad=True)
    part = Retrieved(keys, keys * 2, torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))

    kept = KNN(5).between(State((part, None), length=8), None).layers[0]

    assert torch.equal(kept.stored_keys, keys[:, :, -5:])
    assert not kept.stored_keys.requires_grad
    assert not kept.stored_values.requires_grad
    assert kept.keys.shape[2] == 0


def test_a_row_that_begins_anew_finds_nothing_of_the_text_before():
    model, ids = model_with("knn(20, 3)"), random_ids(2, 2 * CONTEXT)
    with torch.no_grad():
        state = model(ids[:, :CONTEXT], state=model.empty_state()).state.reset(torch.tensor([True, False]))
        logits = model(ids[:, CONTEXT:], state=state).logits

        assert_close(logits[0], model(ids[:1, CONTEXT:]).logits[0])
        assert not torch.allclose(logits[1], model(ids[1:, CONTEXT:]).logits[0], atol=1e-4)


def test_a_row_can_not_begin_anew_inside_a_segment_that_reads_a_memory():
    model = model_with("recurrent(2)")
    state = model(random_ids(2, CONTEXT + 3), state=model.empty_state()).state

    with pytest.raises(MicroformerError, match="can't be reset 3 tokens into a segment"):
        state.reset(torch.tensor([True, False]))


def test_gradients_go_back_through_what_a_segment_wrote():
    model, ids = model_with("recurrent(2)"), random_ids(2, 2 * CONTEXT)
    embedded = []
    model.embed.register_forward_hook(lambda module, given, made: embedded.append(made.requires_grad_()))

    logits = model(ids).logits[:, CONTEXT:]

    assert torch.autograd.grad(logits.sum(), embedded[0])[0].abs().sum() > 0


def test_memory_tokens_are_seen_through_a_window():
    """Where a window hides the text's beginning, it does not hide what stands before it."""
    layers = (LayerSpec(Window(2), Gelu()),)
    model = Microformer(ModelSpec(VOCAB, 16, 2, 24, CONTEXT, layers, Rope(), RMSNorm(), memory=MEMORY["tokens"](2)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(4))
    ids = random_ids(1, CONTEXT)
    before = model(ids).logits
    with torch.no_grad():
        model.memory.learned += 1

    assert not torch.allclose(before[:, -1], model(ids).logits[:, -1], atol=1e-5)


@pytest.mark.parametrize("memory", ["none", "tokens(2)", *CARRIED])
@pytest.mark.parametrize("length", [5, CONTEXT, 2 * CONTEXT + 3])
def test_a_state_is_the_same_after_it_was_kept_as_tensors(memory, length):
    model = model_with(memory)
    if not model.memory.carries and length > CONTEXT:
        length = CONTEXT - 1
    state = model(random_ids(2, length), state=model.empty_state()).state
    if length == 2 * CONTEXT:
        state = state.reset(torch.tensor([True, False]))

    again = State.from_tensors(state.to_tensors(), model.spec.depth)

    more = random_ids(2, 1, seed=2)
    if state.length < CONTEXT or model.memory.carries:
        assert torch.equal(model(more, state=again).logits, model(more, state=state).logits)
    assert again.to_tensors().keys() == state.to_tensors().keys()


@pytest.mark.parametrize("memory", ["xl(8)", "compressive(4, 4, 2)"])
def test_positions_far_into_a_text_are_as_exact_as_its_first(memory):
    """Ninety million tokens in, which a float can't count."""
    model, ids = model_with(memory), random_ids(1, 3 * CONTEXT)
    near = State.empty(2)
    slot = 90_000_000 * CONTEXT
    far = State((None, None), length=slot, segment=slot, past=torch.arange(0))

    assert_close(model(ids, state=far).logits, model(ids, state=near).logits, rtol=1e-4, atol=1e-4)
