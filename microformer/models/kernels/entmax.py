"""Attention whose pattern has exact zeros: sparsemax and 1.5-entmax in softmax's place.

    p = [(α − 1) S − τ]₊^(1 / (α − 1))        with the τ for which p sums to 1

α = 2 is sparsemax (Martins and Astudillo 2016, "From Softmax to Sparsemax"): the nearest distribution to the scores
themselves. α = 1.5 lies between it and softmax, which is the limit of α → 1 (Peters et al. 2019, "Sparse
Sequence-to-Sequence Models"). Scores far below the highest get a share of exactly 0, and no gradient.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from microformer.models.kernels.base import Kernel
from microformer.models.linear import exporting
from microformer.models.spec import ModelSpec

# Rows a CPU solves at a time: what is looked at again and again then stays in its cache, which is seven times as fast.
_ROWS = 2048
_LONGEST = 2**24


class Entmax(Kernel):
    """Attention by α-entmax.

    Args:
        alpha: 2 for sparsemax, 1.5 for 1.5-entmax.
    """

    def __init__(self, alpha: float, model: ModelSpec):
        super().__init__(model)
        self.alpha = alpha

    def pattern(self, scores: Tensor) -> Tensor:
        return entmax(scores, self.alpha)


def entmax(scores: Tensor, alpha: float) -> Tensor:
    """α-entmax over the last axis, in float32 within. A row needs one score that is not −inf.

    Args:
        scores: any shape.
        alpha: 1.5 or 2.
    """
    return _solved(scores, alpha) if exporting() else _Entmax.apply(scores, alpha)  # type: ignore[return-value]


class _Entmax(torch.autograd.Function):
    """With g = p^(2 − α), which is 0 outside the support:    dS = g ⊙ (dp − Σ(g ⊙ dp) / Σ g)"""

    @staticmethod
    def forward(ctx, scores: Tensor, alpha: float) -> Tensor:
        wide = torch.promote_types(scores.dtype, torch.float32)
        rows = scores.to(wide).reshape(-1, scores.shape[-1])
        at_once = _ROWS if _on_cpu(rows) else max(1, len(rows))
        p = torch.cat([_solved(part, alpha) for part in rows.split(at_once)]).view(scores.shape).to(scores.dtype)
        ctx.save_for_backward(p)
        ctx.alpha = alpha
        return p

    @staticmethod
    @once_differentiable
    def backward(ctx, dp: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (p,) = ctx.saved_tensors
        g = (p > 0).to(p.dtype) if ctx.alpha == 2 else p.sqrt()
        weighted = g * dp
        return torch.addcmul(weighted, g, weighted.sum(-1, keepdim=True) / g.sum(-1, keepdim=True), value=-1), None


def _on_cpu(x: Tensor) -> bool:
    """Where asking a tensor for an answer costs no wait, and code can depend on it."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _solved(scores: Tensor, alpha: float) -> Tensor:
    """The p of each row. τ by Newton's method, all rows at once, each until it has its own.

    Σ p − 1 is convex in τ and falls; from a τ that is too small, every step lands nearer and none too far. There are as
    many rounds as the worst row of n scores can need in float32; most need five.
    """
    x = scores * (alpha - 1)
    x = x - x.amax(-1, keepdim=True)
    tau = torch.full_like(x[..., :1], -1.0)
    if exporting():
        tau = _looped(x, tau, alpha)
    else:
        for _ in range(_rounds(x.shape[-1])):
            tau, open_rows = _nearer(x, tau, alpha)
            if _on_cpu(x) and not bool(open_rows.any()):
                break
    return (x - tau).clamp_min_(0) ** round(1 / (alpha - 1))


def _rounds(n: int) -> int:
    return 2 * math.ceil(math.log2(n + 1)) + 12


def _nearer(x: Tensor, tau: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """τ after a round more, and which rows were still open before it."""
    r = (x - tau).clamp_min_(0)
    total = r.sum(-1, keepdim=True)
    # At α = 2 the sum of p is Σ r and its slope the support's size; at 1.5 they are Σ r² and 2 Σ r.
    if alpha == 2:
        excess, slope = total - 1, (r > 0).sum(-1, keepdim=True)
    else:
        excess, slope = r.square().sum(-1, keepdim=True) - 1, 2 * total
    open_rows = excess > 2 * torch.finfo(x.dtype).eps
    return tau + open_rows * (excess / slope), open_rows


def _looped(x: Tensor, tau: Tensor, alpha: float) -> Tensor:
    """The τ of all rows, as a loop that can be written down: the numbers end it, or the rounds of the longest row."""

    def again(tau: Tensor, open_rows: Tensor, left: Tensor) -> Tensor:
        return open_rows.any() & (left > 0)

    def nearer(tau: Tensor, open_rows: Tensor, left: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *_nearer(x, tau, alpha), left - 1

    all_open = torch.ones_like(tau, dtype=torch.bool)
    return torch.while_loop(again, nearer, (tau, all_open, torch.tensor(_rounds(_LONGEST))))[0]
