"""What a model remembers: the caller's to keep, go back to, cut, move and pick rows from."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from microformer.errors import MicroformerError
from microformer.models.model import Microformer
from microformer.models.spec import Gelu, LayerSpec, Learned, ModelSpec, NoPositions, RMSNorm, Rope, Softmax
from microformer.models.state import State

VOCAB = 11


def small_model(positions=None, context=12) -> Microformer:
    spec = ModelSpec(
        VOCAB, 16, 2, 24, context, (LayerSpec(Softmax(), Gelu()),) * 2, positions or Rope(), RMSNorm(), qk_norm=True
    )
    model = Microformer(spec).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def random_ids(rows, length):
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(2))


def close(one, other):
    assert_close(one, other, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("positions", [Rope(), Learned(), NoPositions()], ids=lambda kind: type(kind).__name__)
@torch.no_grad()
def test_rows_reset_at_different_times_each_see_their_own_text_alone(positions):
    model, ids = small_model(positions), random_ids(3, 12)
    starts = [[0, 5], [0, 2, 9], [0]]  # where each row's texts begin
    state, logits = model.empty_state(), []
    for at in range(12):
        assert state is not None
        output = model(ids[:, at : at + 1], state=state.reset(torch.tensor([at in row for row in starts])))
        logits.append(output.logits)
        state = output.state
    remembered = torch.cat(logits, dim=1)

    for row, begins in enumerate(starts):
        for begin, end in zip(begins, [*begins[1:], 12], strict=True):
            close(remembered[row, begin:end], model(ids[row : row + 1, begin:end]).logits[0])


@torch.no_grad()
def test_a_state_never_changes_so_it_can_be_gone_back_to():
    model, ids = small_model(), random_ids(2, 9)
    state = model(ids[:, :4], state=model.empty_state()).state

    first = model(ids[:, 4:], state=state).logits
    model(ids[:, 5:], state=state)

    assert torch.equal(model(ids[:, 4:], state=state).logits, first)
    assert state is not None
    assert state.length == 4


@torch.no_grad()
def test_a_row_taken_twice_goes_on_twice():
    model, ids = small_model(), random_ids(2, 8)
    state = model(ids[:, :4], state=model.empty_state()).state
    assert state is not None
    state = state.reset(torch.tensor([False, True]))
    rows = torch.tensor([1, 1, 0])

    chosen = model(ids[rows, 4:], state=state.reorder(rows)).logits

    close(chosen, model(ids[:, 4:], state=state).logits[rows])
    assert not torch.allclose(chosen[1], chosen[2])


def test_without_a_state_nothing_is_remembered():
    model, ids = small_model(), random_ids(1, 3)

    assert model(ids).state is None
    assert model(ids, state=model.empty_state()).state.length == 3


def test_detached_memory_stops_the_gradient_and_changes_no_value():
    model, ids = small_model(), random_ids(1, 6)
    state = model(ids[:, :3], state=model.empty_state()).state
    key = state.layers[0].keys
    assert key.requires_grad

    cut = state.detach()
    assert not any(part.keys.requires_grad or part.values.requires_grad for part in cut.layers)
    assert torch.equal(model(ids[:, 3:], state=cut).logits, model(ids[:, 3:], state=state).logits)


def test_memory_moves_with_all_its_parts():
    model, ids = small_model(), random_ids(2, 3)
    state = model(ids, state=model.empty_state()).state.reset(torch.tensor([True, False])).detach()

    moved = state.to("meta")

    assert moved.starts.device.type == "meta"
    assert replace(state, past=torch.arange(2)).to("meta").past.device.type == "meta"
    assert {part.keys.device.type for part in moved.layers} == {"meta"}
    assert {part.values.device.type for part in moved.layers} == {"meta"}
    assert State.empty(2).to("meta") == State.empty(2)


def test_resetting_no_row_leaves_the_state_as_it_is():
    state = State.empty(1)

    assert state.reset(torch.tensor([False, False])) is state


def test_what_was_remembered_counts_against_the_context():
    model, ids = small_model(context=6), random_ids(1, 6)
    state = model(ids[:, :4], state=model.empty_state()).state

    assert model(ids[:, 4:], state=state).state.length == 6
    with pytest.raises(MicroformerError, match="7 tokens are more than the model's context of 6"):
        model(ids[:, :3], state=state)


def test_a_state_that_was_made_in_inference_mode_can_be_gone_on_from_outside_it():
    model, ids = small_model(), random_ids(2, 12)
    with torch.inference_mode():
        state = model(ids[:, :4], state=model.empty_state()).state
        state = model(ids[:, 4:6], state=state).state
    with torch.no_grad():
        after = model(ids[:, 6:7], state=state).state

        close(model(ids[:, 7:], state=after).logits, model(ids).logits[:, 7:])


@torch.no_grad()
def test_a_fixed_state_is_moved_with_all_its_parts():
    model, ids = small_model(), random_ids(2, 5)
    fixed = model(ids[:, :4], state=model.empty_state()).state.fixed(12, torch.device("cpu"))
    moved = fixed.to("meta")

    assert moved.slot.device.type == moved.layers[1].keys.device.type == moved.layers[1].slot.device.type == "meta"
    close(model(ids[:, 4:], state=fixed.to("cpu")).logits, model(ids).logits[:, 4:])
