"""Linear attention: keys and values are summed up once, and every query reads the sum.

    z_i = φ(q_i)ᵀ Σ_j φ(k_j) v_jᵀ / φ(q_i)ᵀ Σ_j φ(k_j)        j ≤ i        φ(x) = elu(x) + 1

Katharopoulos et al. 2020, "Transformers are RNNs". The work grows with the length, and what is remembered is one sum a
head, however long the text. A text is read in blocks: within a block by pairs, before it by the sum. The pattern that
a tap is shown is φ(q_i)ᵀφ(k_j) over the sum of its row, of the tokens at hand.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from microformer.models.kernels.base import Kernel
from microformer.models.positions.base import Order
from microformer.models.state import LayerState, RunningSum
from microformer.models.taps import Scope

_BLOCK = 64


class LinearAttention(Kernel):
    """Attention by running sums. Has no use for biases, caps or dropout of a pattern it never makes."""

    scores = False
    keeps_keys = False

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, order: Order, state: LayerState | None, tap: Scope
    ) -> tuple[Tensor, LayerState]:
        assert state is None or isinstance(state, RunningSum)
        q, k, v = _positive(q), _positive(self.for_each_head(k)), self.for_each_head(v)
        # A column of ones beside the values sums up what they are divided by.
        v = F.pad(v, (0, 1), value=1.0)
        wide = torch.promote_types(q.dtype, torch.float32)  # sums over a whole text want more digits than bfloat16 has
        before = q.new_zeros((*k.shape[:2], k.shape[3], v.shape[3]), dtype=wide) if state is None else state.sums
        if self.looked_at(tap):
            z, sums = _by_pairs(q, k, v, before, tap)
        else:
            z, sums = _by_blocks(q, k, v, before)
        return z[..., :-1] / z[..., -1:].clamp_min(torch.finfo(z.dtype).tiny), RunningSum(sums)


def _positive(x: Tensor) -> Tensor:
    """φ, written so that it stays above 0 where elu(x) rounds to −1."""
    return torch.where(x > 0, x + 1, x.clamp_max(0).exp())


def _by_blocks(q: Tensor, k: Tensor, v: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """The sums before division, [batch head pos d_head + 1], and the running sum after them."""
    length = q.shape[2]
    if length == 1:
        before = before + (k.mT @ v).to(before.dtype)
        return q @ before.to(q.dtype), before
    block = min(_BLOCK, length)
    q, k, v = (F.pad(one, (0, 0, 0, -length % block)).unflatten(2, (-1, block)) for one in (q, k, v))
    # The padding was never made positive: its keys are 0 and add nothing.
    running = before.unsqueeze(2) + F.pad((k.mT @ v).to(before.dtype).cumsum(2), (0, 0, 0, 0, 1, 0))
    z = (q @ k.mT).tril() @ v + q @ running[:, :, :-1].to(q.dtype)
    return z.flatten(2, 3)[:, :, :length], running[:, :, -1]


def _by_pairs(q: Tensor, k: Tensor, v: Tensor, before: Tensor, tap: Scope) -> tuple[Tensor, Tensor]:
    """The same, from the scores of every pair."""
    scores = tap("hook_attn_scores", (q @ k.mT).tril())
    whole = scores.sum(-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
    pattern = tap("hook_pattern", scores / whole)
    return pattern * whole @ v + q @ before.to(q.dtype), before + (k.mT @ v).to(before.dtype)
