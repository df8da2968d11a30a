"""Where the tensors are that calls make, while they are played back.

What is read for the last time leaves its place to what is made after that. So no more memory is held than the function
itself took, and what is read was mostly written not long ago. Where an operation can't be told where to write, what it
gives is copied to its place, or if it is large, the tensors that look there are turned to the memory that it brings.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from microformer.playback.calls import Call, Seen, memory
from microformer.playback.repeating import says_where

_LINE = 64  # bytes of the processor's cache that are moved together
_LARGE = 2**16  # bytes that take longer to copy than a few tensors to turn


class Places:
    """The tensors to be used in the place of those that were there when the calls were told.

    Args:
        calls: all that are to be repeated, in their order.
        answers: what is still wanted after the last of them.

    Attributes:
        room: the memory that they share.
    """

    def __init__(self, calls: Sequence[Call], answers: Sequence[Seen]):
        sizes = {one.memory: one.size for call in calls for one in call.made if one is not None}
        brought = {one for call in calls if not says_where(call) for one in call.begins if sizes[one] > _LARGE}
        spans: dict[int, tuple[int, int]] = {}  # of each memory: which call makes it, which is the last to use it
        for i, call in enumerate(calls):
            spans |= dict.fromkeys(call.begins, (i, i))
            spans |= {one: (spans[one][0], i) for one in (call.reads | call.overwrites) & spans.keys()}
        spans |= {one: (spans[one][0], len(calls)) for one in memory(answers) & spans.keys()}
        self._until = {one: spans.pop(one)[1] for one in brought}
        self._used = {one for one, (first, last) in spans.items() if last > first}
        self._begins = arranged(spans, sizes)
        room = max((begin + sizes[one] for one, begin in self._begins.items()), default=0)
        self.room = torch.empty(room, dtype=torch.uint8).untyped_storage()
        self._turned: dict[int, list[tuple[Tensor, tuple]]] = {one: [] for one in brought}
        self._known: dict[Seen, Tensor] = {}

    def of(self, seen: Seen) -> Tensor:
        """What is to be used in this one's place."""
        if seen not in self._known:
            here = torch.empty(0, dtype=seen.dtype) if seen.tensor is None else seen.tensor
            if seen.memory in self._begins:
                begin = self._begins[seen.memory] // seen.dtype.itemsize + seen.offset
                here = torch.empty(0, dtype=seen.dtype).set_(self.room, begin, seen.shape, seen.stride)
            elif seen.memory in self._turned:
                self._turned[seen.memory].append((here, (seen.offset, seen.shape, seen.stride)))
            self._known[seen] = here
        return self._known[seen]

    def used(self, seen: Seen | None) -> Tensor | None:
        """The tensor that an answer without a place is to be copied to; None where nobody looks at it."""
        return self.of(seen) if seen is not None and seen.memory in self._used else None

    def turned(self, seen: Seen | None) -> list[tuple[Tensor, tuple]]:
        """All that look at the memory which a call brings with this answer, and how: as many as are known by then."""
        return [] if seen is None else self._turned.get(seen.memory, [])

    def left_after(self, call: int) -> list[Tensor]:
        """The tensors that look at memory which was brought and is not used after the call of this number."""
        left = [self._turned[one] for one, last in self._until.items() if last == call]
        return [tensor for turned in left for tensor, _ in turned]


def arranged(spans: dict[int, tuple[int, int]], sizes: dict[int, int]) -> dict[int, int]:
    """Where in one room each memory begins, in bytes: at the first gap between those of its time.

    Args:
        spans: the first and the last moment at which it is used.
        sizes: in bytes.
    """
    begins: dict[int, int] = {}
    for one, (first, last) in spans.items():
        beside = [other for other in begins if spans[other][0] <= last and first <= spans[other][1]]
        begin = 0
        for start, end in sorted((begins[other], begins[other] + sizes[other]) for other in beside):
            if begin + sizes[one] <= start:
                break
            begin = max(begin, -(-end // _LINE) * _LINE)
        begins[one] = begin
    return begins
