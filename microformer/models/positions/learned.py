"""Learned positions: a vector of its own for each place in the context.

    x_t = embed(token_t) + P_t

Radford et al. 2018 (GPT-1) and 2019 (GPT-2). Can't go beyond the longest context it was built for.
"""

from jaxtyping import Float, Int
from torch import Tensor

from microformer.models.linear import Embedding
from microformer.models.positions.base import PositionKind


class Learned(PositionKind):
    """A table of `places` vectors."""

    def __init__(self, places: int, embed_dim: int):
        super().__init__()
        self.table = Embedding(places, embed_dim, std=0.02)

    def embed(self, position: Int[Tensor, "*batch pos"]) -> Float[Tensor, "*batch pos d_model"]:
        # Slots before a row's start have negative positions; nobody attends to them, so any entry will do.
        return self.table(position.clamp_min(0))
