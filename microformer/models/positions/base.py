"""What every kind of position may do; a kind overrides the one it is about, and leaves the others as they are here."""

from jaxtyping import Float, Int
from torch import Tensor, nn


class PositionKind(nn.Module):
    """No positions at all: nothing is added, turned or biased."""

    def embed(self, position: Int[Tensor, "*batch pos"]) -> Float[Tensor, "*batch pos d_model"] | None:
        """What is added to the embeddings of tokens at `position`; None for nothing."""
        return None

    def rotate(
        self, x: Float[Tensor, "batch pos head d_head"], position: Int[Tensor, "*batch pos"]
    ) -> Float[Tensor, "batch pos head d_head"]:
        """Queries or keys at `position`, as attention should compare them."""
        return x

    def bias(
        self, query: Int[Tensor, "*batch query"], key: Int[Tensor, "*batch key"]
    ) -> Float[Tensor, "*batch head query key"] | None:
        """What is added to the scores; None for nothing."""
        return None

    @property
    def embeds(self) -> bool:
        """Whether `embed` adds anything."""
        return type(self).embed is not PositionKind.embed

    @property
    def rotates(self) -> bool:
        """Whether `rotate` changes anything."""
        return type(self).rotate is not PositionKind.rotate
