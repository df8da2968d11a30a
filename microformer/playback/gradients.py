"""A function that gives one number, played back together with its gradient."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from microformer.playback.calls import NotTheSame
from microformer.playback.recording import Function, recorded


def with_gradient(
    function: Callable[..., Tensor], weights: Sequence[Tensor], after: int = 200
) -> Callable[..., Tensor]:
    """The function, whose work and that of its gradient is played back for inputs of sizes that came often before. The
    same to the bit, and where it can't be played back, as it is.

    Args:
        function: of tensors, or None where there are none; gives one number. Its gradients are the same memory at each
            call: they must be used before the next one.
        weights: all that its gradient is wanted of. They stay where they are, and their numbers may change.
        after: how often inputs of one size come before it is written down for them. That takes as long as five to ten
            times doing it, which it makes good in the next hundred: what came so often will mostly come on.
    """
    often: dict[tuple, int] = {}
    played: dict[tuple, Played | None] = {}

    def run(*inputs: Tensor | None) -> Tensor:
        sizes = tuple(None if one is None else (one.shape, one.dtype) for one in inputs)
        if sizes not in played:
            often[sizes] = often.get(sizes, 0) + 1
            if often[sizes] <= after:
                return function(*inputs)
            try:
                played[sizes] = Played(function, inputs, weights)
            except NotTheSame:
                played[sizes] = None
        one = played[sizes]
        return function(*inputs) if one is None else one(inputs)

    return run


class Played:
    """A function and its gradient, for inputs of one size.

    Raises:
        NotTheSame: it can't be played back.
    """

    def __init__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor | None], weights: Sequence[Tensor]):
        self.inputs = [None if one is None else one.clone() for one in inputs]
        self.moved: list[Tensor] = []  # those of the weights that have a gradient
        self.asks = torch.zeros((), requires_grad=True)  # stands for them all where autograd is told of the answer

        def work() -> Sequence[Tensor]:
            with torch.enable_grad():
                loss = function(*self.inputs)
                gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            self.moved = [one for one, gradient in zip(weights, gradients, strict=True) if gradient is not None]
            return [loss, *(one for one in gradients if one is not None)]

        self.play = recorded(work, [*(one for one in self.inputs if one is not None), *weights])

    def __call__(self, inputs: Sequence[Tensor | None]) -> Tensor:
        for mine, theirs in zip(self.inputs, inputs, strict=True):
            if mine is not None and theirs is not None:
                mine.copy_(theirs)
        return _Known.apply(self.play, self.moved, self.asks)  # type: ignore[return-value]


class _Known(torch.autograd.Function):
    """A number whose gradient is known as soon as it is itself. It is handed over here: autograd would copy it, and go
    to each of the weights."""

    @staticmethod
    def forward(ctx, play: Function, weights: Sequence[Tensor], asks: Tensor) -> Tensor:
        loss, *ctx.gradients = play()
        ctx.weights = weights
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, d_loss: Tensor) -> tuple[None, None, None]:  # type: ignore[override]
        gradients = ctx.gradients if d_loss == 1 else torch._foreach_mul(ctx.gradients, d_loss)
        for one, gradient in zip(ctx.weights, gradients, strict=True):
            one.grad = gradient if one.grad is None else one.grad + gradient
        return None, None, None
