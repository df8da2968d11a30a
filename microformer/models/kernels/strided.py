"""The Sparse Transformer's two patterns: every token is in reach of every later one in two layers.

    strided     keys with  query − key < stride  or  (query − key) mod stride = 0
    fixed       keys of the query's own block of `stride`, and the last `columns` of every block before it

Child et al. 2019, "Generating Long Sequences with Sparse Transformers", section 4.2; both parts in every head. Strided
suits what repeats at a fixed distance, as an image's rows do; fixed suits text.
"""

import torch
from torch import Tensor

from microformer.models.kernels.near import Near, minus_infinity_unless, places
from microformer.models.positions.base import Order
from microformer.models.spec import ModelSpec


class Strided(Near):
    """The last tokens, and every one a multiple of the stride back.

    Args:
        stride: the distance, and how many of the last tokens are seen.
    """

    def __init__(self, stride: int, model: ModelSpec):
        super().__init__(stride, before=True, model=model)

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        distance = query - key
        return (distance < self.block) | (distance % self.block == 0)

    # With the blocks under one another, the keys a multiple of the stride back are those above in the same column.
    def far_scores(self, q: Tensor, k: Tensor, blocks: slice, order: Order) -> Tensor:
        key_block = torch.arange(k.shape[2], device=q.device)
        added = minus_infinity_unless(key_block[blocks].unsqueeze(-1) > key_block)
        if order.bias is not None:
            column = places(slice(0, k.shape[2]), self.block, q.device).T
            added = added + order.bias(column[:, blocks], column).transpose(0, 1)
        return (self.capped(q.transpose(2, 3) @ k.transpose(2, 3).mT) + added.to(q.dtype)).transpose(2, 3)

    def far_values(self, shares: Tensor, v: Tensor) -> Tensor:
        return (shares.transpose(2, 3) @ v.transpose(2, 3)).transpose(2, 3)


class Fixed(Near):
    """The query's own block, and the last columns of those before it.

    Args:
        stride: tokens a block.
        columns: how many at the end of each block are seen from all later ones.
    """

    def __init__(self, stride: int, columns: int, model: ModelSpec):
        super().__init__(stride, before=False, model=model)
        self.columns = columns

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        own = torch.div(query, self.block, rounding_mode="floor") == torch.div(key, self.block, rounding_mode="floor")
        return own | (key % self.block >= self.block - self.columns)

    def far_scores(self, q: Tensor, k: Tensor, blocks: slice, order: Order) -> Tensor:
        key_block = torch.arange(k.shape[2], device=q.device)
        # The summaries of all blocks lie side by side: [block 1 all × columns].
        seen = key_block[blocks].unsqueeze(-1) > key_block.repeat_interleave(self.columns)
        added = minus_infinity_unless(seen).unsqueeze(1)
        if order.bias is not None:
            place = places(slice(0, k.shape[2]), self.block, q.device)
            far = place[:, -self.columns :].flatten().expand(q.shape[2], -1)
            added = added + order.bias(place[blocks], far).transpose(0, 1)
        return self.capped(q @ self._summaries(k).mT) + added.to(q.dtype)

    def far_values(self, shares: Tensor, v: Tensor) -> Tensor:
        return shares @ self._summaries(v)

    def _summaries(self, x: Tensor) -> Tensor:
        return x[:, :, :, -self.columns :].flatten(2, 3).unsqueeze(2)
