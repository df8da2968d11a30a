"""Segment recurrence: a segment's queries see the last keys and values of the segments before it.

    keys, values of a layer = [the last M before the segment ; the segment's own]

Dai et al. 2019, "Transformer-XL", section 3.2. Information moves back a segment a layer, so that N layers see about
N · M tokens far. The paper keeps hidden states and projects them again with newer weights; here keys and values are
kept, as in Wu et al. 2022, "Memorizing Transformers", and in generation's cache. In training no gradient goes back
into the last segment: the loop cuts it between batches.
"""

from torch import Tensor

from microformer.models.memory.base import Memory, caches, slots
from microformer.models.state import State


class XL(Memory):
    """The last keys go over.

    Args:
        length: how many, M.
    """

    carries = True

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    def between(self, state: State, written: Tensor | None) -> State:
        layers = caches(state)
        past = slots(state, layers[0].keys.device)[-self.length :]
        return state.next_segment(tuple(one.last(len(past)) for one in layers), past=past)
