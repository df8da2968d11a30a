"""One token a byte of UTF-8: 256 ids for every text there is. Learns nothing and lacks nothing."""

from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Integer

from microformer.tokenization.base import ByteStreamDecoder, StreamDecoder, Tokenizer, Unknown, utf8

_PIECES = tuple(bytes([value]) for value in range(256))


class ByteTokenizer(Tokenizer):
    """An id is the byte's own value."""

    kind = "byte"

    @classmethod
    def train(cls, chunks: Iterable[str], vocab_size: int | None = None, alphabet: str = "") -> "ByteTokenizer":
        """Needs no text: `chunks` are not read, and the rest is left aside."""
        return cls()

    @property
    def vocab_size(self) -> int:
        return 256

    def encode_chunks(
        self, chunks: Iterable[str], unknown: Unknown = "error"
    ) -> Iterator[Integer[np.ndarray, "token"]]:
        for chunk in chunks:
            yield np.frombuffer(utf8(chunk, unknown), np.uint8)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        return self._checked(ids).astype(np.uint8).tobytes().decode("utf-8", "replace")

    def decoder(self) -> StreamDecoder:
        return ByteStreamDecoder(self, _PIECES)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ByteTokenizer":
        return cls()
