"""The work of a function on a CPU, written down once and from then on played back without the Python between.

A small model's token is a hundred operations of a microsecond or two each, and finding out which comes next takes as
long again: modules are called, shapes are asked for, memory is taken, views are made. All of that comes out the same
at each token. So the function is run once while PyTorch tells each of its operations (`TorchDispatchMode`), and what is
kept is a list of those that compute something from what changes, each with the very tensors that it read and wrote:
played back, it writes into them again. What CUDA graphs are to a GPU, without their hardware.

Knows nothing of models.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_ATEN = torch.ops.aten
# What consists of simpler operations is told as these, so that those which only look at memory another way drop out.
# Not this one: which of its kernels PyTorch takes depends on whether someone listens.
_WHOLE = _ATEN.scaled_dot_product_attention.default
# Answers that Python has to look at: the work after them need not be the same another time.
_ASKS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
# Where Python's functions are, in PyTorch's own module.
_HOMES = ("_VariableFunctions", "_nn", "_linalg")
_COPIES = (_ATEN._to_copy.default, _ATEN.clone.default)


class NotTheSame(RuntimeError):
    """A function can't be played back: what it does depends on what it computes, or playing it gave something else."""


def recorded(function: Callable[[], Tensor], given: Sequence[Tensor]) -> tuple[Tensor, Callable[[], Tensor]]:
    """Runs a function and writes down what it does.

    Args:
        function: reads `given`, and writes there what is to be remembered for the next time. All else that it reads,
            such as weights, must not change any more: what follows from that alone isn't computed again.
        given: what changes from one time to the next.

    Returns:
        The answer, and what computes it anew from what is in `given` by then. It is always the same memory.

    Raises:
        NotTheSame: it can't be played back, or that does not give the same as the function does, bit for bit. (What
            Python reads of a tensor with `tolist` or `numpy` PyTorch does not tell.)
    """
    before = [one.clone() for one in given]

    def begin_again() -> None:
        for one, value in zip(given, before, strict=True):
            one.copy_(value)

    try:
        expected = [one.clone() for one in (function(), *given)]
        begin_again()
        with _Listening() as listening:
            answer = function()
        calls = [_repeated(call, used) for call, used in _needed(listening.calls, given, answer)]

        def play() -> Tensor:
            for call in calls:
                call()
            return answer

        begin_again()
        play()
        if not all(torch.equal(one, value) for one, value in zip((answer, *given), expected, strict=True)):
            raise NotTheSame("played back, it gives something else.")
    except (RuntimeError, TypeError) as error:  # an operation that can't be repeated; the function's own comes again
        begin_again()
        raise NotTheSame(str(error)) from error
    return answer, play


class _Call:
    """An operation: what was called, with what, and what came of it.

    Attributes:
        reads, overwrites, writes: where the memory is of the tensors that it was given, of those among them that it
            changes, and of these with what it made anew. A view's is that of what it looks at.
    """

    def __init__(self, operation: Any, arguments: tuple, named: dict[str, Any], answer: Any):
        self.operation, self.arguments, self.named = operation, arguments, named
        self.made: list[Tensor] = tree_leaves(answer)
        schema = operation._schema.arguments
        changed = {one.name for one in schema if one.alias_info is not None and one.alias_info.is_write}
        by_name = dict(zip((one.name for one in schema), arguments, strict=False)) | named
        self.reads = _memory(by_name.values())
        self.overwrites = _memory(value for name, value in by_name.items() if name in changed)
        self.writes = self.overwrites | (_memory(self.made) - self.reads)


class _Listening(TorchDispatchMode):
    """Keeps all operations that are called while inside."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is ever compiled, and making sure of it loads the compiler: two seconds

    def __init__(self):
        super().__init__()
        self.calls: list[_Call] = []

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: tuple = (), named: dict | None = None) -> Any:
        named, simpler = named or {}, "CompositeImplicitAutograd"
        if operation is not _WHOLE and torch._C._dispatch_has_kernel_for_dispatch_key(operation.name(), simpler):
            with self:
                return operation._op_dk(getattr(torch._C.DispatchKey, simpler), *arguments, **named)
        if any(tag in operation.tags for tag in _ASKS) and not _by_number(operation, arguments):
            raise NotTheSame(f"{operation}'s answer decides what comes after it.")
        answer = operation(*arguments, **named)
        self.calls.append(_Call(operation, arguments, named, answer))
        return answer


def _by_number(operation: Any, arguments: tuple) -> bool:
    """Whether this looks up rows by number; by truth, it would depend on that how many there are."""
    return operation is _ATEN.index.Tensor and all(one is None or one.dtype != torch.bool for one in arguments[1])


def _memory(values: Iterable) -> set[int]:
    """Where the tensors among these, and in lists of them, keep their numbers."""
    tensors = (one for one in tree_leaves(list(values)) if isinstance(one, Tensor) and one.numel())
    return {one.untyped_storage().data_ptr() for one in tensors}


def _needed(calls: list[_Call], given: Sequence[Tensor], answer: Tensor) -> Iterator[tuple[_Call, set[int]]]:
    """The calls that are to be repeated, and which memory anyone reads: they read what changes, or make what such a
    call writes over. What only looks at memory in another way stays right by itself."""
    changing, count = _memory(given), -1
    while len(changing) > count:
        count = len(changing)
        for call in calls:
            if call.reads & changing or call.overwrites & changing:
                changing |= call.writes
    overwritten = {one for call in calls if call.writes & changing for one in call.overwrites}
    used = {one for call in calls for one in call.reads} | _memory([answer])
    return ((call, used) for call in calls if call.writes & (changing | overwritten))


def _repeated(call: _Call, used: set[int]) -> Callable[[], Any]:
    """What does a call once more, into the same tensors."""
    if call.overwrites:
        return partial(_quick(call.operation), *call.arguments, **call.named)
    if call.operation in _COPIES:
        return partial(call.made[0].copy_, call.arguments[0])
    if form := _writing(call.operation):
        names = [one.name for one in form._schema.arguments if one.is_out]
        function, made = _quick(form), dict(zip(names, call.made, strict=True))
        if function is not form:  # Python's has one name for them
            made = {"out": call.made[0] if len(names) == 1 else tuple(call.made)}
        return partial(function, *call.arguments, **call.named, **made)
    function = partial(_quick(call.operation), *call.arguments, **call.named)
    kept = [one if _memory([one]) & used else None for one in call.made]

    def repeat() -> None:
        for old, new in zip(kept, _listed(function()), strict=True):
            if old is not None:
                old.copy_(new)

    return repeat


def _listed(answer: Any) -> Any:
    return (answer,) if isinstance(answer, Tensor) else answer


@functools.cache
def _writing(operation: Any) -> Any:
    """The form of an operation that writes into tensors that it is given; None where the CPU has none of its own.
    (PyTorch makes up the rest from a copy.)"""
    packet, wanted = operation.overloadpacket, [(one.name, str(one.type)) for one in operation._schema.arguments]
    for form in (getattr(packet, name) for name in packet.overloads()):
        schema = form._schema.arguments
        given = [(one.name, str(one.type)) for one in schema if not one.is_out]
        if len(given) < len(schema) and given == wanted:
            return form if torch._C._dispatch_has_kernel_for_dispatch_key(form.name(), "CPU") else None
    return None


@functools.cache
def _quick(operation: Any) -> Callable:
    """The operation as Python's function of that name, which is called in half the time."""
    name = operation._schema.name.removeprefix("aten::")
    homes = [Tensor] if name.endswith("_") else [getattr(torch._C, home) for home in _HOMES]
    return next((getattr(home, name) for home in homes if hasattr(home, name)), operation)
