"""MyMemory: of each segment's keys and values every other one goes over, the newest among them.

    the next segment sees  [every second of the last 2 M ; its own]

A coarser relative of Transformer-XL (Dai et al. 2019). A start: say in `between` what goes over.
"""

import torch
from torch import Tensor

from microformer.models.memory import Memory
from microformer.models.memory.base import caches, slots
from microformer.models.spec import ModelSpec
from microformer.models.state import State


class MyMemory(Memory):
    """What one segment of a text, as long as the context, leaves the next.

    Args:
        model: the whole model's sizes: model.embed_dim, model.max_seq_len …
        length: how many keys go over, M.
    """

    # Whether something goes over; then texts are read on from batch to batch (DATA_ORDER = streams).
    carries = True

    def __init__(self, model: ModelSpec, length: int = 32):
        super().__init__()
        self.length = length

    def between(self, state: State, written: Tensor | None) -> State:
        """The state that the next segment begins with. state: after a full segment; nothing in it may be changed."""
        layers = caches(state)  # of every layer, [batch head key d_head], the oldest key first
        at = slots(state, layers[0].keys.device)  # where these keys stand
        kept = torch.arange(len(at) - 1, -1, -2, device=at.device)[: self.length].flip(0)
        return state.next_segment(tuple(one.map(lambda x: x[:, :, kept]) for one in layers), past=at[kept])
