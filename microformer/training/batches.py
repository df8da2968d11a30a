"""Batches: which tokens are read at which moment. Knows token tensors, no text and no models.

The order is a pure function of (seed, epoch, index): nothing but the number of samples taken so far has to be
remembered to go on exactly where one stopped, on any number of processes. An epoch is every token once: the text,
closed to a ring, is cut from a random offset on: into blocks that are taken in a random order, or into as many
stretches as a batch has rows, each of which is read on from batch to batch.
"""

import math
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
        mask = None if self.mask is None else _sent(self.mask, device)
        ids, targets, continues = (_sent(one, device) for one in (self.ids, self.targets, self.continues))
        return Batch(ids, targets, mask, continues, self.tokens)


class _Ring:
    """A training text whose end is followed by its beginning, cut into samples.

    Args:
        tokens: the text; may be memory-mapped.
        context: tokens a sample.
        seed: of where it is cut.
        counted: for each token whether it counts as a target; None: all do. [tokens]
        example: tokens of which the text is a row of examples, each for itself; 1: it is one text. It is cut between
            examples only.

    Raises:
        TrainingError: fewer than two tokens, so nothing can be predicted.
    """

    def __init__(
        self,
        tokens: Integer[Tensor, "tokens"],
        context: int,
        seed: int,
        counted: Bool[Tensor, "tokens"] | None = None,
        example: int = 1,
    ):
        if len(tokens) < 2:
            raise TrainingError(
                f"{len(tokens)} tokens of training text are too few to predict one.", "use a longer text."
            )
        self.tokens, self.counted = tokens, counted
        self.context, self.seed, self.example = context, seed, example
        # Targets an epoch: a text's first token follows nothing; an example's may follow any other.
        self.ring = len(tokens) - (example == 1)

    def _offset(self, epoch: int) -> int:
        """Where an epoch's first sample begins."""
        return int(_numbers((self.seed, epoch))[0] % np.uint64(self.ring // self.example)) * self.example

    def _batch(self, starts: np.ndarray, left: np.ndarray, continues: np.ndarray) -> Batch:
        """The samples that begin at `starts`, of which the first `left` targets each are the epoch's own.

        What a sample lacks is filled with the ring's next tokens, which don't count.
        """
        within = np.arange(self.context)
        at = torch.from_numpy((starts[:, None] + within) % self.ring)
        follows = (at + 1) % len(self.tokens)
        counts = torch.from_numpy(within < left[:, None])
        if self.counted is not None:
            counts &= self.counted[follows]
        tokens = int(counts.sum())
        return Batch(
            ids=self.tokens[at].long(),
            targets=self.tokens[follows].long(),
            mask=None if tokens == counts.numel() else counts,
            continues=torch.from_numpy(continues),
            tokens=tokens,
        )


class Shuffled(_Ring):
    """Independent windows in random order. Arguments as for `_Ring`."""

    @property
    def samples_per_epoch(self) -> int:
        """How many windows cover the text."""
        return -(-self.ring // self.context)

    def take(self, first: int, count: int) -> Batch:
        """The samples first … first + count − 1 of the training, counted from its beginning over all epochs."""
        samples = np.arange(first, first + count)
        starts = np.empty(count, dtype=np.int64)
        before = np.empty(count, dtype=np.int64)  # targets of the epoch that come before this block
        for epoch in np.unique(samples // self.samples_per_epoch):
            rows = samples // self.samples_per_epoch == epoch
            block = permuted(samples[rows] % self.samples_per_epoch, self.samples_per_epoch, (self.seed, int(epoch)))
            before[rows] = block * self.context
            starts[rows] = before[rows] + self._offset(int(epoch))
        return self._batch(starts, self.ring - before, np.zeros(count, dtype=bool))


class Streams(_Ring):
    """Rows that read on: the ring in as many equal stretches as a batch has rows, each read from its beginning.

    Args:
        rows: sequences a batch.
        Others as for `_Ring`.
    """

    def __init__(
        self,
        tokens: Integer[Tensor, "tokens"],
        context: int,
        seed: int,
        rows: int,
        counted: Bool[Tensor, "tokens"] | None = None,
        example: int = 1,
    ):
        super().__init__(tokens, context, seed, counted, example)
        self.rows = rows
        # A stretch begins with an example, or where it is longer than a sample, with any of its samples: then rows
        # should be at different ones, for some may have nothing that counts.
        parts = example // context if example % context == 0 else 1
        unit = example // parts
        stretch = -(-self.ring // (rows * unit))
        while math.gcd(stretch, parts) > 1:
            stretch += 1
        self.stretch = stretch * unit

    @property
    def samples_per_epoch(self) -> int:
        """How many samples cover the text."""
        return -(-self.stretch // self.context) * self.rows

    def take(self, first: int, count: int) -> Batch:
        """As `Shuffled.take`. Sample i is the one of row i mod rows."""
        samples = np.arange(first, first + count)
        row, turn = samples % self.rows, samples // self.rows
        per_epoch = self.samples_per_epoch // self.rows
        begins = row * self.stretch
        read = turn % per_epoch * self.context
        offsets = {int(epoch): self._offset(int(epoch)) for epoch in np.unique(turn // per_epoch)}
        starts = begins + read + np.array([offsets[int(epoch)] for epoch in turn // per_epoch], dtype=np.int64)
        ends = np.minimum(begins + self.stretch, self.ring)
        return self._batch(starts, ends - begins - read, turn % per_epoch > 0)


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


def _sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on another device, without waiting for it to get there: from memory that the system may move, a copy
    to a CUDA GPU would first wait for all that the GPU has to do."""
    pinned = tensor.pin_memory() if torch.device(device).type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def _numbers(key: tuple[int, int]) -> np.ndarray:
    """Seven numbers that depend on a seed and an epoch alone. SeedSequence promises the same ones in every NumPy."""
    return np.random.SeedSequence(key).generate_state(7, np.uint64)


def _mixed(value: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of the result depends on every bit of the value."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
