"""Reading and editing activations in flight.

A tap is anything with `wants(name) -> bool` and `tap(name, tensor) -> tensor`. The model asks it first what it wants,
so that a value nobody looks at costs nothing, and what a tap returns takes the place of what it was given. The names
are TransformerLens's, and `Microformer.tap_names()` lists those that a model has. Knows nothing of models.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from torch import Tensor

from microformer.errors import MicroformerError, nearest


@runtime_checkable
class Tap(Protocol):
    """What a model calls with each activation."""

    def wants(self, name: str) -> bool:
        """Whether it wants to be called for `name` at all."""
        ...

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """Is shown the activation, and says what takes its place (the same tensor to leave it)."""
        ...


class TapError(MicroformerError):
    """A name that the model does not have, or an edit that was never reached."""


class Scope:
    """A tap as a part of the model sees it: under the part's own short names. With no tap it wants nothing."""

    def __init__(self, tap: Tap | None, prefix: str = ""):
        self.tap = tap
        self.prefix = prefix

    def wants(self, name: str) -> bool:
        return self.tap is not None and self.tap.wants(self.prefix + name)

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        if self.tap is None or not self.tap.wants(self.prefix + name):
            return tensor
        return self.tap(self.prefix + name, tensor)

    def within(self, part: str) -> "Scope":
        """The scope of a part inside this one."""
        return Scope(self.tap, f"{self.prefix}{part}.") if self.tap is not None else self


class Record:
    """Keeps the activations of some names.

    Args:
        names: which; None keeps all.
    """

    def __init__(self, names: Iterable[str] | None = None):
        self.names = None if names is None else set(names)
        self.activations: dict[str, Tensor] = {}

    def wants(self, name: str) -> bool:
        return self.names is None or name in self.names

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        self.activations[name] = tensor
        return tensor


class Edit:
    """Puts something else in an activation's place.

    Args:
        edits: for each name a function from the activation to what replaces it, of the same shape.
    """

    def __init__(self, edits: dict[str, Callable[[Tensor], Tensor]]):
        self.edits = edits
        self.fired: set[str] = set()

    def wants(self, name: str) -> bool:
        return name in self.edits

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        edited = self.edits[name](tensor)
        if edited.shape != tensor.shape:
            raise TapError(
                f"the edit of {name} gave shape {tuple(edited.shape)} for {tuple(tensor.shape)}.", "keep the shape."
            )
        self.fired.add(name)
        return edited

    def check_all_fired(self) -> None:
        """Raises TapError if an edit was never reached: a result that nothing changed would look like a finding."""
        if missed := sorted(set(self.edits) - self.fired):
            raise TapError(f"the edit of {missed[0]} never fired.", "the forward pass did not reach it; was it run?")


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """Raises TapError if one of `names` is not among `known`, with the nearest that is."""
    known = set(known)
    for name in names:
        if name not in known:
            meant = nearest(name, known)
            hint = f"did you mean {meant}?" if meant else "model.tap_names() lists them."
            raise TapError(f"the model has no activation {name!r}.", hint)
