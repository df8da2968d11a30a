"""Any other tokenizer of Hugging Face's `tokenizers`, run as its tokenizer.json says: Llama's, Qwen's, and what comes.

What it does to spaces, marks and rare characters is its own affair, so a text is handed to it whole: memory is needed
in proportion to a document's length, and a text may come back changed. Tokens that stand for no text are not shown; one
that begins a text is not among its ids, and stands before a prompt alone.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

import numpy as np
import tokenizers
from jaxtyping import Integer

from microformer.errors import DataError, SettingsError
from microformer.tokenization.base import StreamDecoder, Tokenizer, Unknown, utf8


class HuggingFaceTokenizer(Tokenizer):
    """Runs a tokenizer.json as it is.

    Args:
        backend: what the library made of it.
    """

    kind = "huggingface"

    def __init__(self, backend: tokenizers.Tokenizer):
        self._backend = backend
        vocab = backend.get_vocab()
        self._size = 1 + max(vocab.values(), default=-1)
        # Bytes of characters that the vocabulary lacks: what one stands for is known when no more of them come. A token
        # that stands for no text does not part them.
        self.unsettled = {token_id for token, token_id in vocab.items() if re.fullmatch("<0x[0-9A-F]{2}>", token)}
        self.unsettled |= {at for at, token in backend.get_added_tokens_decoder().items() if token.special}
        if self._size == 0:
            raise DataError("this tokenizer has no tokens.")
        added = backend.encode("a").special_tokens_mask
        self.beginning = tuple(backend.encode("a").ids[: added.index(0)]) if 0 in added else ()

    @classmethod
    def train(cls, chunks: Iterable[str], vocab_size: int | None = None, alphabet: str = "") -> "HuggingFaceTokenizer":
        raise SettingsError("another program's tokenizer is not trained here.", "name a folder with its files.")

    @property
    def vocab_size(self) -> int:
        return self._size

    def encode_chunks(
        self, chunks: Iterable[str], unknown: Unknown = "error"
    ) -> Iterator[Integer[np.ndarray, "token"]]:
        text = utf8("".join(chunks), unknown).decode("utf-8")
        yield np.array(self._backend.encode(text, add_special_tokens=False).ids, self.dtype)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        return self._backend.decode(self._checked(ids).tolist(), skip_special_tokens=True)

    def decoder(self) -> StreamDecoder:
        return _Settling(self)

    def to_library(self) -> tokenizers.Tokenizer:
        return self._backend

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "tokenizer": json.loads(self._backend.to_str())}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "HuggingFaceTokenizer":
        try:
            return cls(tokenizers.Tokenizer.from_str(json.dumps(data.get("tokenizer"))))
        except DataError:
            raise
        except Exception as error:  # the library raises no narrower class
            raise DataError(f"this tokenizer can't be built: {error}.") from error


class _Settling(StreamDecoder):
    """Gives what an id adds to the text of those before it, once it is whole characters.

    Two stretches of the last ids are decoded, one longer by what is new: what a decoder does to the beginning of a text
    it does to both.
    """

    def __init__(self, tokenizer: HuggingFaceTokenizer):
        self._tokenizer = tokenizer
        self._given: list[int] = []  # the last ids whose text was given
        self._held: list[int] = []

    def push(self, token_id: int) -> str:
        self._tokenizer._checked([token_id])
        self._held.append(token_id)
        text = self._new()
        if text.endswith("\ufffd") or token_id in self._tokenizer.unsettled:
            return ""
        self._given, self._held = self._held, []
        return text

    def finish(self) -> str:
        text, self._held = self._new(), []
        return text

    def _new(self) -> str:
        before, after = (self._tokenizer.decode(ids) for ids in (self._given, self._given + self._held))
        return after[len(before) :]
