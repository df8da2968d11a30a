"""A vocabulary with more ids than tokens, as models have whose tables were made longer for a GPU's sake: nanoGPT's
50,304 for GPT-2's 50,257. No text has the ids that are over, and they are none.
"""

from collections.abc import Iterable
from typing import ClassVar, SupportsIndex

from microformer.errors import DataError
from microformer.tokenization.around import Around
from microformer.tokenization.base import StreamDecoder, Tokenizer


class Padded(Around):
    """A tokenizer, and ids after its own that stand for nothing.

    Args:
        inner: what encodes.
        size: how many ids there are.
    """

    key: ClassVar[str] = "padded_to"

    def __init__(self, inner: Tokenizer, size: int):
        if size < inner.vocab_size:
            raise DataError(f"a vocabulary of {inner.vocab_size} tokens can't be padded to {size}.")
        super().__init__(inner, size, size)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        known = self._checked(ids)
        return self.inner.decode(known[known < self.inner.vocab_size])

    def decoder(self) -> StreamDecoder:
        return _Skipping(self)


class _Skipping(StreamDecoder):
    def __init__(self, tokenizer: Padded):
        self._tokenizer = tokenizer
        self._inner = tokenizer.inner.decoder()

    def push(self, token_id: int) -> str:
        self._tokenizer._checked([token_id])
        return self._inner.push(token_id) if token_id < self._tokenizer.inner.vocab_size else ""

    def finish(self) -> str:
        return self._inner.finish()
