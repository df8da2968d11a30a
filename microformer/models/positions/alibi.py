"""ALiBi: the further back a key, the less its score, each head at its own rate.

    S ← S − m_h · (query − key)        m_h = 2^(−8 h / H),  h = 1 … H

Press et al. 2022, "Train Short, Test Long". Where the number of heads H is no power of 2, the heads beyond the power
below take every other rate of the power above, as in the paper's code. No parameters.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microformer.models.positions.base import PositionKind


class Alibi(PositionKind):
    """A bias that falls with distance.

    Args:
        num_heads: heads of the queries.
    """

    slopes: Tensor

    def __init__(self, num_heads: int):
        super().__init__()
        power = 2 ** math.floor(math.log2(num_heads))
        rates = [_rates(power), _rates(2 * power)[::2]]
        self.register_buffer("slopes", torch.cat(rates)[:num_heads], persistent=False)

    def bias(
        self, query: Int[Tensor, "*batch query"], key: Int[Tensor, "*batch key"]
    ) -> Float[Tensor, "*batch head query key"]:
        distance = query.unsqueeze(-1) - key.unsqueeze(-2)
        return -self.slopes[:, None, None] * distance.unsqueeze(-3)


def _rates(heads: int) -> Tensor:
    return 2.0 ** (-8 * torch.arange(1, heads + 1) / heads)
