"""What a function does, as PyTorch tells it: its operations, and which of them have to be done again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

_ATEN = torch.ops.aten
# What consists of simpler operations alone is told as these, so that those which only look at memory another way drop
# out. Not this one: which of its kernels PyTorch takes depends on whether someone listens.
_SIMPLER = "CompositeImplicitAutograd"
_WHOLE = _ATEN.scaled_dot_product_attention.default
# Answers that Python has to look at: the work after them need not be the same another time.
_ASKS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class NotTheSame(RuntimeError):
    """A function can't be played back: what it does depends on what it computes, or playing it gave something else."""


@dataclass(frozen=True)
class Seen:
    """A tensor as it was: which memory it looked at, and how.

    Attributes:
        memory: a number for it; views of it have the same.
        size: of the memory, in bytes.
        tensor: itself; None where it is made anew each time, so that nobody keeps what the function has done with.
    """

    memory: int
    size: int
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int
    tensor: Tensor | None = field(compare=False)


class Call:
    """An operation: what was called, with what, and what came of it; tensors as they were seen.

    Attributes:
        reads, overwrites: the memory of the tensors that it was given, and of those among them that it changes.
        draws: whether chance has a part in it.
    """

    def __init__(self, operation: Any, arguments: tuple, named: dict[str, Any]):
        self.operation, self.arguments, self.named = operation, arguments, named
        self.made: list[Seen | None] = []
        schema = operation._schema.arguments
        changed = {one.name for one in schema if one.alias_info is not None and one.alias_info.is_write}
        by_name = dict(zip((one.name for one in schema), arguments, strict=False)) | named
        self.reads = memory(by_name.values())
        self.overwrites = memory(value for name, value in by_name.items() if name in changed)
        self.draws = torch.Tag.nondeterministic_seeded in operation.tags

    @property
    def begins(self) -> set[int]:
        """The memory of what it made anew."""
        return memory(self.made) - self.reads

    @property
    def writes(self) -> set[int]:
        return self.overwrites | self.begins

    def follows(self, changing: set[int]) -> bool:
        """Whether what it gives is another time something else, where this memory is."""
        return self.draws or not changing.isdisjoint(self.reads | self.overwrites)


def memory(values: Iterable) -> set[int]:
    """All that the tensors among these, and in lists of them, look at."""
    return {one.memory for one in tree_leaves(list(values)) if isinstance(one, Seen)}


class Listening(TorchDispatchMode):
    """Keeps all operations that are called while inside, those of a gradient too.

    Args:
        given: the tensors that change from one time to the next.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is ever compiled, and making sure of it loads the compiler: two seconds

    def __init__(self, given: Sequence[Tensor]):
        super().__init__()
        self.calls: list[Call] = []
        self._known: dict[int, StorageWeakRef] = {}  # while it is kept, no other memory gets the number of one given up
        self._passing: set[int] = set()  # what is made anew each time
        self._changing = memory(self.seen(one) for one in given)

    def seen(self, tensor: Tensor) -> Seen:
        """The tensor as it is."""
        storage = tensor.untyped_storage()
        known = StorageWeakRef(storage)
        number = known.cdata
        self._known[number] = known
        kept = None if number in self._passing else tensor.detach()
        begin = int(tensor.storage_offset())
        return Seen(number, storage.nbytes(), tensor.dtype, tensor.shape, tensor.stride(), begin, kept)

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: tuple = (), named: dict | None = None) -> Any:
        named = named or {}
        if _has_kernel(operation, _SIMPLER) and not _has_kernel(operation, "CPU") and operation is not _WHOLE:
            with self:
                return operation._op_dk(getattr(torch._C.DispatchKey, _SIMPLER), *arguments, **named)
        if any(tag in operation.tags for tag in _ASKS) and not _by_number(operation, arguments):
            raise NotTheSame(f"{operation}'s answer decides what comes after it.")
        answer = operation(*arguments, **named)
        call = Call(operation, *(tree_map_only(Tensor, self.seen, one) for one in (arguments, named)))
        made = [one if isinstance(one, Tensor) else None for one in tree_leaves(answer)]
        if call.follows(self._changing):
            self._passing |= {
                StorageWeakRef(one.untyped_storage()).cdata for one in made if one is not None
            } - call.reads
            self._changing |= self._passing | call.overwrites
        call.made = [None if one is None else self.seen(one) for one in made]
        self.calls.append(call)
        return answer


def _has_kernel(operation: Any, kind: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(operation.name(), kind)


def _by_number(operation: Any, arguments: tuple) -> bool:
    """Whether this looks up rows by number; by truth, it would depend on that how many there are."""
    return operation is _ATEN.index.Tensor and all(one is None or one.dtype != torch.bool for one in arguments[1])


def needed(calls: Sequence[Call], given: Iterable[Seen]) -> list[Call]:
    """The calls that are to be repeated: they read what changes, or draw, or make what such a call writes over. What
    only looks at memory in another way stays right by itself."""
    changing, count = memory(given), -1
    while len(changing) > count:
        count = len(changing)
        for call in calls:
            if call.follows(changing):
                changing |= call.writes
    overwritten = {one for call in calls if call.writes & changing for one in call.overwrites}
    return [call for call in calls if call.writes & (changing | overwritten)]
