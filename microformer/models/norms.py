"""Norms: what keeps the residual stream's size from deciding what a layer sees. Nothing crosses between positions."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from microformer.models import spec
from microformer.models.linear import exporting, like

# So many numbers are one token's: then what counts is how few operations there are, PyTorch's own being eight.
_FEW = 2**14


class Norm(nn.Module, ABC):
    """A map of vectors, each on its own, to vectors of a size that the layers can rely on."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The normed vectors, in x's precision."""


class LayerNorm(Norm):
    """y = gain · (x − mean(x)) / sqrt(var(x) + eps) [+ bias]

    Ba et al. 2016, "Layer Normalization".
    """

    roles: ClassVar = {"gain": "gain", "bias": "bias"}

    def __init__(self, width: int, eps: float, *, bias: bool):
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        gain, bias = self.gain, self.bias
        if x.device.type != "cpu" or exporting():  # a CPU takes them in float32 beside x, sooner than in x's precision
            gain, bias = like(gain, x), None if bias is None else like(bias, x)
        return torch.layer_norm(x, gain.shape, gain, bias, self.eps)


class RMSNorm(Norm):
    """y = gain · x / sqrt(mean(x²) + eps)

    Zhang and Sennrich 2019, "Root Mean Square Layer Normalization".
    """

    roles: ClassVar = {"gain": "gain"}

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        gain = like(self.gain, x)
        if x.device.type == "cpu" and not exporting():
            if x.numel() > _FEW or torch.is_grad_enabled():
                return _RMSNormOnCPU.apply(x, gain, self.eps)  # type: ignore[no-any-return]
            if x.dtype == torch.float32:  # others want their sum of squares in more digits, as PyTorch's own has it
                length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
                return x * torch.addcmul(torch.full((), self.eps), length, length, value=1 / x.shape[-1]).rsqrt() * gain
        return torch.rms_norm(x, gain.shape, gain, self.eps)


class _RMSNormOnCPU(torch.autograd.Function):
    """The same formula with its gradient written out: autograd's own, on a CPU, walks through three times the memory.

    With r = 1 / sqrt(mean(x²) + eps), n = x · r and d the width:
        dL/dgain = Σ dy · n        dL/dx = r · (dy · gain − n · Σ(dy · gain · n) / d)
    """

    @staticmethod
    def forward(ctx, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)  # a sum of squares needs more digits than bfloat16 has
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        r = torch.rsqrt(length.square() / x.shape[-1] + eps).to(x.dtype)
        normed = x * r
        ctx.save_for_backward(normed, r, gain)
        return normed * gain

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        normed, r, gain = ctx.saved_tensors
        product = dy * normed
        share = (product @ gain).unsqueeze(-1) / gain.shape[0]
        dx = torch.addcmul(dy * gain, normed, share, value=-1).mul_(r)
        return dx, product.reshape(-1, gain.shape[0]).sum(0), None


def build(model: spec.ModelSpec) -> Norm:
    """The norm of the stream that a model's spec describes."""
    match model.norm:
        case spec.LayerNorm(eps=eps):
            return LayerNorm(model.embed_dim, eps, bias=model.bias)
        case spec.RMSNorm(eps=eps):
            return RMSNorm(model.embed_dim, eps)
        case spec.Own() as own:
            return own.build(model)
