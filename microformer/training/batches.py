"""Batches: which tokens are read at which moment. Knows token tensors, no text and no models.

The order is a pure function of (seed, epoch, index): nothing but the number of samples taken so far has to be
remembered to go on exactly where one stopped, on any number of processes. An epoch is every token once: the text,
closed to a ring, is cut into blocks from a random offset on, and the blocks are taken in a random order.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Integer
from torch import Tensor

from microformer.errors import TrainingError


@dataclass(frozen=True)
class Batch:
    """What one step reads.

    Args:
        ids: the tokens read.
        targets: the token that follows each.
        mask: which targets count; None when all do.
        continues: whether a row goes on where the row of the batch before stopped; where not, its state is reset.
        tokens: how many targets count.
    """

    ids: Int[Tensor, "batch pos"]
    targets: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"] | None
    continues: Bool[Tensor, "batch"]
    tokens: int

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        mask = None if self.mask is None else self.mask.to(device, non_blocking=True)
        ids, targets = (tensor.to(device, non_blocking=True) for tensor in (self.ids, self.targets))
        return Batch(ids, targets, mask, self.continues.to(device, non_blocking=True), self.tokens)


class Shuffled:
    """Independent windows in random order.

    Args:
        tokens: the training text; may be memory-mapped.
        context: tokens a window.
        seed: of offsets and order.

    Raises:
        TrainingError: fewer than two tokens, so nothing can be predicted.
    """

    def __init__(self, tokens: Integer[Tensor, "tokens"], context: int, seed: int):
        if len(tokens) < 2:
            raise TrainingError(
                f"{len(tokens)} tokens of training text are too few to predict one.", "use a longer text."
            )
        self.tokens = tokens
        self.context = context
        self.seed = seed
        self.ring = len(tokens) - 1  # targets an epoch: the first token follows nothing
        self.samples_per_epoch = -(-self.ring // context)

    def take(self, first: int, count: int) -> Batch:
        """The samples first … first + count − 1 of the training, counted from its beginning over all epochs."""
        samples = np.arange(first, first + count)
        starts = np.empty(count, dtype=np.int64)
        before = np.empty(count, dtype=np.int64)  # targets of the epoch that come before this block
        for epoch in np.unique(samples // self.samples_per_epoch):
            rows = samples // self.samples_per_epoch == epoch
            block = permuted(samples[rows] % self.samples_per_epoch, self.samples_per_epoch, (self.seed, int(epoch)))
            before[rows] = block * self.context
            starts[rows] = before[rows] + _numbers((self.seed, int(epoch)))[0] % np.uint64(self.ring)
        within = np.arange(self.context)
        at = torch.from_numpy((starts[:, None] + within) % self.ring)
        # The ring's last block may be short: what it lacks is filled with the ring's next tokens, which don't count.
        counts = before[:, None] + within < self.ring
        tokens = int(counts.sum())
        return Batch(
            ids=self.tokens[at].long(),
            targets=self.tokens[at + 1].long(),
            mask=None if tokens == counts.size else torch.from_numpy(counts),
            continues=torch.zeros(count, dtype=torch.bool),
            tokens=tokens,
        )


def permuted(index: np.ndarray, size: int, key: tuple[int, int]) -> np.ndarray:
    """Where a random permutation of 0 … size − 1 takes each index: no table, any one of them at once.

    A Feistel network on the smallest even number of bits that holds `size`, walked until it lands inside (Black and
    Rogaway 2002, "Ciphers with Arbitrary Finite Domains").
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half) - np.uint64(1)
    keys = _numbers(key)[1:]
    result = index.astype(np.uint64)
    outside = np.ones(len(result), dtype=bool)
    while outside.any():
        value = result[outside]
        left, right = value >> half, value & low
        for one in keys:
            left, right = right, left ^ (_mixed(right ^ one) & low)
        result[outside] = (left << half) | right
        outside = result >= size
    return result.astype(np.int64)


def _numbers(key: tuple[int, int]) -> np.ndarray:
    """Seven numbers that depend on a seed and an epoch alone. SeedSequence promises the same ones in every NumPy."""
    return np.random.SeedSequence(key).generate_state(7, np.uint64)


def _mixed(value: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of the result depends on every bit of the value."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
