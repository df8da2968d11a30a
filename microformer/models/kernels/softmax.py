"""Dense causal attention, the oracle of every other kernel.

    pattern = softmax(q kᵀ / sqrt(d_head) + bias + mask)        z = pattern v

Vaswani et al. 2017, "Attention Is All You Need", section 3.2. Three roads to the same numbers: PyTorch's fused
attention, the formula in blocks of queries, and the formula as it stands where it is looked at. Knows nothing of
projections, heads' meaning or caches' owners.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from microformer.models.state import KVCache, Positions
from microformer.models.taps import Scope

# On a CPU the formula in blocks is faster than the fused kernel, several times so in its backward, until the scores of
# a block outgrow the cache.
_IN_BLOCKS_UP_TO = 256
# Queries a block: keys after the block's end are not even multiplied.
_BLOCK = 64


def softmax_attention(
    q: Float[Tensor, "batch head query d_head"],
    k: Float[Tensor, "batch head pos d_head"],
    v: Float[Tensor, "batch head pos d_head"],
    positions: Positions,
    bias: Tensor | None,
    state: KVCache | None,
    tap: Scope,
) -> tuple[Float[Tensor, "batch head query d_head"], KVCache]:
    """See the package's docstring for the arguments."""
    state = KVCache(k, v) if state is None else state.extend(k, v)
    k, v = state.keys, state.values
    looked_at = tap.wants("hook_attn_scores") or tap.wants("hook_pattern")
    if positions.fresh and bias is None and not looked_at:
        if q.device.type == "cpu" and k.shape[2] <= _IN_BLOCKS_UP_TO and positions.mask is not None:
            return _InBlocks.apply(q, k, v, positions.mask.to(q.dtype)), state  # type: ignore[return-value]
        return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1), state  # needs no mask made
    added = _added(positions, bias, q.dtype)
    if torch.compiler.is_compiling() and q.shape[2] == 1:
        return _one_query(q, k, v, added), state
    if looked_at:
        return _explicit(q, k, v, added, tap), state
    return F.scaled_dot_product_attention(q, k, v, attn_mask=added), state


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
        dq, dk, dv = [], torch.empty_like(k), torch.empty_like(v)
        # The last block comes first: it reaches every key, and what the others give is added to its.
        for (start, end), pattern in zip(reversed(_blocks(q.shape[1])), reversed(patterns), strict=True):
            q_here, dz_here, kept = q[:, start:end], dz[:, start:end], float(end < q.shape[1])
            d_scores = torch._softmax_backward_data(dz_here @ v[:, :end].mT, pattern, -1, pattern.dtype)
            dq.insert(0, d_scores @ k[:, :end])
            dk[:, :end].baddbmm_(d_scores.mT, q_here, beta=kept)
            dv[:, :end].baddbmm_(pattern.mT, dz_here, beta=kept)
        scale = q.shape[-1] ** -0.5
        return _joined(dq).mul_(scale).view(shape), dk.mul_(scale).view(shape), dv.view(shape), None


def _joined(blocks: list[Tensor]) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK, length)) for start in range(0, length, _BLOCK)]


def _explicit(q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, tap: Scope) -> Tensor:
    """The formula as it stands at the top of this file."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if added is not None:
        scores += added
    pattern = torch.softmax(tap("hook_attn_scores", scores), dim=-1)
    return tap("hook_pattern", pattern) @ v


def _one_query(q: Tensor, k: Tensor, v: Tensor, added: Tensor | None) -> Tensor:
    """The formula without products of matrices, for one query: compiled, sums and softmax become two loops."""
    scores = (q * q.shape[-1] ** -0.5 * k).sum(-1, keepdim=True).transpose(-2, -1)
    pattern = torch.softmax(scores if added is None else scores + added, dim=-1)
    return (pattern.transpose(-2, -1) * v).sum(-2, keepdim=True)


def _added(positions: Positions, bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What is added to the scores, with a head axis: the mask, the bias, both or nothing."""
    mask = positions.mask
    if mask is not None:
        mask = mask.to(dtype).unsqueeze(-3)
    if bias is None:
        return mask
    return bias.to(dtype) if mask is None else bias.to(dtype) + mask
