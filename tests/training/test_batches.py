"""Batches: every target once an epoch, in an order that nothing but the seed decides."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microformer.errors import TrainingError
from microformer.training.batches import Batch, Shuffled, Streams, permuted

sizes = st.integers(2, 300)
contexts = st.integers(1, 40)
seeds = st.integers(0, 2**63 - 1)


def text(length):
    """A text whose every token says where it stands."""
    return torch.arange(length)


def targets_of(batch: Batch) -> list[int]:
    """The positions in the text of the targets that count."""
    return (batch.targets if batch.mask is None else batch.targets[batch.mask]).flatten().tolist()


@settings(deadline=None)
@given(sizes, contexts, seeds, st.integers(0, 3))
def test_every_target_comes_exactly_once_an_epoch(length, context, seed, epoch):
    batches = Shuffled(text(length), context, seed)

    batch = batches.take(epoch * batches.samples_per_epoch, batches.samples_per_epoch)

    assert sorted(targets_of(batch)) == list(range(1, length))
    assert batch.tokens == length - 1


@settings(deadline=None)
@given(sizes, contexts, seeds, st.integers(0, 50), st.integers(1, 20))
def test_what_is_read_is_what_stands_before_the_target(length, context, seed, first, count):
    batch = Shuffled(text(length), context, seed).take(first, count)

    assert torch.equal(batch.ids + 1, batch.targets)
    assert batch.ids.shape == (count, context)
    assert batch.tokens == len(targets_of(batch))
    assert batch.mask is None or not batch.mask.all()
    assert not batch.continues.any()
    # Windows are windows: within a row the text is read on, around its end to its beginning.
    assert ((batch.ids[:, 1:] - batch.ids[:, :-1] - 1) % (length - 1)).eq(0).all()


@settings(deadline=None)
@given(sizes, contexts, seeds, st.integers(0, 1000), st.integers(0, 20), st.integers(0, 20))
def test_the_samples_are_the_same_however_they_are_taken(length, context, seed, first, some, more):
    batches = Shuffled(text(length), context, seed)
    whole, again = batches.take(first, some + more), Shuffled(text(length), context, seed)

    parts = [again.take(first + some, more), again.take(first, some)][::-1]

    assert torch.equal(whole.ids, torch.cat([part.ids for part in parts]))
    assert torch.equal(whole.targets, torch.cat([part.targets for part in parts]))
    assert sum(part.tokens for part in parts) == whole.tokens
    assert [*targets_of(parts[0]), *targets_of(parts[1])] == targets_of(whole)


@settings(deadline=None)
@given(st.integers(1, 2000), seeds, st.integers(0, 100))
def test_a_permutation_takes_every_index_to_one_of_its_own(size, seed, epoch):
    where = permuted(np.arange(size), size, (seed, epoch))

    assert sorted(where.tolist()) == list(range(size))


def test_a_permutation_of_a_trillion_needs_no_table():
    where = permuted(np.arange(1000), 10**12, (1, 0))

    assert len(set(where.tolist())) == 1000
    assert where.max() < 10**12
    assert 4e11 < where.mean() < 6e11


def test_a_permutation_leaves_no_order_to_be_seen():
    where = permuted(np.arange(10_000), 10_000, (1, 0))

    assert abs(np.corrcoef(where, np.arange(10_000))[0, 1]) < 0.05
    assert abs(np.corrcoef(where[1:], where[:-1])[0, 1]) < 0.05
    assert (where == np.arange(10_000)).sum() < 10


def test_order_and_offset_differ_between_epochs_and_seeds():
    def epoch_of(seed, epoch):
        batches = Shuffled(text(1001), 10, seed)
        return batches.take(epoch * batches.samples_per_epoch, batches.samples_per_epoch).ids[:, 0].tolist()

    epochs = [epoch_of(seed, epoch) for seed in (1, 2, 2**40) for epoch in (0, 1, 2)]

    assert epoch_of(1, 0) == epochs[0]
    assert len({tuple(epoch) for epoch in epochs}) == 9
    assert len({min(epoch) for epoch in epochs}) > 3  # where the blocks begin


def test_a_batch_may_reach_over_the_end_of_an_epoch():
    batches = Shuffled(text(41), 8, seed=3)  # five samples an epoch

    assert sorted(targets_of(batches.take(3, 7))[16:]) == list(range(1, 41))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_narrow_and_memory_mapped_texts_are_read_as_they_are(tmp_path, dtype):
    torch.save(text(100).to(dtype), tmp_path / "train.pt")
    mapped = torch.load(tmp_path / "train.pt", mmap=True, weights_only=True)

    batch = Shuffled(mapped, 7, seed=1).take(0, 15)

    assert batch.ids.dtype == batch.targets.dtype == torch.long
    assert torch.equal(batch.ids, Shuffled(text(100), 7, seed=1).take(0, 15).ids)


def test_a_text_shorter_than_the_context_is_padded_with_what_does_not_count():
    batch = Shuffled(text(4), 10, seed=1).take(0, 1)

    assert sorted(targets_of(batch)) == [1, 2, 3]
    assert batch.mask is not None
    assert batch.mask.sum() == batch.tokens == 3


@pytest.mark.parametrize("length", [0, 1])
def test_a_text_with_nothing_to_predict_is_refused(length):
    with pytest.raises(TrainingError, match=f"{length} tokens of training text are too few"):
        Shuffled(text(length), 4, seed=1)


def test_a_batch_moves_with_all_its_parts():
    batch = Shuffled(text(4), 10, seed=1).take(0, 2).to("meta")

    assert {part.device.type for part in (batch.ids, batch.targets, batch.mask, batch.continues)} == {"meta"}


rows = st.integers(1, 9)


@settings(deadline=None)
@given(sizes, contexts, seeds, rows, st.integers(0, 3))
def test_streams_bring_every_target_exactly_once_an_epoch(length, context, seed, rows, epoch):
    batches = Streams(text(length), context, seed, rows)

    batch = batches.take(epoch * batches.samples_per_epoch, batches.samples_per_epoch)

    assert sorted(targets_of(batch)) == list(range(1, length))


@settings(deadline=None)
@given(sizes, contexts, seeds, rows, st.integers(0, 40))
def test_a_row_goes_on_where_it_stopped_or_says_that_it_does_not(length, context, seed, rows, turn):
    batches = Streams(text(length), context, seed, rows)

    before, after = (batches.take(i * rows, rows) for i in (turn, turn + 1))

    assert not batches.take(0, rows).continues.any()
    goes_on = after.ids[:, 0] == before.targets[:, -1] % (length - 1)
    assert goes_on[after.continues].all()
    assert after.continues.all() == ((turn + 1) * rows % batches.samples_per_epoch != 0)


@settings(deadline=None)
@given(sizes, contexts, seeds, rows, st.integers(0, 1000), st.integers(0, 20), st.integers(0, 20))
def test_streams_are_the_same_however_they_are_taken(length, context, seed, rows, first, some, more):
    batches = Streams(text(length), context, seed, rows)

    whole, parts = batches.take(first, some + more), [batches.take(first, some), batches.take(first + some, more)]

    assert torch.equal(whole.ids, torch.cat([part.ids for part in parts]))
    assert torch.equal(whole.continues, torch.cat([part.continues for part in parts]))
    assert [*targets_of(parts[0]), *targets_of(parts[1])] == targets_of(whole)


@pytest.mark.parametrize("context", [3, 6, 12, 24])
@pytest.mark.parametrize("rows", [1, 4, 5])
def test_examples_are_cut_at_their_ends_and_what_does_not_count_is_left_out(context, rows):
    tokens = torch.arange(12 * 10)
    counted = tokens % 12 >= 9
    for batches in (
        Shuffled(tokens, context, 1, counted, example=12),
        Streams(tokens, context, 1, rows, counted, example=12),
    ):
        epoch = batches.take(0, batches.samples_per_epoch)

        assert sorted(targets_of(epoch)) == tokens[counted].tolist()
        assert epoch.tokens == counted.sum()
        assert (epoch.ids[:, 0] % min(context, 12)).eq(0).all()


def test_rows_shorter_than_an_example_are_at_different_parts_of_it():
    tokens = torch.arange(64 * 100)
    batches = Streams(tokens, 32, 1, 8, tokens % 64 >= 56, example=64)

    counts = [batches.take(turn * 8, 8).tokens for turn in range(20)]

    assert set(counts) == {4 * 8}  # half of the rows have their answers in each batch
