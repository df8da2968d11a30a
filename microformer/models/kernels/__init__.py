"""Kernels: how queries, keys and values become one answer a query. One file a kind.

Every kernel is called `kernel(q, k, v, positions, bias, state, tap) -> (z, state)`:
    q, k, v     [batch head pos d_head], positions already turned in
    positions   where queries and keys stand (models/state.py); the keys include those remembered
    bias        added to the scores, or None. [head query key], or with a batch axis in front
    state       this layer's KVCache; None in a layer that has seen nothing
    tap         the attention's scope (models/taps.py)
    z           [batch head pos d_head]
"""

from microformer.models import spec
from microformer.models.kernels.softmax import softmax_attention

__all__ = ["build", "softmax_attention"]


def build(kind: spec.Attention):
    """The kernel that a spec describes."""
    match kind:
        case spec.Softmax():
            return softmax_attention
