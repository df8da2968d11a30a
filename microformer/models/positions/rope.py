"""Rotary positions: a query and a key are compared at the angle of their distance.

    (x_i, x_{i+d/2}) ← rotation by t · base^(−2i/d)      so that  q_s · k_t  depends on s − t alone

Su et al. 2021, "RoFormer"; the halves are paired as in Llama, not the neighbours as in the paper. The last number of
a head of odd width has no partner and stays as it is. No parameters.

A model can be made to read texts `stretch` times as long as it was trained on by slowing the slow angles and leaving
the fast ones: base ← base · stretch^(d / (d − 2)), "NTK-aware" scaling (bloc97 2023; Peng et al. 2023, "YaRN", 3.1).
"""

import torch
from jaxtyping import Int
from torch import Tensor

from microformer.models.positions.base import PositionKind, Turn


class Rope(PositionKind):
    """Turns of queries and keys.

    Args:
        places: how many positions there are, of which tables are made; None where a text has no end.
        d_head: width of a head.
        base, stretch: as above.
    """

    cos: Tensor
    sin: Tensor
    frequency: Tensor
    quarter_turn: Tensor

    def __init__(self, places: int | None, d_head: int, base: float, stretch: float = 1.0):
        super().__init__()
        if d_head > 2:
            base = base * stretch ** (d_head / (d_head - 2))
        pairs = d_head // 2
        frequency = base ** (-2 * torch.arange(pairs) / d_head)
        frequency = torch.cat([frequency, frequency, torch.zeros(d_head - 2 * pairs)])
        angle = torch.arange(places or 0)[:, None] * frequency
        # (x1, x2) → (−x2, x1) as a matrix: on a CPU the product is faster than moving halves about, elsewhere not.
        quarter_turn = torch.zeros(d_head, d_head)
        quarter_turn[:pairs, pairs : 2 * pairs] = torch.eye(pairs)
        quarter_turn[pairs : 2 * pairs, :pairs] = -torch.eye(pairs)
        self.bounded = places is not None
        self.register_buffer("frequency", frequency, persistent=False)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        self.register_buffer("quarter_turn", quarter_turn, persistent=False)

    def turn(self, position: Int[Tensor, "*batch pos"], dtype: torch.dtype) -> Turn:
        cos, sin = self._table(position) if self.bounded else self._computed(position)
        tables = tuple(table.to(dtype) for table in (cos.unsqueeze(-2), sin.unsqueeze(-2), self.quarter_turn))

        def turned(x: Tensor) -> Tensor:
            cos, sin, quarter_turn = (table.to(x.dtype) for table in tables)
            turned_on = x @ quarter_turn if x.device.type == "cpu" else _quarter_turned(x)
            return torch.addcmul(x * cos, turned_on, sin)

        return turned

    def _table(self, position: Tensor) -> tuple[Tensor, Tensor]:
        position = position.clamp_min(0)
        return self.cos[position], self.sin[position]

    def _computed(self, position: Tensor) -> tuple[Tensor, Tensor]:
        # In doubles: by a position of some millions a float has no digits left for the angle. Apple's GPUs have none.
        device = torch.device("cpu") if position.device.type == "mps" else position.device
        angle = position.to(device).double().unsqueeze(-1) * self.frequency.to(device)
        return angle.cos().float().to(position.device), angle.sin().float().to(position.device)


def _quarter_turned(x: Tensor) -> Tensor:
    """(x1, x2) → (−x2, x1), and 0 for a last number without partner."""
    pairs = x.shape[-1] // 2
    first, second, alone = x.split([pairs, pairs, x.shape[-1] - 2 * pairs], dim=-1)
    return torch.cat([-second, first, torch.zeros_like(alone)], dim=-1)
