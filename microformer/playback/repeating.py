"""How an operation is done once more, into the tensors that are there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from microformer.playback.calls import Call, Seen

if TYPE_CHECKING:
    from microformer.playback.places import Places

_ATEN = torch.ops.aten
# Where Python's functions are, in PyTorch's own module.
_HOMES = ("_VariableFunctions", "_nn", "_linalg")
_COPIES = (_ATEN._to_copy.default, _ATEN.clone.default)
# What is in these nobody reads before it is written.
_EMPTY = (_ATEN.empty.memory_format, _ATEN.empty_strided.default, _ATEN.empty_like.default, _ATEN.new_empty.default)


def says_where(call: Call) -> bool:
    """Whether the operation can be told which memory to write to."""
    return bool(call.overwrites or call.operation in _COPIES + _EMPTY or _form_that_writes(call.operation))


def repeated(call: Call, places: Places) -> Callable[[], Any] | None:
    """What does a call once more; None where there is nothing to do."""
    if call.operation in _EMPTY:
        return None
    arguments, named = (tree_map_only(Seen, places.of, one) for one in (call.arguments, call.named))
    if call.overwrites:
        return partial(_quick(call.operation), *arguments, **named)
    made = [places.of(one) for one in call.made if one is not None]
    if call.operation in _COPIES:
        return partial(made[0].copy_, arguments[0])
    if form := _form_that_writes(call.operation):
        names = [one.name for one in form._schema.arguments if one.is_out]
        if _quick(form) is form or any(name.startswith("grad") for name in names):  # Python's doesn't know of these
            return partial(form, *arguments, **named, **dict(zip(names, made, strict=True)))
        return partial(_quick(form), *arguments, **named, out=made[0] if len(names) == 1 else tuple(made))
    function = partial(_quick(call.operation), *arguments, **named)
    kept, turned = [places.used(one) for one in call.made], [places.turned(one) for one in call.made]

    def repeat() -> None:
        answer = function()
        for new, here, looking in zip((answer,) if isinstance(answer, Tensor) else answer, kept, turned, strict=True):
            if here is not None:
                here.copy_(new)
            for one, geometry in looking:
                one.set_(new.untyped_storage(), *geometry)

    return repeat


@functools.cache
def _form_that_writes(operation: Any) -> Any:
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
