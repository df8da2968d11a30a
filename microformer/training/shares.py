"""A batch shared among the processor's cores: each takes some of its sequences all the way, from ids to gradient.

Left to itself, PyTorch shares each single operation. Then the cores wait for one another some hundred times a step, at
each operation's end, and find in the other's cache what they are to read next. Here they meet once, where the gradients
of the shares are added up, as those of several machines are in data-parallel training (Li et al. 2020, "PyTorch
Distributed"). Knows nothing of models.
"""

import math
from collections.abc import Callable, Sequence
from concurrent import futures

import torch
from torch import Tensor

from microformer import devices, playback

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]

# Multiplications of a step for each number that is added up at its end: with fewer, there is nothing to gain.
_WORTH = 1000
# How many times a core's even part the largest share may be: by about so much sharing is faster.
_UNEVEN = 1.05


def worth_sharing(operations: int | float, weights: Sequence[Tensor], sequences: int, cores: int) -> bool:
    """Whether a step is so long that adding up the gradients of the shares takes little of it, and its sequences can be
    dealt out so that no core waits for another.

    Args:
        operations: multiplications of one pass.
        weights: all that have a gradient.
        sequences: in a batch.
        cores: how many shares there would be.
    """
    long = operations >= _WORTH * cores * sum(one.numel() for one in weights)
    return cores > 1 and long and math.ceil(sequences / cores) * cores <= _UNEVEN * sequences


def shared(loss: Loss, weights: Sequence[Tensor], cores: int, after: int | None = 200) -> Loss:
    """The same loss, with the same gradient but for the order in which it is added up.

    Args:
        loss: the mean over the targets that count, of ids, targets and mask, each (batch, pos). What a sequence adds to
            it hangs on that sequence alone, and not on chance, which the cores would draw in no order.
        weights: all that have a gradient.
        cores: how many shares there are, where there are as many sequences.
        after: as of `playback.gradient`, by which each share is computed.
    """

    def weighed(ids: Tensor, targets: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
        return loss(ids, targets, mask) * weight

    # One share is computed here: of threads that are woken all at once, two may be sent to the same core.
    others = futures.ThreadPoolExecutor(max(1, cores - 1), initializer=devices.one_thread_here)
    works = [playback.gradient(weighed, weights, after) for _ in range(cores)]  # each with memory of its own

    def run(ids: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
        parts = min(cores, len(ids))
        masks = [None] * parts if mask is None else mask.tensor_split(parts)
        pieces = zip(ids.tensor_split(parts), targets.tensor_split(parts), masks, strict=True)
        mine, *theirs = [(*piece, _weight(piece, ids, mask)) for piece in pieces]
        jobs = [others.submit(work, *share) for work, share in zip(works[1:], theirs, strict=False)]
        try:
            with devices.threads_for(0):  # one, as the others have
                known = works[0](*mine)
                for job in jobs:
                    known = _added(known, job.result())
        finally:
            futures.wait(jobs)  # where this was left by an error, none goes on behind whoever goes on from there
        return playback.handed_over(known, weights)

    return run


def _weight(piece: tuple, ids: Tensor, mask: Tensor | None) -> Tensor:
    """A share's part in the mean over the batch."""
    if mask is None:
        return torch.tensor(len(piece[0]) / len(ids))
    return piece[2].sum() / mask.sum().clamp_min(1)


def _added(one: playback.Known, other: playback.Known) -> playback.Known:
    # Not in place: two of the weights may have one tensor for their gradient.
    pairs = zip(one, other, strict=True)
    return [mine if theirs is None else theirs if mine is None else mine + theirs for mine, theirs in pairs]
