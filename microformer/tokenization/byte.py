"""One token a byte of UTF-8: 256 ids for every text there is. Learns nothing and lacks nothing."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from jaxtyping import Integer

from microformer.tokenization.base import ByteStreamDecoder, StreamDecoder, Tokenizer, Unknown, utf8

if TYPE_CHECKING:
    import tokenizers

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

    def to_library(self) -> "tokenizers.Tokenizer":
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers

        made = tokenizers.Tokenizer(models.BPE({shown: byte for byte, shown in enumerate(shown_bytes())}, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
        return made

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ByteTokenizer":
        return cls()


def shown_bytes() -> list[str]:
    """The character that GPT-2's vocabulary writes for each byte: its own if that can be seen, else one from 256 up."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(value) if value in printable else chr(next(others)) for value in range(256)]
