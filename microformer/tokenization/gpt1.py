"""GPT-1's pairs of characters: text in lower case, words without the space between them, </w> where a word ends.

    text → no accents, lower case → words and marks → characters → pairs, the most frequent first

Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training"; pairs as in Sennrich et
al. 2016. Not trained here, but read from the vocabulary and merges that were published (published.py). What comes back
has one space after each word and mark, and no capitals; characters that no pair is made of are unknown to it.
"""

from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

import numpy as np
import tokenizers
from jaxtyping import Integer
from tokenizers import decoders, models, normalizers, pre_tokenizers

from microformer.errors import DataError, SettingsError
from microformer.tokenization.base import StreamDecoder, Tokenizer, Unknown, unknown_characters, utf8
from microformer.tokenization.cutting import batches, cut

END, UNKNOWN = "</w>", "<unk>"


class GPT1Tokenizer(Tokenizer):
    """Runs published pairs.

    Args:
        vocab: each token's id, from 0 up.
        merges: the pairs, the most frequent first.
    """

    kind = "gpt1"

    def __init__(self, vocab: dict[str, int], merges: list[tuple[str, str]]):
        if sorted(vocab.values()) != list(range(len(vocab))) or UNKNOWN not in vocab:
            raise DataError(f"this is no GPT-1 vocabulary: there are gaps in its ids, or it lacks {UNKNOWN}.")
        self._vocab, self._merges = vocab, merges
        self._unknown = vocab[UNKNOWN]
        try:
            model = models.BPE(vocab, merges, unk_token=UNKNOWN, end_of_word_suffix=END, fuse_unk=False)
        except Exception as error:  # the library raises no narrower class
            raise DataError(f"these are no GPT-1 merges: {error}.") from error
        self._backend = tokenizers.Tokenizer(model)
        self._backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        self._backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._backend.decoder = decoders.BPEDecoder(END)
        tokens = ("\ufffd" if token == UNKNOWN else token for token in sorted(vocab, key=vocab.__getitem__))
        self._pieces = tuple(f"{token.removesuffix(END)} " if token.endswith(END) else token for token in tokens)

    @classmethod
    def train(cls, chunks: Iterable[str], vocab_size: int | None = None, alphabet: str = "") -> "GPT1Tokenizer":
        raise SettingsError(
            "GPT-1's tokenizer is not trained here.", "name a folder with its vocab.json and merges.txt."
        )

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    def encode_chunks(
        self, chunks: Iterable[str], unknown: Unknown = "error"
    ) -> Iterator[Integer[np.ndarray, "token"]]:
        pieces = (utf8(piece, unknown).decode("utf-8") for piece in cut(chunks))
        for batch in batches(pieces):
            for piece, encoding in zip(batch, self._backend.encode_batch(batch), strict=True):
                ids = np.array(encoding.ids, self.dtype)
                lacking = ids == self._unknown
                if lacking.any() and unknown == "error":
                    spans = [encoding.offsets[at] for at in np.flatnonzero(lacking)]
                    raise unknown_characters(character for start, end in spans for character in piece[start:end])
                yield ids[~lacking] if unknown == "skip" else ids

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        return "".join(self._pieces[token_id] for token_id in self._checked(ids)).removesuffix(" ")

    def decoder(self) -> StreamDecoder:
        return _SpaceLater(self)

    def to_library(self) -> tokenizers.Tokenizer:
        return self._backend

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocab": self._vocab, "merges": [list(pair) for pair in self._merges]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "GPT1Tokenizer":
        vocab, merges = data.get("vocab"), data.get("merges")
        if not isinstance(vocab, dict) or not isinstance(merges, list) or not all(len(pair) == 2 for pair in merges):
            raise DataError("this holds no vocabulary and merges of GPT-1.")
        return cls(vocab, [(str(first), str(second)) for first, second in merges])


class _SpaceLater(StreamDecoder):
    """The space after a word comes with what follows it: after the last word there is none."""

    def __init__(self, tokenizer: GPT1Tokenizer):
        self._tokenizer = tokenizer
        self._space = ""

    def push(self, token_id: int) -> str:
        self._tokenizer._checked([token_id])
        piece = self._space + self._tokenizer._pieces[token_id]
        self._space = " " if piece.endswith(" ") else ""
        return piece.removesuffix(" ")

    def finish(self) -> str:
        return ""
