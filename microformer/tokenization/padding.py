"""A vocabulary with more ids than tokens, as models have whose tables were made longer for a GPU's sake: nanoGPT's
50,304 for GPT-2's 50,257. No text has the ids that are over, and they are none.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from jaxtyping import Integer

from microformer.errors import DataError, SettingsError
from microformer.tokenization.base import StreamDecoder, Tokenizer, Unknown

if TYPE_CHECKING:
    import tokenizers

# Where the number of ids stands in what `to_dict` gives.
KEY = "padded_to"


class Padded(Tokenizer):
    """A tokenizer, and ids after its own that stand for nothing.

    Args:
        inner: what encodes.
        size: how many ids there are.
    """

    def __init__(self, inner: Tokenizer, size: int):
        if size < inner.vocab_size:
            raise DataError(f"a vocabulary of {inner.vocab_size} tokens can't be padded to {size}.")
        self.inner, self.kind, self._size = inner, inner.kind, size
        self.end_of_document, self.beginning = inner.end_of_document, inner.beginning

    @classmethod
    def train(cls, chunks: Iterable[str], vocab_size: int | None = None, alphabet: str = "") -> "Padded":
        raise SettingsError("a padded vocabulary is not trained.", "train the kind that is within.")

    @property
    def vocab_size(self) -> int:
        return self._size

    def encode_chunks(
        self, chunks: Iterable[str], unknown: Unknown = "error"
    ) -> Iterator[Integer[np.ndarray, "token"]]:
        for ids in self.inner.encode_chunks(chunks, unknown):
            yield ids.astype(self.dtype, copy=False)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        known = self._checked(ids)
        return self.inner.decode(known[known < self.inner.vocab_size])

    def decoder(self) -> StreamDecoder:
        return _Skipping(self)

    def to_library(self) -> "tokenizers.Tokenizer":
        return self.inner.to_library()

    def to_dict(self) -> dict[str, Any]:
        return {**self.inner.to_dict(), KEY: self._size}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Padded":
        from microformer import tokenization  # which knows the kinds, and imports this

        return cls(tokenization.from_dict({name: data[name] for name in data.keys() - {KEY}}), data[KEY])


class _Skipping(StreamDecoder):
    def __init__(self, tokenizer: Padded):
        self._tokenizer = tokenizer
        self._inner = tokenizer.inner.decoder()

    def push(self, token_id: int) -> str:
        self._tokenizer._checked([token_id])
        return self._inner.push(token_id) if token_id < self._tokenizer.inner.vocab_size else ""

    def finish(self) -> str:
        return self._inner.finish()
