"""Byte-level byte-pair encoding, as GPT-2's: the pairs that are most frequent in the training text become tokens.

Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; on bytes: Radford et al. 2019,
"Language Models are Unsupervised Multitask Learners". Every byte is a token too, so that no text is lacking. Trained
and run by Hugging Face's `tokenizers`; this file adds what it lacks: text that comes in chunks, and ids in bytes.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

import numpy as np
import tokenizers
from jaxtyping import Integer
from tokenizers import decoders, models, pre_tokenizers, trainers

from microformer.errors import DataError, SettingsError
from microformer.tokenization.base import ByteStreamDecoder, StreamDecoder, Tokenizer, Unknown, utf8
from microformer.tokenization.byte import shown_bytes
from microformer.tokenization.cutting import cut
from microformer.tokenization.documents import END
from microformer.tokenization.words import Words, ids_by

SMALLEST = 256
_SMALLEST_CHOSEN = 512
_LARGEST_CHOSEN = 8192


class BpeTokenizer(Tokenizer):
    """Runs what `tokenizers` trained.

    Args:
        backend: a byte-level BPE.
    """

    kind = "bpe"

    def __init__(self, backend: tokenizers.Tokenizer):
        self._backend = backend
        byte_of = {shown: value for value, shown in enumerate(shown_bytes())}
        vocab = backend.get_vocab()
        tokens = sorted(vocab, key=vocab.__getitem__)
        if {*byte_of, *"".join(tokens)} != {*byte_of} or sorted(vocab.values()) != list(range(len(vocab))):
            raise DataError("this is no byte-level BPE: it has tokens that are not bytes, or gaps in its ids.")
        self._pieces = tuple(bytes(byte_of[character] for character in token) for token in tokens)
        self.end_of_document = vocab.get(END)
        self._words = Words(ids_by(backend), self.dtype)

    @classmethod
    def train(cls, chunks: Iterable[str], vocab_size: int | None = None, alphabet: str = "") -> "BpeTokenizer":
        """Learns the pairs of a text that comes in chunks. The same text gives the same tokens, however it is cut.

        Args:
            chunks: consecutive parts of one text.
            vocab_size: how many tokens. None chooses: near the square root of the text's length, a power of two from
                512 to 8,192 (Tiny Shakespeare: 1,024), or less where the text has not so many pairs.
            alphabet: left aside; all bytes are there.

        Raises:
            SettingsError: a size below 256, the bytes themselves, or above what the text has pairs for.
        """
        if vocab_size is not None and vocab_size < SMALLEST:
            raise SettingsError(
                f"a BPE vocabulary of {vocab_size} is too small: its smallest is {SMALLEST}, one token a byte.",
                f"use {SMALLEST} or more, or leave VOCAB_SIZE alone and a size that suits the text is chosen.",
            )
        length = 0

        def counted() -> Iterator[str]:
            nonlocal length
            for piece in cut(chunks):
                length += len(piece)
                yield utf8(piece).decode("utf-8")

        backend = byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size or _LARGEST_CHOSEN,
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(counted(), trainer)
        found = backend.get_vocab_size()
        if vocab_size is not None and found < vocab_size:
            raise SettingsError(
                f"a BPE vocabulary of {vocab_size} is more than this text has: its pairs give {found} tokens.",
                f"use {found} or less, or more text, or leave VOCAB_SIZE alone.",
            )
        if vocab_size is None:
            # Pairs are learned one after the other, so that a smaller vocabulary is the beginning of a larger one.
            nearest_power = 1 << max(0, round(np.log2(max(1, length)) / 2))
            backend = _shortened(backend, max(_SMALLEST_CHOSEN, nearest_power))
        return cls(backend)

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    def encode_chunks(
        self, chunks: Iterable[str], unknown: Unknown = "error"
    ) -> Iterator[Integer[np.ndarray, "token"]]:
        return self._words.ids(utf8(piece, unknown).decode("utf-8") for piece in cut(chunks))

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        return b"".join(self._pieces[token_id] for token_id in self._checked(ids)).decode("utf-8", "replace")

    def decoder(self) -> StreamDecoder:
        return ByteStreamDecoder(self, self._pieces)

    def to_library(self) -> tokenizers.Tokenizer:
        return self._backend

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "tokenizer": json.loads(self._backend.to_str())}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "BpeTokenizer":
        try:
            backend = tokenizers.Tokenizer.from_str(json.dumps(data.get("tokenizer")))
        except Exception as error:  # the library raises no narrower class
            raise DataError(f"this BPE tokenizer can't be built: {error}.") from error
        return cls(backend)


def byte_level(model: models.Model) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _shortened(backend: tokenizers.Tokenizer, vocab_size: int) -> tokenizers.Tokenizer:
    model = json.loads(backend.to_str())["model"]
    vocab = {token: index for token, index in model["vocab"].items() if index < vocab_size}
    merges = [tuple(pair) for pair in model["merges"] if "".join(pair) in vocab]
    return byte_level(models.BPE(vocab, merges))
