"""Weight averaging: a second set of weights that follows the first and is quieter.

    A ← d A + (1 − d) W        d = min(decay, (1 + t) / (10 + t)), so that the start is soon forgotten

Polyak and Juditsky 1992; in this exponential form Tarvainen and Valpola 2017, "Mean teachers".
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The running average of a model's weights.

    Args:
        model: whose.
        decay: how much of the average a step keeps; 0 means that there is no average, and the weights stand for it.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self.weights = dict(model.named_parameters())
        self.averaged = {name: weight.detach().clone() for name, weight in self.weights.items()} if decay else {}

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after a step."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.averaged.values()), [w.detach() for w in self.weights.values()], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Lets the model hold the averaged weights for a while, to be evaluated or saved."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, averaged in self.averaged.items():
            weight = self.weights[name].detach()
            kept = weight.clone()
            weight.copy_(averaged)
            averaged.copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by name, and how many updates made them."""
        return {**self.averaged, "updates": torch.tensor(self.updates)} if self.decay else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on from a saved average; from the weights as they are, where none was saved."""
        for name, averaged in self.averaged.items():
            averaged.copy_(state[name] if state else self.weights[name].detach())
        self.updates = int(state["updates"]) if self.decay and state else 0
