"""A token that says where a document ends, beside those of any tokenizer: its vocabulary and one more.

Models that were trained on documents write it where they have come to an end. As text it is nothing at all. A published
vocabulary that has such a token (GPT-2's <|endoftext|>) keeps its own.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from jaxtyping import Integer

from microformer.errors import DataError, SettingsError
from microformer.tokenization.base import StreamDecoder, Tokenizer, Unknown

if TYPE_CHECKING:
    import tokenizers

# GPT-2's name for it.
END = "<|endoftext|>"
# Where its id stands in what `to_dict` gives.
KEY = "end_of_document"


class WithEnd(Tokenizer):
    """A tokenizer and the end of a document.

    Args:
        inner: what encodes the documents themselves.
        end: the id, where the inner one has it; None for one after all of its ids.
    """

    def __init__(self, inner: Tokenizer, end: int | None = None):
        size = inner.vocab_size
        if end is not None and not 0 <= end <= size:
            raise DataError(f"this vocabulary of {size} has no token {end} for the end of a document.")
        self.inner = inner
        self.kind, self.beginning = inner.kind, inner.beginning
        self.end_of_document = size if end is None else end
        self._size = max(size, self.end_of_document + 1)

    @classmethod
    def train(cls, chunks: Iterable[str], vocab_size: int | None = None, alphabet: str = "") -> "WithEnd":
        raise SettingsError(
            "a token for the end of a document is beside those of a kind, and is not trained.", "train the kind."
        )

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
        ends = np.flatnonzero(known == self.end_of_document)
        return "".join(self.inner.decode(part[part != self.end_of_document]) for part in np.split(known, ends))

    def decoder(self) -> StreamDecoder:
        return _EndingDecoder(self)

    def to_library(self) -> "tokenizers.Tokenizer":
        import tokenizers

        made = self.inner.to_library()
        if self.end_of_document == self.inner.vocab_size:
            made = tokenizers.Tokenizer.from_str(made.to_str())
            made.add_special_tokens([tokenizers.AddedToken(END, normalized=False, special=True)])
        return made

    def to_dict(self) -> dict[str, Any]:
        return {**self.inner.to_dict(), KEY: self.end_of_document}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "WithEnd":
        from microformer import tokenization  # which knows the kinds, and imports this

        return cls(tokenization.from_dict({name: data[name] for name in data.keys() - {KEY}}), data[KEY])


class _EndingDecoder(StreamDecoder):
    def __init__(self, tokenizer: WithEnd):
        self._tokenizer = tokenizer
        self._inner = tokenizer.inner.decoder()

    def push(self, token_id: int) -> str:
        if token_id != self._tokenizer.end_of_document:
            self._tokenizer._checked([token_id])
            return self._inner.push(token_id)
        left = self._inner.finish()
        self._inner = self._tokenizer.inner.decoder()
        return left

    def finish(self) -> str:
        return self._inner.finish()
