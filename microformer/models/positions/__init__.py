"""Positions: three places where a model can be told where a token stands. One file a kind."""

from microformer.models import spec
from microformer.models.positions.base import Order, PositionKind
from microformer.models.positions.learned import Learned
from microformer.models.positions.rope import Rope
from microformer.models.positions.sinusoidal import Sinusoidal

__all__ = ["Learned", "Order", "PositionKind", "Rope", "Sinusoidal", "build"]


def build(model: spec.ModelSpec) -> PositionKind:
    """The positions that a model's spec describes."""
    match model.positions:
        case spec.Learned():
            return Learned(model.max_seq_len, model.embed_dim)
        case spec.Sinusoidal(base=base):
            return Sinusoidal(model.max_seq_len, model.embed_dim, base)
        case spec.Rope(base=base):
            return Rope(model.max_seq_len, model.d_head, base)
        case spec.NoPositions():
            return PositionKind()
