"""What tokenizers have in common that are another one with ids beside its own."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Integer

from microformer.errors import SettingsError
from microformer.tokenization.base import Tokenizer, Unknown

if TYPE_CHECKING:
    import tokenizers


class Around(Tokenizer):
    """A tokenizer and more ids.

    Args:
        inner: what encodes.
        size: how many ids there are.
        said: the number from which it is built again, beside the inner one.
    """

    # Where `said` stands in what `to_dict` gives.
    key: ClassVar[str]

    def __init__(self, inner: Tokenizer, size: int, said: int):
        self.inner, self._size, self._said = inner, size, said
        self.kind, self.beginning, self.end_of_document = inner.kind, inner.beginning, inner.end_of_document

    @classmethod
    def train(cls, chunks: Iterable[str], vocab_size: int | None = None, alphabet: str = "") -> "Around":
        raise SettingsError("ids beside a tokenizer's own are not trained.", "train the kind that is within.")

    @property
    def vocab_size(self) -> int:
        return self._size

    def encode_chunks(
        self, chunks: Iterable[str], unknown: Unknown = "error"
    ) -> Iterator[Integer[np.ndarray, "token"]]:
        for ids in self.inner.encode_chunks(chunks, unknown):
            yield ids.astype(self.dtype, copy=False)

    def to_library(self) -> "tokenizers.Tokenizer":
        return self.inner.to_library()

    def to_dict(self) -> dict[str, Any]:
        return {**self.inner.to_dict(), self.key: self._said}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Around":
        from microformer import tokenization  # which knows the kinds, and imports this

        inner = tokenization.from_dict({name: data[name] for name in data.keys() - {cls.key}})
        return cls(inner, data[cls.key])  # type: ignore[call-arg]  (each takes the inner one and its number)
