"""Dense causal attention, the oracle of every other kind.

    pattern = softmax(q kᵀ / sqrt(d_head) + bias + mask)        z = pattern v

Vaswani et al. 2017, "Attention Is All You Need", section 3.2. Three roads to the same numbers: PyTorch's fused
attention, the formula in blocks of queries, and the formula as it stands where it is looked at.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from microformer.models.kernels.base import Kernel
from microformer.models.positions.base import Order
from microformer.models.state import LayerState
from microformer.models.taps import Scope

# On a CPU the formula in blocks is faster than the fused kernel, several times so in its backward, until the scores of
# a block outgrow the cache.
_IN_BLOCKS_UP_TO = 256
# Queries a block: keys after the block's end are not even multiplied.
_BLOCK = 64


class Softmax(Kernel):
    """Each query's shares are positive and sum to 1."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, order: Order, state: LayerState | None, tap: Scope
    ) -> tuple[Tensor, LayerState]:
        k, v, state = self.remember(k, v, state)
        return self.mixed(q, k, v, order, tap), state

    def mixed(self, q: Tensor, k: Tensor, v: Tensor, order: Order, tap: Scope) -> Tensor:
        """z, by the fastest road that there is for what is asked."""
        fresh = order.where.fresh and order.bias is None
        if fresh and q.device.type == "cuda" and not self.cap and not self.looked_at(tap):
            # The fused kernel drops shares of the pattern without ever having it as a whole.
            dropped = self.dropout if self.training else 0.0
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropped, is_causal=q.shape[2] > 1)
        if not self.plain or self.looked_at(tap):
            return self.as_written(q, k, v, order.added, tap)
        if fresh:
            if q.device.type == "cpu" and k.shape[2] <= _IN_BLOCKS_UP_TO and order.where.mask is not None:
                return _InBlocks.apply(q, k, v, order.where.mask.to(q.dtype))  # type: ignore[return-value]
            return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)  # needs no mask made
        added = None if order.added is None else order.added.to(q.dtype)
        if torch.compiler.is_compiling() and q.shape[2] == 1:
            return _one_query(q, k, v, added)
        if q.shape[2] == 1 and q.device.type == "cpu" and q.dtype == torch.float32 and not torch.is_grad_enabled():
            return _one_query_each(q, k, v, added)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=added)

    def pattern(self, scores: Tensor) -> Tensor:
        return torch.softmax(scores, dim=-1)


class _InBlocks(torch.autograd.Function):
    """The formula for some queries at a time, with its gradient written out: autograd's own fills and adds whole
    tensors for each block.

    With s = 1 / sqrt(d_head), P the pattern and dP = dz vᵀ:
        dS = P ⊙ (dP − Σ(dP ⊙ P))        dq = s dS k        dk = s dSᵀ q        dv = Pᵀ dz
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        batch, heads, length, width = q.shape
        q, k, v = (one.reshape(batch * heads, length, width) for one in (q, k, v))
        z, patterns = [], []
        for start, end in _blocks(length):
            added = mask[start:end, :end].expand(len(q), -1, -1)
            scores = torch.baddbmm(added, q[:, start:end], k[:, :end].mT, alpha=width**-0.5)
            patterns.append(torch.softmax(scores, dim=-1))
            z.append(patterns[-1] @ v[:, :end])
        ctx.save_for_backward(q, k, v, *patterns)
        return _joined(z).view(batch, heads, length, width)

    @staticmethod
    @once_differentiable
    def backward(ctx, dz: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        q, k, v, *patterns = ctx.saved_tensors
        shape, dz = dz.shape, dz.reshape(q.shape)
        scale, dq, dk, dv = q.shape[-1] ** -0.5, [], torch.empty_like(k), torch.empty_like(v)
        # The last block comes first: it reaches every key, and what the others give is added to its.
        for (start, end), pattern in zip(reversed(_blocks(q.shape[1])), reversed(patterns), strict=True):
            q_here, dz_here, kept = q[:, start:end], dz[:, start:end], float(end < q.shape[1])
            d_scores = torch._softmax_backward_data(dz_here @ v[:, :end].mT, pattern, -1, pattern.dtype)
            dq.insert(0, torch.empty_like(q_here).baddbmm_(d_scores, k[:, :end], beta=0, alpha=scale))
            dk[:, :end].baddbmm_(d_scores.mT, q_here, beta=kept, alpha=scale)
            dv[:, :end].baddbmm_(pattern.mT, dz_here, beta=kept)
        return _joined(dq).view(shape), dk.view(shape), dv.view(shape), None


def _joined(blocks: list[Tensor]) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK, length)) for start in range(0, length, _BLOCK)]


def _one_query(q: Tensor, k: Tensor, v: Tensor, added: Tensor | None) -> Tensor:
    """The formula without products of matrices, for one query: compiled, sums and softmax become two loops."""
    scores = (q * q.shape[-1] ** -0.5 * k).sum(-1, keepdim=True).transpose(-2, -1)
    pattern = torch.softmax(scores if added is None else scores + added, dim=-1)
    return (pattern.transpose(-2, -1) * v).sum(-2, keepdim=True)


def _one_query_each(q: Tensor, k: Tensor, v: Tensor, added: Tensor | None) -> Tensor:
    """The formula for one query a row, with as few operations as there are: the fused kernel takes longer to begin."""
    batch, heads, _, width = q.shape
    q, keys, values = q.flatten(0, 1), k.flatten(0, 1).mT, v.flatten(0, 1)
    if added is None:
        scores = torch.bmm(q * width**-0.5, keys)
    else:
        if added.dim() > 2:
            added = added.expand(batch, heads, -1, -1).flatten(0, 1)
        scores = torch.baddbmm(added, q, keys, alpha=width**-0.5)
    return torch.bmm(torch.softmax(scores, dim=-1), values).view(batch, heads, 1, width)
