"""What all kernels have in common: the formula of attention, with the mapping from scores to a pattern left open.

    S = q kᵀ / sqrt(d_head) [squeezed into ±cap] + bias + mask        z = pattern(S) v

A kind of attention is a Kernel that says what `pattern` is, which keys it `sees`, or both; its file has the formula and
the paper. Where a kind knows a faster road, it takes it in `forward` and leaves this one to those who look. Knows
nothing of projections, of the heads' meaning or of who owns the memory.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from microformer.models.linear import exporting
from microformer.models.positions.base import Order
from microformer.models.spec import ModelSpec
from microformer.models.state import KVCache, LayerState
from microformer.models.taps import Scope


class Kernel(nn.Module):
    """How queries, keys and values become one answer a query.

    Args:
        model: whose heads, score cap and attention dropout it works with.
    """

    # What it shows a tap, in this order.
    tap_names: Sequence[str] = ("hook_attn_scores", "hook_pattern")
    # Whether there are scores of pairs, which a position's bias is added to and SCORE_CAP squeezes.
    scores: ClassVar[bool] = True
    # Whether what it remembers is a cache of keys and values, of which a memory can hold on to some.
    keeps_keys: ClassVar[bool] = True

    def __init__(self, model: ModelSpec):
        super().__init__()
        self.queries_a_key = model.num_heads // model.kv_heads
        self.cap = model.score_cap
        self.dropout = model.attention_dropout

    def forward(
        self,
        q: Float[Tensor, "batch head query d_head"],
        k: Float[Tensor, "batch kv_head query d_head"],
        v: Float[Tensor, "batch kv_head query d_head"],
        order: Order,
        state: LayerState | None,
        tap: Scope,
    ) -> tuple[Float[Tensor, "batch head query d_head"], LayerState]:
        """See the package's docstring for the arguments."""
        k, v, state = self.remember(k, v, state)
        return self.as_written(q, k, v, self.added(order), tap), state

    def pattern(self, scores: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        """How much of each key's value a query takes. Scores are −inf where it may not look."""
        raise NotImplementedError("a kernel says what its `pattern` is, or has a `forward` that needs none")

    def sees(
        self, query: Int[Tensor, "*batch query 1"], key: Int[Tensor, "*batch 1 key"]
    ) -> Bool[Tensor, "*batch query key"] | None:
        """Which of the keys before it a query at such a position looks at; None for all of them."""
        return None

    def remember(self, k: Tensor, v: Tensor, state: LayerState | None) -> tuple[Tensor, Tensor, KVCache]:
        """Keys and values with those seen before, a head for each head of the queries; and the next memory."""
        assert state is None or isinstance(state, KVCache)
        state = KVCache(k, v) if state is None else state.extend(k, v)
        return self.for_each_head(state.keys), self.for_each_head(state.values), state

    def for_each_head(self, x: Float[Tensor, "batch kv_head key d_head"]) -> Float[Tensor, "batch head key d_head"]:
        """Keys or values that several heads' queries share, once for each (Ainslie et al. 2023, "GQA")."""
        if self.queries_a_key == 1:
            return x
        if exporting():  # where a length is a sum, PyTorch can't tell the order of a repetition's strides
            return x[:, torch.arange(x.shape[1] * self.queries_a_key, device=x.device) // self.queries_a_key]
        return x.repeat_interleave(self.queries_a_key, dim=1)

    def added(self, order: Order) -> Float[Tensor, "*batch head query key"] | None:
        """What is added to the scores: the bias, and −inf where a query does not look."""
        query, key = order.where.query.unsqueeze(-1), order.where.key.unsqueeze(-2)
        seen = self.sees(query, key)
        if seen is None:
            return order.added
        seen[..., : order.where.tokens] = True
        unseen = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, float("-inf")).unsqueeze(-3)
        return unseen if order.added is None else unseen + order.added

    def as_written(self, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, tap: Scope) -> Tensor:
        """The formula as it stands at the top of this file: the oracle of every faster road."""
        return self.dropped(tap("hook_pattern", self.patterns(q, k, added, tap))) @ v

    def patterns(self, q: Tensor, k: Tensor, added: Tensor | None, tap: Scope) -> Tensor:
        """The pattern of queries and keys."""
        scores = self.capped((q * q.shape[-1] ** -0.5) @ k.mT)
        if added is not None:
            scores = scores + added.to(scores.dtype)
        return self.pattern(tap("hook_attn_scores", scores))

    def capped(self, scores: Tensor) -> Tensor:
        """Scores squeezed into ±cap, where there is one."""
        return self.cap * torch.tanh(scores / self.cap) if self.cap else scores

    def dropped(self, pattern: Tensor) -> Tensor:
        """A pattern with some shares left out by chance, in training."""
        return F.dropout(pattern, self.dropout) if self.training and self.dropout else pattern

    def looked_at(self, tap: Scope) -> bool:
        """Whether someone wants to see scores or pattern, which the faster roads never have as a whole."""
        return tap.wants("hook_attn_scores") or tap.wants("hook_pattern")

    @property
    def plain(self) -> bool:
        """Whether nothing is done to scores or pattern that the faster roads leave out."""
        return not self.cap and not (self.training and self.dropout)
