"""Playback: what was written down once does again what the function does, or is refused."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from microformer import playback
from microformer.playback import repeating
from microformer.playback.calls import Listening, needed
from microformer.playback.places import Places, arranged


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_what_is_played_back_is_what_the_function_gives_for_what_is_there_by_then():
    x, w = torch.randn(3, 4), torch.randn(5, 4)

    def work():
        y = torch.nn.functional.linear(x, w)
        return [y, torch.softmax(y.view(5, 3).t() * y.new_tensor(2.0), dim=-1).sum(0)]

    play = playback.recorded(work, [x])
    for _ in range(3):
        x.copy_(torch.randn(3, 4))
        assert_same(play(), work())


def test_what_is_remembered_goes_on_from_time_to_time_and_stays_while_it_is_written_down():
    count, kept, x = torch.zeros(1, dtype=torch.long), torch.zeros(4, 2), torch.randn(1, 2)

    def work():
        kept.index_copy_(0, count, x)
        count.copy_(count + 1)
        return [kept.sum(0)]

    play = playback.recorded(work, [count, kept, x])
    assert count.item() == 0
    assert kept.eq(0).all()
    for place in (0, 1):
        x.fill_(1.0 + place)
        (answer,) = play()
        assert count.item() == place + 1
        assert torch.equal(kept[place], x[0])
        assert torch.equal(answer, kept.sum(0))


def test_what_is_made_anew_and_then_written_over_is_made_anew_each_time():
    """A mask of zeros that is filled where nobody may look: the second time it must not be full already."""
    slot = torch.tensor([1])
    work = lambda: [torch.zeros(4).masked_fill_(torch.arange(4) > slot, 5.0)]  # noqa: E731

    play = playback.recorded(work, [slot])
    for where in (3, 0, 2):
        slot.fill_(where)
        assert_same(play(), work())


def test_only_what_depends_on_what_changes_is_done_again():
    x, w = torch.randn(4), torch.randn(64, 64)

    def work():
        return [x * torch.linalg.inv(w).sum()]

    play = playback.recorded(work, [x])
    before = play()[0].clone()
    w.zero_()  # whose inverse there isn't: that it isn't asked for shows that nothing of it is done again
    x.mul_(2)
    assert torch.equal(play()[0], 2 * before)


def test_an_operation_with_many_answers_is_played_back_too():
    x = torch.randn(5, 6)

    def work():
        best, where = x.topk(2)
        ordered, _ = x.sort(dim=-1, stable=True)
        first, second = ordered.split(3, dim=-1)
        normed = torch.nn.functional.layer_norm(x, (6,))
        return [best.sum() + where.sum(), first * second, normed, normed.view(3, 10).amax(0) + normed.t().mean()]

    play = playback.recorded(work, [x])
    for _ in range(3):
        x.copy_(torch.randn(5, 6))
        assert_same(play(), work())


def test_what_is_read_for_the_last_time_leaves_its_place_to_what_is_made_after_it():
    x = torch.randn(100_000)

    def work():
        y = x
        for _ in range(50):
            y = torch.sin(y).view(100, 1000).t().reshape(-1)
        return [y]

    with Listening([x]) as listening:
        answers = [listening.seen(one) for one in work()]

    calls = needed(listening.calls, [listening.seen(x)])
    assert len(calls) == 100
    assert Places(calls, answers).room.nbytes() <= 2 * x.nbytes + 64
    assert_same(playback.recorded(work, [x])(), work())


def test_what_works_number_by_number_writes_over_what_it_reads_for_the_last_time():
    x = torch.randn(20, 1000)

    def work():
        y = F.layer_norm(x, (1000,))  # it brings its memory
        for _ in range(5):
            y = torch.softmax(torch.sin(y) + y, dim=-1).clone()
        return [y]

    with Listening([x]) as listening:
        answers = [listening.seen(one) for one in work()]

    # Besides what was brought, the sine's: y is still read after it.
    assert Places(needed(listening.calls, [listening.seen(x)]), answers).room.nbytes() == x.nbytes
    assert_same(playback.recorded(work, [x])(), work())


@pytest.mark.parametrize(
    "last",
    [
        lambda y: y + y.t(),  # it is read in another order as well
        lambda y: y[:, :50] + 1,  # only a part of it is
        lambda y: y + torch.ones(2, 300, 300),  # what is made is larger
        lambda y: y.double() + y,  # what is made is of another type
        lambda y: torch.cumsum(y, 0),  # each number needs others
        lambda y: [y, torch.exp(y)],  # it is still wanted
    ],
)
def test_nothing_is_written_over_that_is_still_needed(last):
    x = torch.randn(300, 300)

    def work():
        made = last(torch.sin(x))
        return made if isinstance(made, list) else [made]

    play = playback.recorded(work, [x])

    for _ in range(3):
        x.copy_(torch.randn(300, 300))
        assert_same(play(), work())


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6), st.integers(1, 300)), max_size=20))
def test_no_place_is_used_by_two_at_a_time(wanted):
    spans = {i: (first, first + length) for i, (first, length, _) in enumerate(wanted)}
    sizes = {i: size for i, (_, _, size) in enumerate(wanted)}

    begins = arranged(spans, sizes)

    for one, other in itertools.combinations(spans, 2):
        apart = spans[one][1] < spans[other][0] or spans[other][1] < spans[one][0]
        beside = begins[one] + sizes[one] <= begins[other] or begins[other] + sizes[other] <= begins[one]
        assert apart or beside
    assert all(begin % 64 == 0 for begin in begins.values())


def test_what_is_drawn_by_chance_is_drawn_anew_and_in_the_same_order():
    x = torch.randn(50)

    def work():
        dropped = torch.nn.functional.dropout(x, 0.5)
        return [dropped * torch.rand(50), torch.empty(3).bernoulli_(0.5), torch.randn(4)]

    torch.manual_seed(3)
    play = playback.recorded(work, [x])
    found = [[one.clone() for one in play()] for _ in range(3)]
    torch.manual_seed(3)
    for one in found:
        assert_same(one, work())
    assert not torch.equal(found[0][0], found[1][0])


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: x * 2 if x.sum() > 0 else x,
        lambda x: x[x > 0].sum(),
        lambda x: x.nonzero().sum(),
        lambda x: x * x.max().item(),
    ],
)
def test_what_depends_on_what_is_computed_is_refused_and_nothing_is_changed(asks):
    x, count = torch.tensor([1.0, -2.0, 4.0]), torch.zeros(1)

    def work():
        count.add_(1)
        return [asks(x)]

    with pytest.raises(playback.NotTheSame):
        playback.recorded(work, [x, count])
    assert count.item() == 0
    assert x.tolist() == [1.0, -2.0, 4.0]


def test_what_python_does_differently_each_time_is_found_out():
    x, times = torch.ones(3), []

    def work():
        times.append(1)
        return [x * len(times)]

    with pytest.raises(playback.NotTheSame, match="something else"):
        playback.recorded(work, [x])


def test_where_an_operation_can_not_be_repeated_the_function_is_as_it_was(monkeypatch):
    def refuses(*_, **__):
        raise TypeError("unexpected keyword")

    monkeypatch.setattr(repeating, "_quick", lambda _: refuses)
    count = torch.zeros(1)

    with pytest.raises(playback.NotTheSame, match="unexpected keyword"):
        playback.recorded(lambda: [count.add_(1) * 2], [count])
    assert count.item() == 0


# ------------------------------------------------------------------------------------------- with its gradient


@pytest.fixture
def gradients():
    with torch.inference_mode(False), torch.enable_grad():
        yield


def trained(loss, weights, batches):
    """All losses and gradients, where the weights move a little at each step."""
    found = []
    for batch in batches:
        for weight in weights:
            weight.grad = None
        value = loss(*batch)
        value.backward()
        found += [value.detach(), *(torch.zeros(()) if one.grad is None else one.grad.clone() for one in weights)]
        with torch.no_grad():
            for weight in weights:
                if weight.grad is not None:
                    weight.sub_(weight.grad, alpha=1e-3)
    return found


def two_layers():
    generator = torch.Generator().manual_seed(1)
    sizes = (8, 4), (8,), (3, 8), (5,)  # the last is asked for and plays no part
    weights = [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in sizes]

    def loss(x, mask):
        y = torch.nn.functional.layer_norm(x @ weights[0].t(), (8,), weights[1])
        each = (torch.nn.functional.dropout(torch.nn.functional.gelu(y), 0.2) @ weights[2].t()).square().sum(-1)
        return each.mean() if mask is None else (each * mask).sum()

    return weights, loss


@pytest.mark.usefixtures("gradients")
@pytest.mark.parametrize("masked", [False, True])
def test_a_function_and_its_gradient_are_played_back_to_the_bit(masked):
    batches = [(torch.randn(n, 4), torch.ones(n) if masked else None) for n in (6, 6, 6, 7, 6, 7, 7, 6, 6, 7, 7)]
    torch.manual_seed(2)
    weights, loss = two_layers()
    wanted = trained(loss, weights, batches)
    torch.manual_seed(2)
    weights, loss = two_layers()
    called = []
    played = playback.with_gradient(lambda *batch: called.append(1) or loss(*batch), weights, after=2)

    assert_same(trained(played, weights, batches), wanted)
    assert len(called) == 2 * (2 + 2)  # of each size twice as it is, and twice to write it down


@pytest.mark.usefixtures("gradients")
def test_what_can_not_be_played_back_with_its_gradient_goes_on_as_it_is():
    weight = torch.nn.Parameter(torch.ones(3))
    asking = lambda x: (weight * x).sum() * (2 if x.sum() > 0 else 1)  # noqa: E731
    played = playback.with_gradient(asking, [weight], after=1)

    for sign in (1, 1, -1, 1, -1):
        weight.grad = None
        played(torch.full((3,), float(sign))).backward()
        assert weight.grad.tolist() == [2.0 if sign > 0 else -1.0] * 3


@pytest.mark.usefixtures("gradients")
def test_a_share_of_what_is_played_back_has_that_share_of_its_gradient_and_gradients_add_up():
    weight = torch.nn.Parameter(torch.ones(3))
    played = playback.with_gradient(lambda x: (weight * x).sum(), [weight], after=0)

    (played(torch.full((3,), 2.0)) * 0.5).backward()
    assert weight.grad.tolist() == [1.0] * 3
    played(torch.full((3,), 4.0)).backward()
    assert weight.grad.tolist() == [5.0] * 3


@pytest.mark.usefixtures("gradients")
@pytest.mark.parametrize("after", [0, None])
def test_weights_that_have_one_gradient_get_one_each(after):
    weights = [torch.nn.Parameter(torch.full((3,), value)) for value in (1.0, 2.0)]
    played = playback.with_gradient(lambda x: ((weights[0] + weights[1]) * x).sum(), weights, after)

    for _ in range(3):
        weights[0].grad = weights[1].grad = None
        played(torch.full((3,), 4.0)).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        norms = [one.grad.norm().item() for one in weights]
        assert norms == pytest.approx([0.5**0.5] * 2)


@pytest.mark.usefixtures("gradients")
@pytest.mark.parametrize("after", [0, 10], ids=["played", "as it is"])
def test_gradients_lie_in_memory_as_their_weights_do(after):
    """PyTorch's fused optimizers take the numbers in the order in which they lie there."""
    weights = [torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(3))]
    played = playback.with_gradient(lambda x: (weights[0].t() @ x).square().sum() + weights[1].sum(), weights, after)

    for _ in range(2):
        x = torch.randn(3, 2)
        for one in weights:
            one.grad = None
        (weights[0].t() @ x).square().sum().backward()
        wanted, weights[0].grad = weights[0].grad, None
        played(x).backward()
        assert [one.grad.stride() for one in weights] == [one.stride() for one in weights]
        assert torch.equal(weights[0].grad, wanted)
        assert weights[1].grad.tolist() == [1, 1, 1]
