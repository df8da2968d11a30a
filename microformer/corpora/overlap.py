"""How much of the validation part stands in the training part too, word for word.

A loss on such text tells what was learned by heart. Every stretch of 64 tokens (16, where tokens are pieces of words)
is hashed, and of large texts one in so many is looked at, chosen by its hash alike in both parts. Reads ids; a hash of
64 bits takes two different stretches for one about never.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Integer
from torch import Tensor

_LENGTHS = {"char": 64, "byte": 64}
_LENGTH_OF_PIECES = 16
# Stretches of the validation part that are looked at, about.
_LOOKED_AT = 100_000
_BLOCK = 1 << 17
_MIXED = np.uint64(0x9E3779B97F4A7C15)


def shared(train: Integer[Tensor, "train"], val: Integer[Tensor, "val"], kind: str) -> dict[str, Any] | None:
    """Of the validation part's stretches those that are in the training part: `length` in tokens, how many were
    `looked_at` and how many are `shared`; None where there is none so long.

    Args:
        kind: the tokenizer's.
    """
    length = _LENGTHS.get(kind, _LENGTH_OF_PIECES)
    if len(val) < length or len(train) < length:
        return None
    one_in = 1 << max(0, (len(val) // _LOOKED_AT).bit_length() - 1)
    wanted, counts = np.unique(np.concatenate(list(_blocks(val, length, one_in))), return_counts=True)
    found = np.zeros(len(wanted), bool)
    if len(wanted):
        for hashed in _blocks(train, length, one_in):
            at = np.searchsorted(wanted, hashed).clip(max=len(wanted) - 1)
            found[at[wanted[at] == hashed]] = True
    return {"length": length, "looked_at": int(counts.sum()), "shared": int(counts[found].sum())}


def _blocks(ids: Tensor, length: int, one_in: int) -> Iterator[Integer[np.ndarray, "stretch"]]:
    """The hashes of all stretches, or of one in so many, in blocks that stay in a core's cache.

    h₁(i) = id(i) + 1        h₂ₖ(i) = hₖ(i) · mₖ + hₖ(i + k)
    """
    numbers = ids.numpy()
    for begin in range(0, len(numbers) - length + 1, _BLOCK):
        hashed = numbers[begin : begin + _BLOCK + length - 1].astype(np.uint64) + np.uint64(1)
        k, factor = 1, int(_MIXED)
        while k < length:
            hashed = hashed[:-k] * np.uint64(factor) + hashed[k:]
            k, factor = 2 * k, (factor * int(_MIXED) + 2) % 2**64
        hashed ^= hashed >> np.uint64(29)
        hashed *= _MIXED
        yield hashed[hashed >> np.uint64(40) & np.uint64(one_in - 1) == 0] if one_in > 1 else hashed
