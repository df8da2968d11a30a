"""One token a character: the vocabulary is the text's own alphabet, sorted by code point.

Nothing is lost and nothing is learned; a character that the training text never had can't be encoded.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from jaxtyping import Integer

from microformer.errors import DataError
from microformer.tokenization.base import StreamDecoder, Tokenizer, Unknown, known, unknown_characters, utf8

if TYPE_CHECKING:
    import tokenizers

# How Hugging Face's library is told to cut a text into characters.
LIBRARY_SPLIT: dict[str, Any] = {
    "type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False
}  # fmt: skip
_CODE_POINTS = 0x110000
# Pieces that stay in a core's cache while they are looked up.
_BLOCK = 1 << 16


class CharTokenizer(Tokenizer):
    """Characters to ids by table.

    Args:
        alphabet: the characters, each once; a character's place is its id.
    """

    kind = "char"

    def __init__(self, alphabet: str):
        if not alphabet or len(set(alphabet)) != len(alphabet):
            raise DataError("a character vocabulary needs at least one character, and each only once.")
        self.alphabet = alphabet
        self._known = frozenset(alphabet)
        self._codes = _codes(alphabet)
        # -1 marks what the vocabulary lacks.
        self._ids = np.full(_CODE_POINTS, -1, np.int32)
        self._ids[self._codes] = np.arange(len(alphabet))
        # For ASCII text bytes.translate does the whole work, at the speed of memory, while ids fit a byte.
        self._ascii = bytes(code for code in self._codes if code < 128)
        self._ascii_ids = np.where(self._ids[:256] >= 0, self._ids[:256], 0).astype(np.uint8).tobytes()

    @classmethod
    def train(cls, chunks: Iterable[str], vocab_size: int | None = None, alphabet: str = "") -> "CharTokenizer":
        """The alphabet of a text that comes in chunks.

        Args:
            chunks: consecutive parts of one text.
            vocab_size, alphabet: left aside; the text decides.

        Raises:
            DataError: the text is empty, or holds half a character (a lone surrogate).
        """
        ascii_seen = b""
        seen = np.zeros(_CODE_POINTS, bool)
        for chunk in chunks:
            if chunk.isascii():
                unseen = chunk.encode("ascii").translate(None, ascii_seen)
                while unseen:
                    ascii_seen += bytes(set(unseen[:_BLOCK]))
                    unseen = unseen.translate(None, ascii_seen)
            else:
                for codes in _blocks(chunk):
                    seen[codes[~seen.take(codes)]] = True
        seen[list(ascii_seen)] = True
        found = "".join(map(chr, np.flatnonzero(seen)))
        if not found:
            raise DataError("there is no vocabulary in an empty text.")
        utf8(found)
        return cls(found)

    @property
    def vocab_size(self) -> int:
        return len(self.alphabet)

    def encode_chunks(
        self, chunks: Iterable[str], unknown: Unknown = "error"
    ) -> Iterator[Integer[np.ndarray, "token"]]:
        for chunk in chunks:
            written = known(chunk, self._known, unknown) if unknown == "replace" else chunk
            yield self._encode_ascii(written, unknown) if written.isascii() else self._encode_any(written, unknown)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        return self._codes[self._checked(ids)].astype("<u4").tobytes().decode("utf-32-le")

    def decoder(self) -> StreamDecoder:
        return _CharStreamDecoder(self)

    def to_library(self) -> "tokenizers.Tokenizer":
        import tokenizers
        from tokenizers import Regex, decoders, models, pre_tokenizers

        # Each character a word; it has no token for unknown ones, and refuses them.
        made = tokenizers.Tokenizer(models.WordLevel(self.to_dict()["vocab"], ""))
        made.pre_tokenizer = pre_tokenizers.Split(Regex(LIBRARY_SPLIT["pattern"]["Regex"]), "isolated")
        made.decoder = decoders.Fuse()
        return made

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocab": {character: index for index, character in enumerate(self.alphabet)}}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "CharTokenizer":
        vocab = data.get("vocab")
        if (
            not isinstance(vocab, dict)
            or not vocab
            or not all(len(character) == 1 for character in vocab)
            or sorted(vocab.values(), key=str) != sorted(range(len(vocab)), key=str)
        ):
            raise DataError(
                "a character vocabulary gives each character an id, from 0 up without a gap; this one doesn't."
            )
        return cls("".join(sorted(vocab, key=vocab.__getitem__)))

    def _encode_ascii(self, chunk: str, unknown: Unknown) -> Integer[np.ndarray, "token"]:
        data = chunk.encode("ascii")
        if lacking := data.translate(None, self._ascii):
            if unknown == "error":
                raise unknown_characters(lacking.decode("ascii"))
            data = data.translate(None, lacking)
        if self.vocab_size <= 256:
            return np.frombuffer(data.translate(self._ascii_ids), np.uint8)
        return self._ids.take(np.frombuffer(data, np.uint8)).astype(self.dtype)

    def _encode_any(self, chunk: str, unknown: Unknown) -> Integer[np.ndarray, "token"]:
        ids = np.empty(len(chunk), self.dtype)
        end = 0
        lacking: dict[str, None] = {}
        for codes in _blocks(chunk):
            found = self._ids.take(codes)
            if found.min() < 0:
                missing = found < 0
                lacking |= dict.fromkeys(map(chr, codes[missing]))
                found = found[~missing]
            ids[end : end + len(found)] = found
            end += len(found)
        if lacking and unknown == "error":
            raise unknown_characters(lacking)
        return ids[:end]


class _CharStreamDecoder(StreamDecoder):
    def __init__(self, tokenizer: CharTokenizer):
        self._tokenizer = tokenizer

    def push(self, token_id: int) -> str:
        return self._tokenizer.decode([token_id])

    def finish(self) -> str:
        return ""


def _codes(text: str) -> Integer[np.ndarray, "char"]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)


def _blocks(text: str) -> Iterator[Integer[np.ndarray, "char"]]:
    for start in range(0, len(text), _BLOCK):
        yield _codes(text[start : start + _BLOCK])
