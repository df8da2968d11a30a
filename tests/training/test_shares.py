"""A batch shared among cores: the loss and gradient of the whole, from threads that have one core each."""

import threading

import pytest
import torch

from microformer import playback
from microformer.training import shares
from microformer.training.shares import shared, worth_sharing

LENGTH, VOCAB = 6, 7


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def made():
    """A model's weights, of which the last two have one gradient and one plays no part; and its loss."""
    generator = torch.Generator().manual_seed(1)
    sizes = (VOCAB, 8), (8, VOCAB), (5,), (VOCAB,), (VOCAB,)
    weights = [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in sizes]

    def loss(ids, targets, mask):
        logits = torch.tanh(weights[0][ids]) @ weights[1] + (weights[3] + weights[4])
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        losses = losses.view_as(targets)
        return losses.mean() if mask is None else (losses * mask).sum() / mask.sum().clamp_min(1)

    return weights, loss


def batch(sequences, masked):
    ids, targets = torch.randint(VOCAB, (2, sequences, LENGTH))
    mask = torch.rand(sequences, LENGTH) < 0.5
    mask[0] = False  # what one core is given may not count at all
    return ids, targets, mask if masked else None


def found(loss, weights, given):
    for one in weights:
        one.grad = None
    value = loss(*given)
    value.backward()
    return [value.detach(), *(None if one.grad is None else one.grad.clone() for one in weights)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("sequences", "cores"), [(4, 2), (5, 2), (7, 3), (2, 3), (1, 2)])
def test_loss_and_gradient_are_those_of_the_whole_batch(sequences, cores, masked):
    weights, loss = made()
    given = batch(sequences, masked)

    alone = found(loss, weights, given)
    together = found(shared(loss, weights, cores), weights, given)

    assert together[3] is None
    assert together[0].item() == pytest.approx(alone[0].item(), abs=1e-6)
    for one, other in zip(together, alone, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, atol=1e-6)


def test_a_batch_without_anything_that_counts_has_a_loss_and_no_gradient():
    weights, loss = made()
    ids, targets, _ = batch(4, masked=False)

    value, *gradients = found(shared(loss, weights, 2), weights, (ids, targets, torch.zeros(4, LENGTH).bool()))

    assert value.item() == 0
    assert all(one is None or one.eq(0).all() for one in gradients)


def test_it_is_the_same_to_the_bit_each_time_and_when_it_is_played_back():
    weights, loss = made()
    play, plain = shared(loss, weights, 3, after=1), shared(loss, weights, 3, after=None)

    for sequences in (7, 7, 4, 7, 4, 4, 7):
        given = batch(sequences, masked=False)
        wanted = found(plain, weights, given)
        for one, other in zip(found(play, weights, given), wanted, strict=True):
            assert (one is None and other is None) or torch.equal(one, other)


def test_each_core_works_with_one_thread_and_the_others_keep_theirs():
    weights, loss = made()
    seen, given = [], []

    def telling(ids, targets, mask):
        seen.append(torch.get_num_threads())
        given.append(len(ids))
        return loss(ids, targets, mask)

    run = shared(telling, weights, 2)
    for _ in range(3):
        found(run, weights, batch(5, masked=False))

    assert seen == [1] * 6
    assert sorted(given) == [2, 2, 2, 3, 3, 3]
    assert torch.get_num_threads() == 2


def test_the_cores_work_at_the_same_time():
    """Each waits until the other has begun: one after another, they would wait for ever."""
    weights, loss = made()
    meeting = threading.Barrier(2, timeout=30)

    def together(*given):
        meeting.wait()
        return loss(*given)

    found(shared(together, weights, 2), weights, batch(4, masked=False))


def test_what_goes_wrong_in_one_share_is_told_as_it_is():
    weights, _ = made()

    def fails(ids, targets, mask):
        raise MemoryError("no more")

    with pytest.raises(MemoryError, match="no more"):
        shared(fails, weights, 2)(*batch(4, masked=False))


def test_where_one_share_goes_wrong_the_others_come_to_their_end_first():
    weights, loss = made()
    ended = []

    def fails(ids, targets, mask):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        value = loss(ids, targets, mask)
        ended.append(len(ids))
        return value

    with pytest.raises(KeyboardInterrupt):
        shared(fails, weights, 3)(*batch(6, masked=False))
    assert ended == [2, 2]
    assert torch.get_num_threads() == 2


def test_a_weight_that_only_one_share_comes_to_has_its_gradient():
    one, other = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))

    def loss(ids, targets, mask):
        return (one.sum() if ids[0, 0] == 0 else other.sum()) * ids.shape[1]

    loss_of = shared(loss, [one, other], 2)
    loss_of(torch.tensor([[0, 0], [1, 1]]), torch.zeros(2, 2).long(), None).backward()

    assert one.grad.tolist() == other.grad.tolist() == [1, 1, 1]


@pytest.mark.parametrize("number", [1.0, float("nan"), float("inf")])
def test_what_one_writes_down_may_be_in_use_by_another(number):
    """A function that is written down is run thrice, and what changes put back: not what has not changed."""
    weight = torch.nn.Parameter(torch.full((4, 4), number))
    version = weight._version
    work = playback.gradient(lambda x: (x @ weight).square().mean(), [weight], after=0)

    work(torch.randn(3, 4))

    assert weight._version == version


def test_a_step_is_worth_sharing_where_adding_up_takes_little_of_it():
    weights, each = [torch.zeros(1000), torch.zeros(10, 100)], shares._WORTH * 2000

    assert worth_sharing(2 * each, weights, 12, 2)
    assert not worth_sharing(2 * each - 1, weights, 12, 2)
    assert not worth_sharing(2 * each, weights, 12, 3)
    assert not worth_sharing(1e12, weights, 12, 1)


@pytest.mark.parametrize(
    ("sequences", "cores", "worth"),
    [(1, 2, False), (3, 2, False), (64, 2, True), (63, 2, True), (12, 8, False), (9, 8, False), (48, 5, True)],
)
def test_a_step_is_worth_sharing_where_no_core_waits_long_for_another(sequences, cores, worth):
    assert worth_sharing(1e12, [torch.zeros(1000)], sequences, cores) == worth
