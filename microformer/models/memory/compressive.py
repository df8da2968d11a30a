"""A memory of two ages: the last keys and values as they were, and older ones pooled, several into one.

    keys of a layer = [the last P pooled ; the last M ; the segment's own]      pooled = mean of each `rate` in a row

Rae et al. 2019, "Compressive Transformers for Long-Range Sequence Modelling", with its mean pooling. A pooled key's
score is the mean of the scores of those it stands for, turned to their own positions; where it stands (for the mask and
for biases) is where the first of them did.
"""

import torch
from torch import Tensor

from microformer.models.memory.base import Memory, caches, slots
from microformer.models.state import State


class Compressive(Memory):
    """The last keys go over, and means of older ones.

    Args:
        length: how many of the last keys stay as they are, M; up to rate − 1 more wait for their group to be full.
        pooled: the most means that are kept, P.
        rate: how many keys a mean is of.
    """

    carries = True

    def __init__(self, length: int, pooled: int, rate: int):
        super().__init__()
        self.length, self.pooled, self.rate = length, pooled, rate

    def between(self, state: State, written: Tensor | None) -> State:
        layers = caches(state)
        past = slots(state, layers[0].keys.device)
        pooled = state.pooled
        groups = max(0, len(past) - pooled - self.length) // self.rate
        kept = min(self.pooled, pooled + groups)
        gone = pooled + groups - kept

        def compressed(x: Tensor) -> Tensor:  # [batch head key d_head]
            old, ready, recent = x.tensor_split([pooled, pooled + groups * self.rate], dim=2)
            return torch.cat([old, ready.unflatten(2, (groups, self.rate)).mean(3), recent], dim=2)[:, :, gone:]

        first = pooled + self.rate * torch.arange(groups, device=past.device)
        past = torch.cat([past[:pooled], past[first], past[pooled + groups * self.rate :]])[gone:]
        return state.next_segment(tuple(one.map(compressed) for one in layers), past=past, pooled=kept)
