"""What every memory may do; a kind overrides what it is about, and leaves the rest as it is here: no memory at all."""

from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microformer.models.state import KVCache, State


class Memory(nn.Module):
    """Nothing goes over, and a text ends with the context."""

    # Whether a text goes on past the context, segment after segment.
    carries: ClassVar[bool] = False
    # The most keys of earlier segments that a layer sees, and through how many segments the gradient goes.
    kept: ClassVar[int] = 0
    segments: ClassVar[int] = 1
    # How many memory tokens stand before each segment.
    tokens = 0

    def __init_subclass__(cls):
        super().__init_subclass__()
        if "between" in cls.__dict__ and not cls.carries:
            raise TypeError(f"{cls.__name__} has a `between` and nothing goes over: set carries = True")

    def before(self, state: State, rows: int) -> Float[Tensor, "batch token d_model"] | None:
        """The memory tokens that a segment begins with; None for none.

        Args:
            state: of that segment, at whichever of its tokens.
            rows: the batch.
        """
        return None

    def after(self, state: State, rows: int) -> Float[Tensor, "batch token d_model"] | None:
        """The memory tokens that a full segment ends with; None for none. Arguments as for `before`."""
        return None

    def between(self, state: State, written: Float[Tensor, "batch token d_model"] | None) -> State:
        """The state that the next segment begins with.

        Args:
            state: after a full segment.
            written: what the model made of the tokens after it, if there are any.
        """
        raise AssertionError("no segment follows where nothing is carried")


def caches(state: State) -> tuple[KVCache, ...]:
    """The keys and values of every layer, after a full segment."""
    return cast(tuple[KVCache, ...], state.layers)


def slots(state: State, device: torch.device) -> Tensor:
    """The slots of all keys in the caches, memory tokens aside. [key]"""
    own = torch.arange(state.segment, state.length, device=device)
    return own if state.past is None else torch.cat([state.past, own])
