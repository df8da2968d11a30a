"""Where the tensors are that calls make, while they are played back.

What is read for the last time leaves its place to what is made after that, or out of it at once. So no more memory is
held than the function itself took, and what is read or written over was mostly written not long ago: waiting for memory
that the processor's cache had lost took a sixth to a fifth of a training step. Where an operation can't be told where
to write, what it gives is copied to its place, or if it is large, the tensors that look there are turned to the memory
that it brings.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from microformer.playback.calls import Call, Seen, memory
from microformer.playback.repeating import says_where

_ATEN = torch.ops.aten
_LINE = 64  # bytes of the processor's cache that are moved together
_LARGE = 2**16  # bytes that take longer to copy than a few tensors to turn
# What is made of a row needs that row alone, and is written when it has been read.
_BY_ROWS = (
    _ATEN._softmax.default, _ATEN._softmax_backward_data.default,
    _ATEN._log_softmax.default, _ATEN._log_softmax_backward_data.default,
)  # fmt: skip


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
        self._used = {one for one, (first, last) in spans.items() if last > first} - brought
        self._over = _written_over(calls, spans)
        for new, old in self._over.items():
            spans[old] = spans[old][0], max(spans[old][1], spans.pop(new)[1])
        self._until = {one: spans.pop(one)[1] for one in brought}
        self._begins = arranged(spans, sizes)
        room = max((begin + sizes[one] for one, begin in self._begins.items()), default=0)
        self.room = torch.empty(room, dtype=torch.uint8).untyped_storage()
        self._turned: dict[int, list[tuple[Tensor, tuple]]] = {one: [] for one in brought}
        self._known: dict[Seen, Tensor] = {}

    def of(self, seen: Seen) -> Tensor:
        """What is to be used in this one's place."""
        if seen not in self._known:
            here = torch.empty(0, dtype=seen.dtype) if seen.tensor is None else seen.tensor
            where = self._over.get(seen.memory, seen.memory)
            if where in self._begins:
                begin = self._begins[where] // seen.dtype.itemsize + seen.offset
                here = torch.empty(0, dtype=seen.dtype).set_(self.room, begin, seen.shape, seen.stride)
            elif where in self._turned:
                self._turned[where].append((here, (seen.offset, seen.shape, seen.stride)))
            self._known[seen] = here
        return self._known[seen]

    def used(self, seen: Seen | None) -> Tensor | None:
        """The tensor that an answer without a place is to be copied to; None where nobody looks at it."""
        return self.of(seen) if seen is not None and seen.memory in self._used else None

    def turned(self, seen: Seen | None) -> list[tuple[Tensor, tuple]]:
        """All that look at the memory which a call brings with this answer, and how: as many as are known by then."""
        return [] if seen is None else self._turned.get(seen.memory, [])

    def left_after(self, call: int) -> list[Tensor]:
        """A tensor for each memory which was brought and is not used after the call of this number."""
        left = [self._turned[one] for one, last in self._until.items() if last == call]
        return [turned[0][0] for turned in left if turned]


def _written_over(calls: Sequence[Call], spans: dict[int, tuple[int, int]]) -> dict[int, int]:
    """What can be made in the memory of what it is made of, and in which: a call reads that for the last time, looks at
    it as at what it makes, and makes each number, or each row, by itself."""
    over: dict[int, int] = {}
    for i, call in enumerate(calls):
        alone = torch.Tag.pointwise in call.operation.tags or call.operation in _BY_ROWS
        if not alone or not says_where(call) or len(call.begins) != 1:
            continue
        new = next(one for one in call.made if one is not None)
        read = [one for one in tree_leaves([call.arguments, call.named]) if isinstance(one, Seen)]
        for old in sorted(call.reads & spans.keys(), key=lambda one: spans[one]):
            alike = all(replace(one, memory=new.memory) == new for one in read if one.memory == old)
            if alike and spans[old][1] == i:
                over[new.memory] = over.get(old, old)
                break
    return over


def arranged(spans: dict[int, tuple[int, int]], sizes: dict[int, int]) -> dict[int, int]:
    """Where in one room each memory begins, in bytes: at the first gap between those of its time. What is used for a
    short time comes first, so that it stays with its like, in memory that is used all the time.

    Args:
        spans: the first and the last moment at which it is used.
        sizes: in bytes.
    """
    begins: dict[int, int] = {}
    for one, (first, last) in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):
        beside = [other for other in begins if spans[other][0] <= last and first <= spans[other][1]]
        begin = 0
        for start, end in sorted((begins[other], begins[other] + sizes[other]) for other in beside):
            if begin + sizes[one] <= start:
                break
            begin = max(begin, -(-end // _LINE) * _LINE)
        begins[one] = begin
    return begins
