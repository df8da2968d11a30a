"""A function that gives one number, played back together with its gradient."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from microformer.playback.calls import NotTheSame
from microformer.playback.recording import recorded

# A number, and after it its gradient by each of some weights; None for those that play no part in it.
Known = list[Tensor | None]


def with_gradient(
    function: Callable[..., Tensor], weights: Sequence[Tensor], after: int | None = 200
) -> Callable[..., Tensor]:
    """The function, whose work and that of its gradient is played back: see `gradient`."""
    work = gradient(function, weights, after)
    return lambda *inputs: handed_over(work(*inputs), weights)


def gradient(
    function: Callable[..., Tensor], weights: Sequence[Tensor], after: int | None = 200
) -> Callable[..., Known]:
    """What a function gives, and its gradient: played back for inputs of sizes that came often before. The same to the
    bit, and where it can't be played back, as it is.

    Args:
        function: of tensors, or None where there are none; gives one number. Its gradients are the same memory at each
            call: they must be used before the next one.
        weights: all that its gradient is wanted of. They stay where they are, and their numbers may change.
        after: how often inputs of one size come before it is written down for them. That takes as long as five to ten
            times doing it, which it makes good in the next hundred: what came so often will mostly come on. None:
            however often they come.
    """
    often: dict[tuple, int] = {}
    played: dict[tuple, Played | None] = {}

    def plain(*inputs: Tensor | None) -> Known:
        with torch.enable_grad():
            loss = function(*inputs)
            return [loss.detach(), *torch.autograd.grad(loss, weights, allow_unused=True)]

    def run(*inputs: Tensor | None) -> Known:
        sizes = tuple(None if one is None else (one.shape, one.dtype) for one in inputs)
        if after is not None and sizes not in played:
            often[sizes] = often.get(sizes, 0) + 1
            if often[sizes] > after:
                try:
                    played[sizes] = Played(plain, inputs, weights)
                except NotTheSame:
                    played[sizes] = None
        return (played.get(sizes) or plain)(*inputs)

    return run


class Played:
    """A number and its gradient, for inputs of one size.

    Raises:
        NotTheSame: it can't be played back.
    """

    def __init__(self, plain: Callable[..., Known], inputs: Sequence[Tensor | None], weights: Sequence[Tensor]):
        self.inputs = [None if one is None else one.clone() for one in inputs]
        self.there: list[bool] = []  # which of the weights have a gradient

        def work() -> Sequence[Tensor]:
            known = plain(*self.inputs)
            self.there = [one is not None for one in known]
            return [one for one in known if one is not None]

        self.play = recorded(work, [*(one for one in self.inputs if one is not None), *weights])

    def __call__(self, *inputs: Tensor | None) -> Known:
        for mine, theirs in zip(self.inputs, inputs, strict=True):
            if mine is not None and theirs is not None:
                mine.copy_(theirs)
        with torch.no_grad():
            answers = iter(self.play())
        return [next(answers) if there else None for there in self.there]


def handed_over(known: Known, weights: Sequence[Tensor]) -> Tensor:
    """The number, as one whose `backward` adds to the gradients of the weights what is known of them."""
    asks = torch.zeros((), requires_grad=True)  # stands for all weights where autograd is told of the number
    return _HandedOver.apply(known, weights, asks)  # type: ignore[return-value]


class _HandedOver(torch.autograd.Function):
    """Autograd itself would copy the gradients, and go to each of the weights."""

    @staticmethod
    def forward(ctx, known: Known, weights: Sequence[Tensor], asks: Tensor) -> Tensor:
        loss, *ctx.gradients = known
        ctx.weights = weights
        assert loss is not None
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, d_loss: Tensor) -> tuple[None, None, None]:  # type: ignore[override]
        whole, taken = bool(d_loss == 1), set()
        for one, known in zip(ctx.weights, ctx.gradients, strict=True):
            if known is not None:
                # Two weights may have one gradient, which what is done to theirs in place must not change twice. And
                # PyTorch's fused optimizers take numbers in the order in which they lie.
                as_it_is = whole and known.data_ptr() not in taken and known.stride() == one.stride()
                share = known if as_it_is else torch.empty_like(one).copy_(known).mul_(d_loss)
                taken.add(known.data_ptr())
                one.grad = share if one.grad is None else one.grad + share
        return None, None, None
