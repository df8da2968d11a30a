"""Playback: what was written down once does again what the function does, or is refused."""

import pytest
import torch

from microformer import playback


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def test_what_is_played_back_is_what_the_function_gives_for_what_is_there_by_then():
    x, w = torch.randn(3, 4), torch.randn(5, 4)

    def work():
        y = torch.nn.functional.linear(x, w)
        return torch.softmax(y.view(5, 3).t() * y.new_tensor(2.0), dim=-1).sum(0)

    answer, play = playback.recorded(work, [x])
    for _ in range(3):
        x.copy_(torch.randn(3, 4))
        play()
        assert torch.equal(answer, work())


def test_what_is_remembered_goes_on_from_time_to_time_and_is_as_after_one_call_at_first():
    count, kept, x = torch.zeros(1, dtype=torch.long), torch.zeros(4, 2), torch.randn(1, 2)

    def work():
        kept.index_copy_(0, count, x)
        count.copy_(count + 1)
        return kept.sum(0)

    answer, play = playback.recorded(work, [count, kept, x])
    assert count.item() == 1
    assert torch.equal(answer, x[0])
    x.fill_(1.0)
    play()
    assert count.item() == 2
    assert torch.equal(kept[1], x[0])
    assert torch.equal(answer, kept.sum(0))


def test_what_is_made_anew_and_then_written_over_is_made_anew_each_time():
    """A mask of zeros that is filled where nobody may look: the second time it must not be full already."""
    slot = torch.tensor([1])
    work = lambda: torch.zeros(4).masked_fill_(torch.arange(4) > slot, 5.0)  # noqa: E731

    answer, play = playback.recorded(work, [slot])
    for where in (3, 0, 2):
        slot.fill_(where)
        play()
        assert torch.equal(answer, work())


def test_only_what_depends_on_what_changes_is_done_again():
    x, w = torch.randn(4), torch.randn(64, 64)

    def work():
        return x * torch.linalg.inv(w).sum()

    answer, play = playback.recorded(work, [x])
    before = answer.clone()
    w.zero_()  # whose inverse there isn't: that it isn't asked for shows that nothing of it is done again
    x.mul_(2)
    play()
    assert torch.equal(answer, 2 * before)


def test_an_operation_with_many_answers_is_played_back_too():
    x = torch.randn(5, 6)

    def work():
        best, where = x.topk(2)
        ordered, _ = x.sort(dim=-1, stable=True)
        first, second = ordered.split(3, dim=-1)
        return best.sum() + where.sum() + (first * second).sum() + torch.nn.functional.layer_norm(x, (6,)).amax()

    answer, play = playback.recorded(work, [x])
    x.copy_(torch.randn(5, 6))
    play()
    assert torch.equal(answer, work())


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
        return asks(x)

    with pytest.raises(playback.NotTheSame):
        playback.recorded(work, [x, count])
    assert count.item() == 0
    assert x.tolist() == [1.0, -2.0, 4.0]


def test_what_python_does_differently_each_time_is_found_out():
    x, times = torch.ones(3), []

    def work():
        times.append(1)
        return x * len(times)

    with pytest.raises(playback.NotTheSame, match="something else"):
        playback.recorded(work, [x])


def test_where_an_operation_can_not_be_repeated_the_function_is_as_it_was(monkeypatch):
    def refuses(*_, **__):
        raise TypeError("unexpected keyword")

    monkeypatch.setattr(playback, "_quick", lambda _: refuses)
    count = torch.zeros(1)

    with pytest.raises(playback.NotTheSame, match="unexpected keyword"):
        playback.recorded(lambda: count.add_(1) * 2, [count])
    assert count.item() == 0
