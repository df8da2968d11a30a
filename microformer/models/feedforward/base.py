"""What every feed-forward is: what each position makes of what attention brought it, on its own."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from microformer.models.taps import Scope


class FeedForward(nn.Module, ABC):
    """A map of the stream's vectors, one position at a time."""

    # What it shows a tap, in this order.
    tap_names: Sequence[str] = ("hook_pre", "hook_post")

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch pos d_model"], tap: Scope
    ) -> tuple[Float[Tensor, "batch pos d_model"], Tensor | float]:
        """What is added to the stream, and what is added to the loss in training, in nats; 0 for nothing.

        Args:
            x: what it reads, normed.
            tap: the feed-forward's scope.
        """
