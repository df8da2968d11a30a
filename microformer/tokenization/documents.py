"""A token that says where a document ends, beside those of any tokenizer: its vocabulary and one more.

Models that were trained on documents write it where they have come to an end. As text it is nothing at all. A published
vocabulary that has such a token (GPT-2's <|endoftext|>) keeps its own.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, SupportsIndex

import numpy as np

from microformer.errors import DataError
from microformer.tokenization.around import Around
from microformer.tokenization.base import StreamDecoder, Tokenizer

if TYPE_CHECKING:
    import tokenizers

# GPT-2's name for it.
END = "<|endoftext|>"


class WithEnd(Around):
    """A tokenizer and the end of a document.

    Args:
        inner: what encodes the documents themselves.
        end: the id, where the inner one has it; None for one after all of its ids.
    """

    key: ClassVar[str] = "end_of_document"

    def __init__(self, inner: Tokenizer, end: int | None = None):
        size = inner.vocab_size
        end = size if end is None else end
        if not 0 <= end <= size:
            raise DataError(f"this vocabulary of {size} has no token {end} for the end of a document.")
        super().__init__(inner, max(size, end + 1), end)
        self.end_of_document = end

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        known = self._checked(ids)
        ends = np.flatnonzero(known == self.end_of_document)
        return "".join(self.inner.decode(part[part != self.end_of_document]) for part in np.split(known, ends))

    def decoder(self) -> StreamDecoder:
        return _EndingDecoder(self)

    def to_library(self) -> "tokenizers.Tokenizer":
        import tokenizers

        made = super().to_library()
        if self.end_of_document == self.inner.vocab_size:
            made = tokenizers.Tokenizer.from_str(made.to_str())  # a copy: the inner one stays without it
            made.add_special_tokens([tokenizers.AddedToken(END, normalized=False, special=True)])
        return made


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
