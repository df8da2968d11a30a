"""What a step costs: bytes counted by hand, and the same part twice costs the same."""

import torch

from microformer.contracts import cost
from microformer.settings import Settings, model_spec

MEGABYTE = 2**20


def a_megabyte():
    return torch.ones(MEGABYTE // 4)


def test_the_peak_is_the_most_that_was_there_at_once_and_views_and_changes_in_place_are_free():
    before = a_megabyte()
    with cost._Live() as live:
        first = before + 1  # 1
        second = first * 2  # 2
        del first  # 1
        view = second.view(2, -1)
        view.add_(1)
        assert live.now == MEGABYTE
        third = view + 1  # 2
        assert live.most == 2 * MEGABYTE
        del second, view, third
        assert live.now == 0
        before.mul_(2)
    assert live.most == 2 * MEGABYTE


def test_what_the_gradient_needs_is_counted_until_it_was_used():
    x = a_megabyte().requires_grad_()
    with cost._Live() as live:
        loss = (x * 2).square().sum()
        kept = live.now
        loss.backward()
    assert kept >= MEGABYTE  # 2 x, for the way back through the square
    assert live.most >= 2 * MEGABYTE
    assert live.now <= MEGABYTE + 8  # x's gradient and the loss


def spec_of(attention, **changes):
    chosen = Settings().changed({"embed_dim": 32, "ff_dim": 32, **changes})
    return lambda length: model_spec(chosen.changed({"attention": attention, "max_seq_len": length}), vocab_size=11)


def test_each_length_has_both_and_the_same_part_twice_takes_the_same_memory():
    specs = {"one": spec_of("entmax15"), "same": spec_of("entmax15"), "less": spec_of("linear")}
    found = cost.of_step(specs, [32, 256])

    assert list(found) == [32, 256]
    for both in found.values():
        assert both["one"].peak_bytes == both["same"].peak_bytes > 0
        assert all(each.seconds > 0 for each in both.values())
    assert found[256]["one"].peak_bytes > 1.5 * found[256]["less"].peak_bytes


def test_a_memory_that_is_carried_is_given_a_second_segment():
    found = cost.of_step({"none": spec_of("softmax"), "xl": spec_of("softmax", memory="xl(64)")}, [64])[64]

    assert found["xl"].peak_bytes > found["none"].peak_bytes
