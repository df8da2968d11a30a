"""Memory: what goes over from one segment of a text to the next. One file a kind.

A model with a memory reads a text in segments as long as its context, however long the text is. When a segment is full,
its memory says what of the state the next one begins with (`between`); some put vectors of their own before a segment's
tokens and after them (`before`, `after`). What goes over is the caller's, in the State, like everything remembered.
"""

from microformer.models import spec
from microformer.models.memory.base import Memory
from microformer.models.memory.compressive import Compressive
from microformer.models.memory.knn import KNN, Retrieval
from microformer.models.memory.recurrent import Recurrent
from microformer.models.memory.tokens import MemoryTokens
from microformer.models.memory.xl import XL

__all__ = ["KNN", "XL", "Compressive", "Memory", "MemoryTokens", "Recurrent", "Retrieval", "build", "retrieval"]


def build(model: spec.ModelSpec) -> Memory:
    """The memory that a model's spec describes."""
    match model.memory:
        case spec.NoMemory():
            return Memory()
        case spec.XL(length=length):
            return XL(length)
        case spec.Compressive(length=length, pooled=pooled, rate=rate):
            return Compressive(length, pooled, rate)
        case spec.MemoryTokens(n=n):
            return MemoryTokens(n, model)
        case spec.Recurrent(tokens=tokens):
            return Recurrent(tokens, model)
        case spec.KNN(size=size):
            return KNN(size)
        case spec.Own() as own:
            return own.build(model)


def retrieval(model: spec.ModelSpec, block: int) -> Retrieval | None:
    """What looks up earlier segments' keys in a block's attention; None where nothing does."""
    if isinstance(model.memory, spec.KNN) and block == _three_quarters(model.num_layers):
        return Retrieval(model.memory.k, model)
    return None


def _three_quarters(layers: int) -> int:
    """The one block that retrieves: the ninth of twelve in the paper."""
    return (3 * layers + 3) // 4 - 1
