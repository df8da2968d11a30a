"""Sliding-window attention: each query sees the last `size` tokens, itself among them, and the text's first few.

    softmax over keys with  query − key < size  or  key < sinks

Child et al. 2019, section 4; Beltagy et al. 2020, "Longformer"; Jiang et al. 2023, "Mistral 7B". The first tokens, seen
from everywhere, are the sinks of Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks".
"""

import torch
from torch import Tensor

from microformer.models.kernels.near import Near, cut, minus_infinity_unless, places
from microformer.models.positions.base import Order
from microformer.models.spec import ModelSpec


class Window(Near):
    """Attention to the last tokens.

    Args:
        size: how many tokens a query sees.
        sinks: how many of the text's first tokens it sees besides.
    """

    def __init__(self, size: int, sinks: int, model: ModelSpec):
        super().__init__(size, before=True, model=model)
        self.sinks = sinks

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        near = query - key < self.block
        return near | (key < self.sinks) if self.sinks else near

    def in_reach(self, q: Tensor, k: Tensor, v: Tensor, order: Order) -> tuple[Tensor, Tensor, Order]:
        # Where a row's text begins, and so its sinks, is its own affair: then nothing is cut. Nor where slots are free,
        # or memory tokens come first.
        reach = self.block + q.shape[2] - 1
        if self.sinks or order.where.tokens or not order.where.filled or k.shape[2] <= reach:
            return k, v, order
        return k[:, :, -reach:], v[:, :, -reach:], cut(order, slice(-reach, None))

    def far_scores(self, q: Tensor, k: Tensor, blocks: slice, order: Order) -> Tensor | None:
        if not self.sinks:
            return None
        place, sinks = places(blocks, self.block, q.device), k[:, :, :1, : self.sinks]
        first = torch.arange(self.sinks, device=q.device)
        added = minus_infinity_unless(place.unsqueeze(-1) - first >= self.block)
        if order.bias is not None:
            added = added + order.bias(place, first.expand(len(place), -1)).transpose(0, 1)
        return self.capped(q @ sinks.mT) + added.to(q.dtype)

    def far_values(self, shares: Tensor, v: Tensor) -> Tensor:
        return shares @ v[:, :, :1, : self.sinks]
