"""Words that came before need not be encoded again: a text of millions of them has only some ten thousand.

A tokenizer that joins no whitespace to what stands before it encodes each word, with the whitespace in front of it, the
same wherever it stands. So a text is taken word by word from a table, and only what is not there yet is encoded: ten
times as fast as encoding all of it. Knows no tokenizer.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tokenizers
from jaxtyping import Integer

# Each stretch begins where `cutting` could cut. Other whitespace than these four hangs together with what is before it.
_STRETCH = re.compile(r"[ \n\r\t]*[^ \n\r\t]+|[ \n\r\t]+")
_OTHER_SPACE = re.compile(r"[^\S \n\r\t]")
# Words that are kept: some 30 MB. A word as long as that comes only once.
_MOST = 200_000
_LONGEST = 64


def ids_by(backend: tokenizers.Tokenizer) -> Callable[[list[str]], Iterator[list[int]]]:
    """What encodes texts with Hugging Face's library, on as many cores as there are."""
    # Without offsets, which nobody reads, it takes a quarter less; the library had no such call before 0.21.
    encode = getattr(backend, "encode_batch_fast", backend.encode_batch)
    return lambda texts: (encoding.ids for encoding in encode(texts))


class Words:
    """A table of words and their ids.

    Args:
        encode: the ids of each of some texts.
        dtype: of the ids.
    """

    def __init__(self, encode: Callable[[list[str]], Iterable[Sequence[int]]], dtype: np.dtype):
        self._encode = encode
        self._dtype = dtype
        self._known: dict[str, bytes] = {}

    def ids(self, texts: Iterable[str]) -> Iterator[Integer[np.ndarray, "token"]]:
        """The ids of each of some texts."""
        for text in texts:
            stretches = [text] if _OTHER_SPACE.search(text) else _STRETCH.findall(text)
            if len(self._known) > _MOST:
                self._known.clear()
            new = [one for one in dict.fromkeys(stretches) if one not in self._known]
            for stretch, ids in zip(new, self._encode(new) if new else (), strict=True):
                self._known[stretch] = np.array(ids, self._dtype).tobytes()
            yield np.frombuffer(b"".join(map(self._known.__getitem__, stretches)), self._dtype)
            for stretch in new:
                if len(stretch) > _LONGEST:
                    del self._known[stretch]
