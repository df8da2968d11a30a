"""What a loss is held against: models without a network, and programs that compress. Knows ids, no text and no files.

uniform         every token alike
unigram         how often each token comes
Kneser–Ney      how often each token came after the last few, shorter and shorter contexts mixed in
xz              what a general compressor makes of the bytes
"""

import lzma
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

_LONGEST = 7
# Keys of n-grams are numbers of 63 bits.
_KEYS = 2**62


def uniform(vocab_size: int) -> float:
    """The loss of a model that knows nothing: log(vocabulary), in nats a token."""
    return math.log(vocab_size)


def unigram(train: Integer[Tensor, "train_tokens"], ids: Integer[Tensor, "tokens"], vocab_size: int) -> float:
    """The loss of a model that knows how often each token comes in `train` (plus one each) and no more, in nats."""
    counts = _counts(train, vocab_size) + 1
    seen = _counts(ids, vocab_size)
    return float(-(seen * (counts / counts.sum()).log()).sum() / seen.sum())


def _counts(ids: Tensor, vocab_size: int, piece: int = 1 << 22) -> Tensor:
    counts = torch.zeros(vocab_size, dtype=torch.float64)
    for part in ids.split(piece):
        counts += torch.bincount(part.long(), minlength=vocab_size)
    return counts


def xz(text: bytes) -> float:
    """Bits a byte that xz takes at its best, with nothing learned before."""
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / max(1, len(text))


def kneser_ney(
    train: Integer[Tensor, "train_tokens"], ids: Integer[Tensor, "tokens"], vocab_size: int
) -> dict[int, float]:
    """The loss of interpolated n-gram models with modified Kneser–Ney smoothing, in nats a token, by order: 1 to 7, or
    to where n-grams of so many tokens have no key any more.

        P(w | h) = max(c(hw) − D, 0) / c(h) + (what was taken off) / c(h) · P(w | h without its first token)

    c counts, and in shorter contexts after how many different tokens hw came; D is another for 1, 2 and more, from how
    many n-grams came once, twice … (Chen and Goodman 1999, "An Empirical Study of Smoothing Techniques for Language
    Modeling"; Kneser and Ney 1995). The shortest context is mixed with `uniform`.

    Args:
        train: what is counted.
        ids: what is scored, as it goes on after `train`.
    """
    learned, scored = (part.numpy().astype(np.int64) for part in (train, ids))
    context = np.concatenate([learned[-(_LONGEST - 1) :], scored])
    first = len(context) - len(scored)
    orders = range(1, _longest(vocab_size, len(learned)) + 1)
    grams = {n: np.unique(_keys(learned, n, vocab_size), return_counts=True) for n in orders}
    found: dict[int, float] = {}
    for order in orders:
        # Of the longest context how often it came counts, of the shorter ones after how many different tokens.
        p = np.full(len(scored), 1 / vocab_size)
        for n in range(1, order + 1):
            keys, counts = grams[n]
            if n < order:
                keys, counts = np.unique(grams[n + 1][0] % vocab_size**n, return_counts=True)
            asked = _keys(context, n, vocab_size)[first - n + 1 :]
            p = _Level.of(keys, counts, vocab_size).mixed(asked, p, vocab_size)
        found[order] = float(-np.log(p).mean())
    return found


def _longest(vocab_size: int, tokens: int) -> int:
    n = 1
    while n < min(_LONGEST, tokens) and vocab_size ** (n + 1) < _KEYS:
        n += 1
    return n


def _keys(ids: np.ndarray, n: int, vocab_size: int) -> np.ndarray:
    """A number for the n tokens that end at each place from the n-th on; the last token counts least."""
    keys = np.zeros(len(ids) - n + 1, np.int64)
    for part in (ids[at : at + len(keys)] for at in range(n)):
        keys = keys * vocab_size + part
    return keys


@dataclass(frozen=True)
class _Level:
    """The n-grams of one length.

    Args:
        keys, left: each n-gram, sorted, and its count with the discount taken off.
        contexts, totals, freed: each context, how often it came, and how much was taken off what came after it.
    """

    keys: np.ndarray
    left: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    freed: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray, counts: np.ndarray, vocab_size: int) -> "_Level":
        discount = np.array([0.0, *_discounts(counts)])[np.minimum(counts, 3)]
        contexts, begin = np.unique(keys // vocab_size, return_index=True)
        totals, freed = (np.add.reduceat(each.astype(float), begin) for each in (counts, discount))
        return cls(keys, counts - discount, contexts, totals, freed)

    def mixed(self, asked: np.ndarray, shorter: np.ndarray, vocab_size: int) -> np.ndarray:
        """P of each n-gram asked for, given what a shorter context says."""
        context, known = _found(self.contexts, asked // vocab_size)
        gram, came = _found(self.keys, asked)
        total = np.where(known, self.totals[context], 1.0)
        own = np.where(came, self.left[gram], 0.0) / total
        return np.where(known, own + np.where(known, self.freed[context], 0.0) / total * shorter, shorter)


def _found(among: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each is among sorted ones, and whether it is."""
    at = np.minimum(np.searchsorted(among, wanted), len(among) - 1)
    return at, among[at] == wanted


def _discounts(counts: np.ndarray) -> Iterator[float]:
    """D for what came once, twice, and more often."""
    of = [float((counts == n).sum()) for n in range(1, 5)]
    share = of[0] / (of[0] + 2 * of[1]) if of[0] else 0.5
    for n in (1, 2, 3):
        some = n - (n + 1) * share * of[n] / of[n - 1] if of[n - 1] else share
        yield min(max(some, 0.0), float(n))
