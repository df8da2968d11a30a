"""Positions: three places where a model can be told where a token stands (base.py). One file a kind."""

from microformer.models import spec
from microformer.models.positions.alibi import Alibi
from microformer.models.positions.base import Order, PositionKind
from microformer.models.positions.learned import Learned
from microformer.models.positions.rope import Rope
from microformer.models.positions.sinusoidal import Sinusoidal
from microformer.models.positions.t5 import T5

__all__ = ["T5", "Alibi", "Learned", "Order", "PositionKind", "Rope", "Sinusoidal", "build"]


def build(model: spec.ModelSpec) -> PositionKind:
    """The positions that a model's spec describes."""
    match model.positions:
        case spec.Learned():
            return Learned(model.places or 0, model.embed_dim)
        case spec.Sinusoidal(base=base):
            return Sinusoidal(model.places or 0, model.embed_dim, base)
        case spec.Rope(base=base, stretch=stretch):
            return Rope(model.places, model.d_head, base, stretch)
        case spec.Alibi():
            return Alibi(model.num_heads)
        case spec.T5(buckets=buckets, distance=distance):
            return T5(model.num_heads, buckets, distance)
        case spec.NoPositions():
            return PositionKind()
        case spec.Own() as own:
            return own.build(model)
