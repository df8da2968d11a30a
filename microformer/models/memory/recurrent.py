"""A memory that is read and written: vectors before a segment, and what the model makes of them after it.

    the layers read  [m ; x_1 … x_L ; m]        the next segment's m = what they make of the last ones

Bulatov et al. 2022, "Recurrent Memory Transformer", in its decoder-only form. The tokens before the segment are seen by
all of it; those after it, the same vectors, see the whole segment and write. Nothing else goes over, so what a segment
tells the next must pass through a few vectors; what is worth telling is learned, by gradients that go back through
them. The vectors handed on are those of the normed stream, of the size that embeddings have.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from microformer.models.memory.tokens import MemoryTokens
from microformer.models.state import State


class Recurrent(MemoryTokens):
    """Memory tokens that go over from segment to segment; the first segment of a text reads learned ones."""

    carries = True
    segments = 2

    def before(self, state: State, rows: int) -> Float[Tensor, "batch token d_model"]:
        learned = self.learned.expand(rows, -1, -1)
        if state.tokens is None:
            return learned
        if state.starts is None:
            return state.tokens
        return torch.where((state.starts == state.segment)[:, None, None], learned, state.tokens)

    def after(self, state: State, rows: int) -> Float[Tensor, "batch token d_model"]:
        return self.before(state, rows)

    def between(self, state: State, written: Float[Tensor, "batch token d_model"] | None) -> State:
        return state.next_segment((None,) * len(state.layers), tokens=written)
