"""T5's relative bias: a learned number for each head and distance, the far distances in common buckets.

    S ← S + b_h[bucket(query − key)]        bucket(d) = d for d < n / 2, and beyond
                                            n / 2 + n / 2 · ln(2 d / n) / ln(2 D / n), at most n − 1

Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.1, in its causal form: with n buckets, half
of them for the nearest distances and half for logarithmically growing spans up to D. All layers share the table.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microformer.models.linear import Embedding
from microformer.models.positions.base import PositionKind


class T5(PositionKind):
    """A table of biases.

    Args:
        num_heads: heads of the queries.
        buckets: n.
        distance: D; whatever is further back is in the last bucket.
    """

    def __init__(self, num_heads: int, buckets: int, distance: int):
        super().__init__()
        self.buckets, self.distance = buckets, distance
        self.table = Embedding(buckets, num_heads, std=0.02)

    def bias(
        self, query: Int[Tensor, "*batch query"], key: Int[Tensor, "*batch key"]
    ) -> Float[Tensor, "*batch head query key"]:
        distance = (query.unsqueeze(-1) - key.unsqueeze(-2)).clamp_min(0)
        return self.table(self.bucket(distance)).movedim(-1, -3)

    def bucket(self, distance: Int[Tensor, "*pairs"]) -> Int[Tensor, "*pairs"]:
        """The bucket of each distance."""
        near = self.buckets // 2
        far = torch.log(distance.clamp_min(1) / near) / math.log(self.distance / near) * (self.buckets - near)
        return torch.where(distance < near, distance, (near + far.long()).clamp_max(self.buckets - 1))
