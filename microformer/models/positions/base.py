"""What every kind of position may do; a kind overrides the one it is about, and leaves the others as they are here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microformer.models.state import Positions

Turn = Callable[[Tensor], Tensor]
Bias = Callable[[Int[Tensor, "*batch query"], Int[Tensor, "*batch key"]], Float[Tensor, "*batch head query key"]]


@dataclass(frozen=True)
class Order:
    """What the layers of one forward pass are told of order: made once, read by each.

    Args:
        where: where queries and keys stand.
        turn: what queries and keys go through before they are compared, [batch pos head d_head] in and out; None where
            nothing is turned.
        bias: what is added to the scores of queries and keys at such positions; None for nothing. A function, for an
            attention that compares few pairs wants few biases.
    """

    where: Positions
    turn: Turn | None
    bias: Bias | None

    @property
    def added(self) -> Float[Tensor, "*batch head query key"] | None:
        """What is added to the scores of every pair: −inf where a query may not look, and the bias; None for nothing.

        Made once a forward pass and shared by its layers; the head axis may have length 1.
        """
        # functools' cache takes a lock, which code can't be compiled with; compiled, equal sums are made once anyway.
        return self._made() if torch.compiler.is_compiling() else self._kept

    @cached_property
    def _kept(self) -> Tensor | None:
        return self._made()

    def _made(self) -> Tensor | None:
        mask = self.where.mask
        if mask is not None:
            mask = mask.unsqueeze(-3)
        if self.bias is None:
            return mask
        bias = self.bias(self.where.query, self.where.key)
        return bias if mask is None else bias + mask


class PositionKind(nn.Module):
    """No positions at all: nothing is added, turned or biased."""

    # Which of the three places below a kind takes.
    embeds: ClassVar[bool] = False
    rotates: ClassVar[bool] = False
    biases: ClassVar[bool] = False

    def __init_subclass__(cls):
        super().__init_subclass__()
        cls.embeds = cls.embed is not PositionKind.embed
        cls.rotates = cls.turn is not PositionKind.turn
        cls.biases = cls.bias is not PositionKind.bias

    def embed(self, position: Int[Tensor, "*batch pos"]) -> Float[Tensor, "*batch pos d_model"] | None:
        """What is added to the embeddings of tokens at `position`; None for nothing."""
        return None

    def turn(self, position: Int[Tensor, "*batch pos"], dtype: torch.dtype) -> Turn | None:
        """What queries or keys at `position` go through before they are compared; None: they stay as they are."""
        return None

    def bias(
        self, query: Int[Tensor, "*batch query"], key: Int[Tensor, "*batch key"]
    ) -> Float[Tensor, "*batch head query key"]:
        """What is added to the scores of these queries with these keys. Asked only where a kind has it."""
        raise NotImplementedError

    def order(self, where: Positions, dtype: torch.dtype) -> Order:
        """What all layers of a forward pass in `dtype` are told."""
        return Order(where, self.turn(where.query, dtype), self.bias if self.biases else None)
