"""What every tokenizer can do. Knows neither files nor torch.

An id is a number from 0 to vocab_size − 1. A text is encoded the same whether it comes whole or in chunks, wherever
the chunks are cut.
"""

import codecs
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import numpy as np
from jaxtyping import Integer

from microformer.errors import DataError

if TYPE_CHECKING:
    import tokenizers

Unknown = Literal["error", "skip", "replace"]
# What may stand for a character that a vocabulary lacks: the plain form of marks that typesetters and phones put in.
_PLAIN = str.maketrans(
    {"‘": "'", "’": "'", "‚": ",", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "–": "-", "—": "-", "−": "-",
     "‐": "-", "‑": "-", "…": "...", "×": "x", "•": "-", "\u00a0": " ", "\u2009": " ", "\u202f": " "}
)  # fmt: skip


class StreamDecoder(ABC):
    """Turns ids into text one at a time, never showing half a character."""

    @abstractmethod
    def push(self, token_id: int) -> str:
        """The text that this id completes; "" while a character is still incomplete.

        Raises:
            DataError: the vocabulary has no such id.
        """

    @abstractmethod
    def finish(self) -> str:
        """What is left when no more ids come: "", or U+FFFD for a character that was never completed."""


class Tokenizer(ABC):
    """Text to ids and back."""

    kind: str
    # The id that stands after each document; None where texts have no documents.
    end_of_document: int | None = None
    # The ids that a model of this vocabulary expects before a prompt (Llama's <s>).
    beginning: tuple[int, ...] = ()

    @classmethod
    @abstractmethod
    def train(cls, chunks: Iterable[str], vocab_size: int | None = None, alphabet: str = "") -> "Tokenizer":
        """A tokenizer for a text; arguments and errors as for `microformer.tokenization.train`."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many different ids there are."""

    @property
    def dtype(self) -> np.dtype:
        """The smallest integer type that both numpy and torch have and that holds every id."""
        if self.vocab_size <= 1 << 8:
            return np.dtype(np.uint8)
        return np.dtype(np.int16 if self.vocab_size <= 1 << 15 else np.int32)

    @abstractmethod
    def encode_chunks(
        self, chunks: Iterable[str], unknown: Unknown = "error"
    ) -> Iterator[Integer[np.ndarray, "token"]]:
        """The ids of a text that comes in chunks, in pieces of any length; joined they are those of the whole text.

        Args:
            chunks: consecutive parts of one text, cut anywhere between two characters.
            unknown: what becomes of characters that the vocabulary lacks: "error" refuses them, "skip" drops them,
                "replace" puts the plainest known form in their place (é: e; “: "; else ? or a space).

        Raises:
            DataError: characters that the vocabulary lacks, named, unless they are skipped.
        """

    def encode_documents(
        self, pieces: Iterable[tuple[str, bool]], unknown: Unknown = "error"
    ) -> Iterator[Integer[np.ndarray, "token"]]:
        """The ids of a text in documents, with the end of a document after each where there is a token for it.

        Args:
            pieces: consecutive parts, and whether a document ends after each. None goes over an end.
            unknown: as for `encode_chunks`.
        """
        if self.end_of_document is None:
            yield from self.encode_chunks((text for text, _ in pieces), unknown)
            return
        left, end = iter(pieces), np.array([self.end_of_document], self.dtype)
        for first in left:
            document = _Document(first, left)
            yield from self.encode_chunks(document, unknown)
            if document.ended:
                yield end

    def encode(self, text: str, unknown: Unknown = "error") -> Integer[np.ndarray, "token"]:
        """The ids of a text; arguments and errors as for `encode_chunks`."""
        return np.concatenate([np.empty(0, self.dtype), *self.encode_chunks([text], unknown)])

    @abstractmethod
    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """The text of these ids: numbers, an array or a tensor. Bytes that form no character become U+FFFD.

        Raises:
            DataError: the vocabulary has no such id.
        """

    @abstractmethod
    def decoder(self) -> StreamDecoder:
        """A decoder for ids that come one at a time; all it gives, joined, is what `decode` gives."""

    @abstractmethod
    def to_library(self) -> "tokenizers.Tokenizer":
        """The same tokenizer as Hugging Face's `tokenizers` runs it, its decoder with it."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """All it takes to build this tokenizer again, as JSON can hold it: `kind`, and what that kind needs."""

    @classmethod
    @abstractmethod
    def from_dict(cls, data: dict[str, Any]) -> "Tokenizer":
        """The opposite of `to_dict`.

        Raises:
            DataError: the dict describes no tokenizer of this kind.
        """

    def _checked(self, ids: Iterable[SupportsIndex]) -> Integer[np.ndarray, "token"]:
        if not hasattr(ids, "__array__") and not isinstance(ids, Sequence):
            ids = list(ids)
        checked = np.asarray(ids, dtype=np.int64).reshape(-1)
        outside = (checked < 0) | (checked >= self.vocab_size)
        if outside.any():
            raise DataError(
                f"there is no token {checked[outside][0]}: this vocabulary has ids 0 to {self.vocab_size - 1}.",
                "these ids come from another tokenizer, or from a model with more outputs than this vocabulary.",
            )
        return checked


class _Document:
    """The pieces of one document, of an iterator that goes on with the next."""

    def __init__(self, first: tuple[str, bool], left: Iterator[tuple[str, bool]]):
        self._first, self._left = first[0], left
        self.ended = first[1]

    def __iter__(self) -> Iterator[str]:
        yield self._first
        while not self.ended:
            piece = next(self._left, None)
            if piece is None:
                return
            text, self.ended = piece
            yield text


class ByteStreamDecoder(StreamDecoder):
    """For tokenizers whose tokens are bytes of UTF-8, which may end in the middle of a character."""

    def __init__(self, tokenizer: Tokenizer, pieces: Sequence[bytes]):
        self._tokenizer = tokenizer
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        if not 0 <= token_id < len(self._pieces):
            self._tokenizer._checked([token_id])
        return self._decoder.decode(self._pieces[token_id])

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


def known(text: str, alphabet: frozenset[str], unknown: Unknown) -> str:
    """The text with nothing in it that the alphabet lacks.

    Raises:
        DataError: it has such characters, unless they are to be skipped or replaced.
    """
    lacking = set(text) - alphabet
    if not lacking:
        return text
    if unknown == "error":
        raise unknown_characters(character for character in text if character in lacking)
    instead = dict.fromkeys(lacking, "")
    if unknown == "replace":
        instead = {character: plainest(character, alphabet) for character in lacking}
    return text.translate(str.maketrans(instead))


def plainest(character: str, alphabet: frozenset[str]) -> str:
    """The nearest to a character that can be written in an alphabet: without its accents, in ASCII, in the other case;
    else a question mark or a space; "" where not even these are there."""
    ways = [character.translate(_PLAIN), unicodedata.normalize("NFKC", character)]
    bare = "".join(one for one in unicodedata.normalize("NFKD", character) if not unicodedata.combining(one))
    ways += [bare, bare.translate(_PLAIN), bare.lower(), bare.upper(), "\ufffd", "?", " "]
    return next((way for way in ways if way and set(way) <= alphabet), "")


def utf8(text: str, unknown: Unknown = "error") -> bytes:
    """UTF-8 for text that may hold lone surrogates (half characters, as from a badly encoded command line).

    Raises:
        DataError: it holds one, unless it is to be skipped, or replaced by a question mark.
    """
    try:
        return text.encode("utf-8", {"error": "strict", "skip": "ignore", "replace": "replace"}[unknown])
    except UnicodeEncodeError as error:
        raise unknown_characters(text[error.start : error.end]) from error


def unknown_characters(characters: Iterable[str]) -> DataError:
    """The error that names characters which can't be encoded, each once, in the order in which they came."""
    distinct = list(dict.fromkeys(characters))
    shown = ", ".join(ascii(c) if 0xD800 <= ord(c) <= 0xDFFF else repr(c) for c in distinct[:5])
    more = f" and {len(distinct) - 5} more" if len(distinct) > 5 else ""
    count = "1 character" if len(distinct) == 1 else f"{len(distinct)} different characters"
    return DataError(
        f"the vocabulary lacks {count} of this text: {shown}{more}.",
        "leave them out, or have them dropped or replaced: --unknown skip, --unknown replace.",
    )
