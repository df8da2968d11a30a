"""What tokenizers have in common whose tokens are pieces of words, trained and run by Hugging Face's `tokenizers`.

    text → composed characters (NFC) → words, each with the space before it as ▁; ends of lines, tabs and punctuation
    marks alone; nothing longer than 100 characters → pieces

Ends of lines are kept, and all spaces, so that a text comes back as it was, but for two things: characters that Unicode
has composed are composed (e + ◌́ → é), and ▁ itself (U+2581) comes back as a space. A character that the training text
never had can't be encoded; there is no token for the unknown.
"""

import json
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from tempfile import TemporaryFile
from typing import Any, SupportsIndex

import numpy as np
import tokenizers
from jaxtyping import Integer
from tokenizers import Regex, decoders, normalizers, pre_tokenizers

from microformer.errors import DataError, SettingsError
from microformer.tokenization.base import StreamDecoder, Tokenizer, Unknown, known, utf8
from microformer.tokenization.cutting import cut
from microformer.tokenization.words import Words, ids_by

SPACE = "▁"
LONGEST_WORD = 100
_SMALLEST_CHOSEN = 512
_LARGEST_CHOSEN = 8192


class PieceTokenizer(Tokenizer):
    """Runs what `tokenizers` trained.

    Args:
        backend: with a vocabulary of this kind's tokens, ids from 0 up.
    """

    def __init__(self, backend: tokenizers.Tokenizer):
        vocab = backend.get_vocab(with_added_tokens=False)
        if sorted(vocab.values()) != list(range(len(vocab))) or backend.get_vocab_size() != len(vocab):
            raise DataError(f"this is no {self.kind} tokenizer: there are gaps in its ids, or tokens beside them.")
        self._backend = backend
        self._tokens = sorted(vocab, key=vocab.__getitem__)
        self._pieces = tuple(self._text_of(token).replace(SPACE, " ") for token in self._tokens)
        self._alphabet = frozenset("".join(piece for piece in self._pieces if len(piece) == 1))
        self._words = Words(ids_by(backend), self.dtype)

    @classmethod
    @abstractmethod
    def _learned(cls, chunks: Iterable[str], alphabet: str, vocab_size: int) -> tokenizers.Tokenizer:
        """What is learned from a text whose characters are known, of at most so many tokens."""

    @staticmethod
    @abstractmethod
    def _text_of(token: str) -> str:
        """The text that a token of the vocabulary stands for, spaces as ▁."""

    @staticmethod
    @abstractmethod
    def _fewest(alphabet: str) -> int:
        """The fewest tokens with which every text of these characters can be encoded."""

    @classmethod
    def train(cls, chunks: Iterable[str], vocab_size: int | None = None, alphabet: str = "") -> "PieceTokenizer":
        """Learns the pieces of a text that comes in chunks. The same text gives the same tokens, however it is cut.

        Args:
            chunks: consecutive parts of one text. They are written to a temporary file, for the text is read twice.
            vocab_size: how many tokens. None chooses: near the square root of the text's length, a power of two from
                512 to 8,192 (Tiny Shakespeare: 1,024), or more where the text has more characters, or less where it
                has not so many pieces.
            alphabet: characters that it must be able to encode besides those of the text.

        Raises:
            SettingsError: a size below what its characters need, or above what the text has pieces for.
            DataError: an empty text.
        """
        with TemporaryFile() as kept:
            length, characters = 0, set(normalised(alphabet))
            for piece in cut(chunks):
                text = normalised(utf8(piece).decode("utf-8"))
                length += len(text)
                characters |= set(text)
                data = text.encode("utf-8")
                kept.write(len(data).to_bytes(8, "little") + data)
            if not characters:
                raise DataError("there is no vocabulary in an empty text.")
            known_characters = "".join(sorted(characters))
            fewest, chosen = cls._fewest(known_characters), vocab_size
            if vocab_size is not None and vocab_size < fewest:
                raise SettingsError(
                    f"a {cls.kind} vocabulary of {vocab_size} is too small: this text's characters take {fewest}.",
                    f"use {fewest} or more, or leave VOCAB_SIZE alone and a size that suits the text is chosen.",
                )
            if chosen is None:
                nearest_power = 1 << max(0, round(np.log2(max(1, length)) / 2))
                chosen = max(fewest + 1, min(_LARGEST_CHOSEN, max(_SMALLEST_CHOSEN, nearest_power)))
            kept.seek(0)
            learned = cls._learned(_read(kept), known_characters, chosen)
        found = learned.get_vocab_size()
        if vocab_size is not None and found != vocab_size:
            raise SettingsError(
                f"a {cls.kind} vocabulary of {vocab_size} can't be made of this text: its pieces give {found} tokens.",
                f"use {found} or less, or more text, or leave VOCAB_SIZE alone.",
            )
        return cls(learned)

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    def encode_chunks(
        self, chunks: Iterable[str], unknown: Unknown = "error"
    ) -> Iterator[Integer[np.ndarray, "token"]]:
        return self._words.ids(known(normalised(piece), self._alphabet, unknown) for piece in cut(chunks))

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        return "".join(self._pieces[token_id] for token_id in self._checked(ids))

    def decoder(self) -> StreamDecoder:
        return _PieceStreamDecoder(self)

    def to_library(self) -> tokenizers.Tokenizer:
        made = tokenizers.Tokenizer.from_str(self._backend.to_str())
        # Each token without the mark of one that goes on, ▁ as a space, and all of them joined.
        made.decoder = decoders.Sequence([*self._unmarked(), decoders.Replace(SPACE, " "), decoders.Fuse()])
        return made

    def _unmarked(self) -> list[decoders.Decoder]:
        """What takes from a token the mark of one that goes on."""
        return []

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "tokenizer": json.loads(self._backend.to_str())}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "PieceTokenizer":
        plain = data.get("tokenizer")
        if not isinstance(plain, dict) or plain.get("model", {}).get("type", "").lower() != cls.kind:
            raise DataError(f"this holds no {cls.kind} tokenizer.")
        try:
            backend = tokenizers.Tokenizer.from_str(json.dumps(plain))
        except Exception as error:  # the library raises no narrower class
            raise DataError(f"this {cls.kind} tokenizer can't be built: {error}.") from error
        return cls(backend)


class _PieceStreamDecoder(StreamDecoder):
    def __init__(self, tokenizer: PieceTokenizer):
        self._tokenizer = tokenizer

    def push(self, token_id: int) -> str:
        return self._tokenizer.decode([token_id])

    def finish(self) -> str:
        return ""


def normalised(text: str) -> str:
    """The text as it comes back: composed, and without a ▁ that is not ours."""
    return unicodedata.normalize("NFC", text).replace(SPACE, " ")


def backend(model: tokenizers.models.Model) -> tokenizers.Tokenizer:
    """A tokenizer that cuts words as the top of this file says, and then does what `model` does."""
    made = tokenizers.Tokenizer(model)
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\n\r\t]"), "isolated"),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Metaspace(SPACE, prepend_scheme="never"),
            pre_tokenizers.Split(Regex(f".{{1,{LONGEST_WORD}}}"), "isolated"),
        ]
    )
    return made


PRE_TOKENIZER: dict[str, Any] = json.loads(backend(tokenizers.models.BPE()).to_str())["pre_tokenizer"]


def _read(kept: Any) -> Iterator[str]:
    while header := kept.read(8):
        yield kept.read(int.from_bytes(header, "little")).decode("utf-8")
