"""Dense causal attention, the oracle of every other kernel.

    pattern = softmax(q kᵀ / sqrt(d_head) + bias + mask)        z = pattern v

Vaswani et al. 2017, "Attention Is All You Need", section 3.2. Two roads to the same numbers: PyTorch's fused
attention, and the formula itself. Knows nothing of projections, heads' meaning or caches' owners.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from microformer.models.state import KVCache, Positions
from microformer.models.taps import Scope

# On a CPU the formula in blocks is faster than the fused kernel, twice so in its backward, until the scores of a block
# outgrow the cache.
_EXPLICIT_UP_TO = 256
# Queries a block of the explicit road: keys after the block's end are not even multiplied.
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
    in_blocks = q.device.type == "cpu" and positions.fresh and k.shape[2] <= _EXPLICIT_UP_TO
    if positions.fresh and bias is None and not (looked_at or in_blocks):
        return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1), state  # needs no mask made
    added = _added(positions, bias, q.dtype)
    if torch.compiler.is_compiling() and q.shape[2] == 1:
        return _one_query(q, k, v, added), state
    if looked_at:
        return _explicit(q, k, v, added, tap), state
    if in_blocks:
        blocks = []
        for end in range(_BLOCK, k.shape[2] + _BLOCK, _BLOCK):
            mask = None if added is None else added[..., end - _BLOCK : end, :end]
            blocks.append(_explicit(q[:, :, end - _BLOCK : end], k[:, :, :end], v[:, :, :end], mask, tap))
        return torch.cat(blocks, dim=2), state
    return F.scaled_dot_product_attention(q, k, v, attn_mask=added), state


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
