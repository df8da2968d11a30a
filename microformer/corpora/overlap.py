"""How much of the validation part stands in the training part too, word for word.

A loss on such text tells what was learned by heart. Every stretch of 64 tokens (16, where tokens are pieces of words)
is hashed, and of large texts one in so many is looked at, chosen by its hash alike in both parts. Reads ids; a hash of
64 bits takes two different stretches for one about never.
"""

import os
from concurrent.futures import ThreadPoolExecutor
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
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashed = pool.map(lambda begin: _hashes(val, begin, length, one_in), _begins(val, length))
        wanted, counts = np.unique(np.concatenate(list(hashed)), return_counts=True)
        found = np.zeros(len(wanted), bool)

        def look(begin: int) -> None:
            hashed = _hashes(train, begin, length, one_in)
            at = np.searchsorted(wanted, hashed).clip(max=len(wanted) - 1)
            found[at[wanted[at] == hashed]] = True

        if len(wanted):
            list(pool.map(look, _begins(train, length)))
    return {"length": length, "looked_at": int(counts.sum()), "shared": int(counts[found].sum())}


def _begins(ids: Tensor, length: int) -> range:
    """Where blocks begin that stay in a core's cache."""
    return range(0, len(ids) - length + 1, _BLOCK)


def _hashes(ids: Tensor, begin: int, length: int, one_in: int) -> Integer[np.ndarray, "stretch"]:
    """The hashes of a block's stretches, or of one in so many.

    h₁(i) = id(i) + 1        h₂ₖ(i) = hₖ(i) · mₖ + hₖ(i + k)
    """
    hashed = ids[begin : begin + _BLOCK + length - 1].numpy().astype(np.uint64) + np.uint64(1)
    k, factor = 1, int(_MIXED)
    while k < length:
        hashed = hashed[:-k] * np.uint64(factor) + hashed[k:]
        k, factor = 2 * k, (factor * int(_MIXED) + 2) % 2**64
    hashed ^= hashed >> np.uint64(29)
    hashed *= _MIXED
    return hashed[hashed >> np.uint64(40) & np.uint64(one_in - 1) == 0] if one_in > 1 else hashed
