"""The observer that hands what training measures to trackers (microformer/trackers): rows, norms, histograms, samples.

It computes little and waits for nobody: what takes long is done in the trackers' threads. Where a training is spread
over several processes, one of them has it. Knows no tracker in particular and no text.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from microformer.errors import notice
from microformer.trackers import Trackers
from microformer.training.norms import Norms
from microformer.training.observers import Observer, Row

_BINS = 64
# A sample takes some tenths of a second: one with each fourth validation. At the end the run writes its own.
_VALIDATIONS = 4


class Tracking(Observer):
    """Tells trackers of rows as they are in metrics.jsonl, with the norms per layer; of histograms of weights and
    gradients every so many steps; and now and then of a sample.

    Args:
        trackers: who is told.
        norms: an observer that stands before this one.
        every: steps between two histograms, which are made with the next row that is logged; 0 for none.
        sample: writes a text.
    """

    def __init__(self, trackers: Trackers, norms: Norms, every: int, sample: Callable[[], str]):
        self.trackers, self.norms, self.every, self.sample = trackers, norms, every, sample
        self.validations = 0
        self.progress = 0.0
        self.last = 0  # the step of the last histograms
        self.failed = False

    def on_step(self, step: int, progress: float, seconds: float) -> None:
        self.progress = progress

    def on_gradients(self, step: int) -> None:
        if self.every and (step == 1 or step // self.every > self.last // self.every):
            self.last = step
            self.carefully(self._histograms, step)

    def on_row(self, row: Row) -> None:
        step = int(row["step"])
        values = {name: value for name, value in row.items() if name != "step"}
        self.trackers.scalars(step, {**values, **self.norms.of(step)})
        if "val_loss" in row:
            self.validations += 1
            if self.validations % _VALIDATIONS == 0 and self.progress < 1:
                self.carefully(lambda: self.trackers.text(step, "samples/while_training", self.sample()))

    def carefully(self, show: Callable[..., None], *of: Any) -> None:
        """Shows something, unless that failed before: a training must not die of what is only to be looked at."""
        if self.failed or not self.trackers:
            return
        try:
            show(*of)
        except Exception as error:
            self.failed = True
            notice(f"trackers get figures alone from here on: {type(error).__name__}: {error}")

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations, "last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.validations, self.last = state["validations"], state["last"]

    @torch.no_grad()
    def _histograms(self, step: int) -> None:
        for part, weights in self.norms.parts.items():
            self._histogram(step, f"weights/{part}", weights)
            self._histogram(step, f"gradients/{part}", [one.grad for one in weights if one.grad is not None])

    def _histogram(self, step: int, name: str, tensors: list[Any]) -> None:
        numbers = torch.cat(
            [torch.zeros(0, device=self.norms.device), *(one.detach().flatten().float() for one in tensors)]
        )
        low, high = map(float, numbers.aminmax()) if len(numbers) else (0.0, 0.0)
        if not low < high or math.isinf(low) or math.isinf(high):
            return  # all alike, or not finite: nothing to be seen
        counts = torch.histc(numbers, _BINS, low, high).long().cpu().numpy()
        self.trackers.histogram(step, name, counts, np.linspace(low, high, _BINS + 1))
