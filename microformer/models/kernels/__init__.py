"""Kernels: how queries, keys and values become one answer a query. One file a kind.

Every kernel is called `kernel(q, k, v, order, state, tap) -> (z, state)`:
    q           [batch head pos d_head], positions already turned in
    k, v        [batch kv_head pos d_head], the same
    order       where queries and keys stand, and what is added to their scores (models/positions/base.py)
    state       this layer's memory (models/state.py); None in a layer that has seen nothing
    tap         the attention's scope (models/taps.py)
    z           [batch head pos d_head]
"""

from microformer.models import spec
from microformer.models.kernels.base import Kernel
from microformer.models.kernels.differential import Differential
from microformer.models.kernels.entmax import Entmax
from microformer.models.kernels.linear import LinearAttention
from microformer.models.kernels.sigmoid import Sigmoid
from microformer.models.kernels.softmax import Softmax
from microformer.models.kernels.strided import Fixed, Strided
from microformer.models.kernels.topk import TopK
from microformer.models.kernels.window import Window

__all__ = [
    "Differential", "Entmax", "Fixed", "Kernel", "LinearAttention", "Sigmoid", "Softmax", "Strided", "TopK", "Window",
    "build",
]  # fmt: skip


def build(kind: spec.Attention, model: spec.ModelSpec) -> Kernel:
    """The kernel that a spec describes."""
    match kind:
        case spec.Softmax():
            return Softmax(model)
        case spec.Window(size=size, sinks=sinks):
            return Window(size, sinks, model)
        case spec.Strided(stride=stride):
            return Strided(stride, model)
        case spec.Fixed(stride=stride, columns=columns):
            return Fixed(stride, columns, model)
        case spec.Sparsemax():
            return Entmax(2.0, model)
        case spec.Entmax15():
            return Entmax(1.5, model)
        case spec.TopK(k=k):
            return TopK(k, model)
        case spec.Sigmoid():
            return Sigmoid(model)
        case spec.LinearAttention():
            return LinearAttention(model)
        case spec.Differential():
            return Differential(model)
        case spec.Own() as own:
            return own.build(model)
