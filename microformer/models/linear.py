"""The two ways a number is learned here: a matrix that maps, and a table that is looked up. Formula: y = x Wᵀ + b

Weights are kept in float32 and used in the precision of what they meet, so one model serves every precision. Each
module declares the role of its parameters (matrix, embedding, unembedding, gain, bias), and optimizers group by role.
"""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from microformer.devices import cpu_name

# With fewer numbers oneDNN's call takes longer to begin than it saves.
_MANY = 2**14
# On an Intel processor MKL is the faster one, by a twelfth.
_ONEDNN = torch.backends.mkldnn.is_available() and "AMD" in cpu_name()
# Older versions of torch can't say it.
_EXPORTS = hasattr(torch.compiler, "is_exporting")


class Linear(nn.Module):
    """y = x Wᵀ + b, in x's precision.

    Args:
        inputs, outputs: widths; several outputs are as many maps of one input, their matrices on one another in W.
        bias: whether there is a b; it starts at 0.
        std: standard deviation of the normal distribution W is drawn from; 0 starts it at zero.
        role: what an optimizer should take W for.
        writes: whether what it gives is added to the residual stream, by which INIT may choose another std.
    """

    def __init__(
        self, inputs: int, *outputs: int, bias: bool, std: float, role: str = "matrix", writes: bool = False
    ):  # fmt: skip
        super().__init__()
        self.roles = {"weight": role, "bias": "bias"}
        self.outputs = outputs
        self.std, self.writes = std, writes
        self.weight = nn.Parameter(torch.zeros(sum(outputs), inputs))
        self.bias = nn.Parameter(torch.zeros(sum(outputs))) if bias else None

    def start(self, generator: torch.Generator) -> None:
        """Draws the starting weights."""
        if self.std > 0:
            self.weight.normal_(0.0, self.std, generator=generator)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        weight, bias = like(self.weight, x), None if self.bias is None else like(self.bias, x)
        if torch.compiler.is_compiling() and x.numel() == x.shape[-1] and not torch.is_grad_enabled():
            y = _of_one_vector(x, weight)
            return y if bias is None else y + bias
        if _by_onednn(x):
            return _Product.apply(x, weight, bias)  # type: ignore[return-value]
        return F.linear(x, weight, bias)


class _Product(torch.autograd.Function):
    """x Wᵀ + b in float32 by oneDNN, where PyTorch would ask MKL: an eighth sooner on the AMD processor it was measured
    on. The products for dW stay MKL's, which does those sooner.

        dx = dy W        dW = dyᵀ x        db = Σ dy
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        rows, inputs = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
        dx = _onednn(dy, weight.mT, None) if ctx.needs_input_grad[0] else None
        dw = rows.mT @ inputs if ctx.needs_input_grad[1] else None
        return dx, dw, rows.sum(0) if ctx.needs_input_grad[2] else None


def _by_onednn(x: Tensor) -> bool:
    """Whether x is for `_Product`: training in float32 on such a processor, and numbers enough."""
    trained = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return trained and x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() >= _MANY and _ONEDNN


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def like(parameter: Tensor, x: Tensor) -> Tensor:
    """The parameter in x's precision. (`to` itself takes long for finding out that there is nothing to do.)"""
    return parameter if parameter.dtype == x.dtype else parameter.to(x.dtype)


def exporting() -> bool:
    """Whether the model is being written down for texts of any number and length: then a road may not depend on how
    long one is, nor on what suits this machine."""
    return _EXPORTS and torch.compiler.is_exporting()


def _of_one_vector(x: Tensor, weight: Tensor) -> Tensor:
    """x Wᵀ for a single x, as a sum that compiled code makes a loop of its own: a library's call takes as long again.

    The view has x written out first; it would be computed anew for each row of W.
    """
    return (x.as_strided(x.shape, x.stride()).unsqueeze(-2) * weight).sum(-1)


class Embedding(nn.Module):
    """A learned vector for each of `entries` ids.

    Args:
        entries: how many ids.
        width: numbers a vector.
        std: standard deviation of the starting vectors.
    """

    roles: ClassVar = {"weight": "embedding"}
    writes: ClassVar = False

    def __init__(self, entries: int, width: int, *, std: float):
        super().__init__()
        self.std = std
        self.weight = nn.Parameter(torch.zeros(entries, width))

    def start(self, generator: torch.Generator) -> None:
        """Draws the starting vectors."""
        self.weight.normal_(0.0, self.std, generator=generator)

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        return F.embedding(ids, self.weight)
