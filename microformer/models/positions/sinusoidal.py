"""Sinusoidal positions: each pair of coordinates is a clock hand, from fast to slow.

    P[t, 2i] = sin(t / base^(2i/d_model))     P[t, 2i+1] = cos(t / base^(2i/d_model))

Vaswani et al. 2017, "Attention Is All You Need", section 3.5. Holds no parameters.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microformer.models.positions.base import PositionKind


class Sinusoidal(PositionKind):
    """A fixed table of `places` vectors, of the size that untied embeddings start at."""

    table: Tensor

    def __init__(self, places: int, embed_dim: int, base: float):
        super().__init__()
        frequency = base ** (-torch.arange(0, embed_dim, 2) / embed_dim)
        angle = torch.arange(places)[:, None] * frequency
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)
        self.register_buffer("table", table, persistent=False)

    def embed(self, position: Int[Tensor, "*batch pos"]) -> Float[Tensor, "*batch pos d_model"]:
        return self.table[position.clamp_min(0)]
