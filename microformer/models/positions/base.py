"""What every kind of position may do; a kind overrides the one it is about, and leaves the others as they are here."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microformer.models.state import Positions

Turn = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Order:
    """What the layers of one forward pass are told of order: made once, read by each.

    Args:
        where: where queries and keys stand.
        turn: what queries and keys go through before they are compared, [batch pos head d_head] in and out; None where
            nothing is turned.
        bias: what is added to the scores, [*batch head query key]; None for nothing.
    """

    where: Positions
    turn: Turn | None
    bias: Tensor | None


class PositionKind(nn.Module):
    """No positions at all: nothing is added, turned or biased."""

    def embed(self, position: Int[Tensor, "*batch pos"]) -> Float[Tensor, "*batch pos d_model"] | None:
        """What is added to the embeddings of tokens at `position`; None for nothing."""
        return None

    def turn(self, position: Int[Tensor, "*batch pos"], dtype: torch.dtype) -> Turn | None:
        """What queries or keys at `position` go through before they are compared; None: they stay as they are."""
        return None

    def bias(
        self, query: Int[Tensor, "*batch query"], key: Int[Tensor, "*batch key"]
    ) -> Float[Tensor, "*batch head query key"] | None:
        """What is added to the scores; None for nothing."""
        return None

    def order(self, where: Positions, dtype: torch.dtype) -> Order:
        """What all layers of a forward pass in `dtype` are told."""
        return Order(where, self.turn(where.query, dtype), self.bias(where.query, where.key))

    @property
    def embeds(self) -> bool:
        """Whether `embed` adds anything."""
        return type(self).embed is not PositionKind.embed

    @property
    def rotates(self) -> bool:
        """Whether queries and keys are turned."""
        return type(self).turn is not PositionKind.turn
