"""AdamW: its formula is torch.optim's, number for number, and the one call does what the formula says."""

import pytest
import torch
from torch.testing import assert_close

from microformer.training import adamw
from microformer.training.adamw import AdamW

SHAPES = [(5, 3), (4,), (2, 6), (1,)]


def tensors(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def stepped(build, steps=5):
    """The weights after some steps, the last of them at another rate."""
    weights = [one.requires_grad_() for one in tensors(0)]
    matrices, vectors = [one for one in weights if one.dim() > 1], [one for one in weights if one.dim() == 1]
    moved = build([{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "lr": 0.05}])
    for step in range(1, steps + 1):
        for one, gradient in zip(weights, tensors(step), strict=True):
            one.grad = gradient
        if step == steps:
            moved.param_groups[0]["lr"] = 0.02
        moved.step()
    return [one.detach() for one in weights]


def ours(groups):
    return AdamW(groups, 0.1, (0.9, 0.95))


def torchs(groups, **how):
    return torch.optim.AdamW(groups, 0.1, (0.9, 0.95), eps=1e-8, weight_decay=0.0, **how)


def test_a_step_is_torchs_to_the_bit():
    for one, other in zip(stepped(ours), stepped(lambda groups: torchs(groups, fused=True)), strict=True):
        assert torch.equal(one, other)


def test_the_formula_as_written_is_torchs_and_the_one_calls(monkeypatch):
    fused = stepped(ours)
    monkeypatch.setattr(adamw, "fused", adamw.as_written)
    written = stepped(ours)

    for one, other, third in zip(written, stepped(lambda groups: torchs(groups, foreach=False)), fused, strict=True):
        assert_close(one, other, rtol=1e-6, atol=1e-7)
        assert_close(one, third, rtol=1e-5, atol=1e-6)


def test_what_has_no_gradient_stays_and_is_not_remembered():
    one, other = (torch.ones(3, requires_grad=True) for _ in range(2))
    one.grad = torch.ones(3)
    moved = AdamW([one, other], 0.1)
    moved.step()

    assert other.eq(1).all()
    assert list(moved.state) == [one]
    moved.zero_grad()
    assert one.grad is None


def test_no_gradient_at_all_is_no_step():
    moved = AdamW([torch.ones(3, requires_grad=True)], 0.1)
    moved.step()

    assert not moved.state


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_the_first_step_is_as_long_as_the_rate_whatever_the_gradients_size(size):
    w = torch.zeros(4, requires_grad=True)
    w.grad = size * torch.tensor([1.0, -1.0, 2.0, -3.0])
    AdamW([w], 0.1, eps=1e-20).step()

    assert_close(w.detach(), torch.tensor([-0.1, 0.1, -0.1, 0.1]), rtol=1e-4, atol=0)
