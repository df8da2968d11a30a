"""What a part of a model costs: the time and the memory of a training step, beside another part in its place.

Measured here and now, in turns, so that what else the machine does falls on both alike; the median of several. Memory
is the most that the tensors of a step take at once, weights aside, by their own count: no allocator's rounding, and
nothing that a library keeps for itself.
"""

import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from microformer.models.model import Microformer
from microformer.models.spec import ModelSpec

_TOKENS = 2048
_TURNS = 5


@dataclass(frozen=True)
class Cost:
    """What a step costs.

    Args:
        seconds: forward and backward pass.
        peak_bytes: the most that its tensors took at once.
    """

    seconds: float
    peak_bytes: int


def of_step(specs: Mapping[str, Callable[[int], ModelSpec]], lengths: Sequence[int]) -> dict[int, dict[str, Cost]]:
    """The cost of a training step in float32, by length and name.

    Args:
        specs: for each name the model of a context. Batches hold about as many tokens at every length, of texts that
            are two segments long where the model has a memory that is carried.
        lengths: contexts, in tokens.
    """
    found: dict[int, dict[str, Cost]] = {}
    for length in lengths:
        steps = {name: _step(of(length), length) for name, of in specs.items()}
        peaks = {name: _peak(step) for name, step in steps.items()}  # also warms them up
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(_TURNS):
            for name, step in steps.items():
                began = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - began)
        found[length] = {name: Cost(statistics.median(seconds[name]), peaks[name]) for name in steps}
    return found


def _step(spec: ModelSpec, length: int) -> Callable[[], None]:
    model = Microformer(spec, seed=1)
    generator = torch.Generator().manual_seed(1)
    text = 2 * length if spec.carries else length  # what goes over to a second segment costs something too
    ids = torch.randint(spec.vocab_size, (max(1, _TOKENS // text), text + 1), generator=generator)

    def once() -> None:
        model.loss(ids[:, :-1], ids[:, 1:], None).backward()
        model.zero_grad()

    return once


def _peak(step: Callable[[], None]) -> int:
    with _Live() as live:
        step()
    return live.most


class _Live(TorchDispatchMode):
    """Counts the bytes of all tensors that were made and are still there."""

    def __init__(self):
        super().__init__()
        self.now, self.most = 0, 0
        self.counted: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        before = {id(one.untyped_storage()) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor) and id(storage := one.untyped_storage()) not in before | self.counted:
                self.counted.add(id(storage))
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._freed, id(storage), storage.nbytes())
        return made

    def _freed(self, key: int, size: int) -> None:
        self.counted.discard(key)
        self.now -= size
