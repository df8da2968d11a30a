"""Attention to keys nearby and a few far ones, for less work than all pairs are: what window, strided and fixed share.

The text is cut into blocks. The near keys of a query are those less than a block back, in its own block and the one
before it or in its own alone; which far ones there are, a kind says. Scores of both stand side by side under one
softmax, so nothing is computed for pairs that are neither. The near ones' work grows with the length times the block,
and a window's with it; strided and fixed have far keys in every block before, the length squared over the block (times
the columns): least where the block is near the length's square root.

`sees` is the kind's definition, and the formula with all other pairs masked (`as_written`) the oracle; it is also the
road for who wants to see the pattern, for texts of one block and for tokens that come after others.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from microformer.models.kernels.base import Kernel
from microformer.models.positions.base import Order
from microformer.models.spec import ModelSpec
from microformer.models.state import LayerState
from microformer.models.taps import Scope

# Scores that a CPU computes at a time: what is made of them then stays in its cache.
_SCORES = 2**21


class Near(Kernel):
    """Softmax over near keys and far ones.

    Args:
        block: tokens a block.
        before: whether near keys may be in the block before.
    """

    def __init__(self, block: int, before: bool, model: ModelSpec):
        super().__init__(model)
        self.block, self.before = block, before

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, order: Order, state: LayerState | None, tap: Scope
    ) -> tuple[Tensor, LayerState]:
        k, v, state = self.remember(k, v, state)
        plain = order.where.fresh and not order.where.tokens
        if plain and not self.looked_at(tap) and q.shape[2] > self.block:
            return self.in_parts(q, k, v, order), state
        k, v, order = self.in_reach(q, k, v, order)
        return self.as_written(q, k, v, self.added(order), tap), state

    def pattern(self, scores: Tensor) -> Tensor:
        return torch.softmax(scores, dim=-1)

    def in_reach(self, q: Tensor, k: Tensor, v: Tensor, order: Order) -> tuple[Tensor, Tensor, Order]:
        """Keys and values without those that no query here sees, where a kind can tell; the order of what is left."""
        return k, v, order

    def in_parts(self, q: Tensor, k: Tensor, v: Tensor, order: Order) -> Tensor:
        """z of a whole text."""
        length = q.shape[2]
        q, k, v = (
            F.pad(one, (0, 0, 0, -length % self.block)).unflatten(2, (-1, self.block))
            for one in (q * q.shape[-1] ** -0.5, k, v)
        )
        near_k, near_v = (_with_before(one) if self.before else one for one in (k, v))
        added = self.near_added(q.shape[2], order, q.device).to(q.dtype)
        all_blocks, scores_a_block = q.shape[2], q.shape[0] * q.shape[1] * self.block * near_k.shape[3]
        at_once = max(1, _SCORES // scores_a_block) if q.device.type == "cpu" else all_blocks
        z = []
        for i, (some_q, some_k, some_v) in enumerate(
            zip(*(one.split(at_once, dim=2) for one in (q, near_k, near_v)), strict=True)
        ):
            blocks = slice(i * at_once, i * at_once + some_q.shape[2])
            near = self.capped(some_q @ some_k.mT) + (added if added.dim() == 2 else added[:, blocks])
            if self.before and i == 0:
                near[:, :, 0, :, : self.block] = float("-inf")  # before the first block there is none
            z.append(self._taken(near, self.far_scores(some_q, k, blocks, order), some_v, v))
        return torch.cat(z, dim=2).flatten(2, 3)[:, :, :length]

    def _taken(self, near: Tensor, far: Tensor | None, near_v: Tensor, v: Tensor) -> Tensor:
        """What some blocks' queries take of near and far values, their scores under one softmax."""
        if far is None:
            return self.dropped(torch.softmax(near, dim=-1)) @ near_v
        pattern = self.dropped(torch.softmax(torch.cat([near, far], dim=-1), dim=-1))
        near_shares, far_shares = pattern.split([near.shape[-1], far.shape[-1]], dim=-1)
        return near_shares @ near_v + self.far_values(far_shares, v)

    def near_added(self, blocks: int, order: Order, device: torch.device) -> Float[Tensor, "*head_block query near"]:
        """What is added to the scores of the near keys; the same for every block where there is no bias."""
        query = torch.arange(self.block, device=device) + self.block * self.before
        key = torch.arange(self.block * (1 + self.before), device=device)
        distance = query.unsqueeze(-1) - key
        mask = minus_infinity_unless((distance >= 0) & (distance < self.block))
        if order.bias is None:
            return mask
        start = self.block * torch.arange(blocks, device=device).unsqueeze(-1)
        place = start + torch.arange(self.block, device=device)
        near_place = start - self.block * self.before + key
        return mask + order.bias(place, near_place.clamp_min(0)).transpose(0, 1)

    def far_scores(
        self, q: Float[Tensor, "batch head block query d_head"], k: Float[Tensor, "batch head all query d_head"],
        blocks: slice, order: Order,
    ) -> Float[Tensor, "batch head block query far"] | None:  # fmt: skip
        """Scores of the far keys, −inf where one is near or not to be seen; None where nothing is far.

        Args: the queries of some blocks; all keys; which of all blocks the queries' are; the order of all.
        """
        raise NotImplementedError

    def far_values(
        self, shares: Float[Tensor, "batch head block query far"], v: Float[Tensor, "batch head all query d_head"]
    ) -> Float[Tensor, "batch head block query d_head"]:
        """What the queries take of the far values."""
        raise NotImplementedError


def places(blocks: slice, block: int, device: torch.device) -> Int[Tensor, "block query"]:
    """Where the tokens of some blocks stand."""
    return torch.arange(blocks.start * block, blocks.stop * block, device=device).unflatten(0, (-1, block))


def minus_infinity_unless(seen: Bool[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    """0 where seen, else −inf."""
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, float("-inf"))


def _with_before(blocks: Float[Tensor, "batch head block key d_head"]) -> Float[Tensor, "batch head block near d_head"]:
    """Each block with the one before it in front, zeros before the first."""
    return torch.cat([F.pad(blocks, (0, 0, 0, 0, 1, 0))[:, :, :-1], blocks], dim=3)


def cut(order: Order, slots: slice) -> Order:
    """The order of some of the keys."""
    return replace(order, where=replace(order.where, key=order.where.key[..., slots]))
