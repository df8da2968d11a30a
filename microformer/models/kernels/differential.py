"""Differential attention: two patterns a head, and the second, times λ, taken off the first: what both see cancels.

    pattern = softmax(q₁ k₁ᵀ / sqrt(d)) − λ softmax(q₂ k₂ᵀ / sqrt(d))        z = (1 − λ₀) RMSNorm(pattern v)
    λ = exp(λ_q1 · λ_k1) − exp(λ_q2 · λ_k2) + λ₀

Ye et al. 2024, "Differential Transformer". A head's queries and keys are split into two of half the width, d; the paper
has half as many heads instead. λ₀ is 0.8 in every layer, which the paper found as good as one that grows with depth.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microformer.models.kernels.base import Kernel
from microformer.models.linear import exporting, like
from microformer.models.norms import RMSNorm
from microformer.models.spec import ModelSpec
from microformer.models.taps import Scope

_LAMBDA_0 = 0.8


class Differential(Kernel):
    """Attention by the difference of two patterns. `hook_attn_scores` has all heads' first scores, then the second."""

    roles: ClassVar = {"lambdas": "gain"}

    def __init__(self, model: ModelSpec):
        super().__init__(model)
        self.lambdas = nn.Parameter(torch.zeros(4, model.d_head // 2))  # q1, k1, q2, k2
        self.norm = RMSNorm(model.d_head, 1e-5)

    def start(self, generator: torch.Generator) -> None:
        """Draws the starting weights."""
        self.lambdas.normal_(0.0, 0.1, generator=generator)

    def as_written(self, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, tap: Scope) -> Tensor:
        if added is not None and added.shape[-3] > 1:
            added = torch.cat([added, added], dim=-3)
        first, second = self.patterns(_halves(q), _halves(k), added, tap).chunk(2, dim=1)
        q1, k1, q2, k2 = self.lambdas.unbind()
        strength = torch.exp(q1 @ k1) - torch.exp(q2 @ k2) + _LAMBDA_0
        pattern = tap("hook_pattern", first - like(strength, first) * second)
        return self.norm(self.dropped(pattern) @ v) * (1 - _LAMBDA_0)

    def pattern(self, scores: Tensor) -> Tensor:
        return torch.softmax(scores, dim=-1)


def _halves(x: Float[Tensor, "batch head pos d_head"]) -> Float[Tensor, "batch two_heads pos half"]:
    """Every other number of each head, for all heads, then the rest.

    Neighbours and not halves: rope turns a number with its partner half a head away, and both must stay together.
    """
    if exporting():  # as for_each_head
        return torch.cat([x[..., ::2], x[..., 1::2]], dim=1)
    return x.unflatten(-1, (-1, 2)).movedim(-1, 1).flatten(1, 2)
