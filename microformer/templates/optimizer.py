"""MyOptimizer: every number moves by the same amount, in the direction that the gradients agree on.

    W ← (1 − lr · decay) W − lr · sign(β M + (1 − β) G)        M ← γ M + (1 − γ) G

Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms" (Lion). A start: put your own rule in `step`.
LEARNING_RATE has no "auto" for it: say one, such as 0.001.
"""

from collections.abc import Iterable
from typing import Any

import torch

from microformer.training.rule import Rule


class MyOptimizer(Rule):
    """Groups of parameters come with `params`, `role` (matrix, embedding, unembedding or gain), `lr` and
    `weight_decay`; the schedule sets `lr` before each step.

    Args:
        params: the groups.
        lr: the highest rate.
        beta, gamma: how much a step, and the memory, keep of earlier gradients.
    """

    # True: it is given the matrices alone, and AdamW moves the rest.
    only_matrices = False

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, beta: float = 0.9, gamma: float = 0.99):
        super().__init__(params, lr=lr, weight_decay=0.0)
        self.beta, self.gamma = beta, gamma

    @torch.no_grad()
    def step(self) -> None:
        """Moves every parameter that has a gradient."""
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is None:
                    continue
                # What is remembered is in self.state, in tensors: so checkpoints keep it, and a run can be resumed.
                mean = self.state[one].setdefault("mean", torch.zeros_like(one))
                one.mul_(1 - group["lr"] * group["weight_decay"])
                one.add_(mean.lerp(one.grad, 1 - self.beta).sign(), alpha=-group["lr"])
                mean.lerp_(one.grad, 1 - self.gamma)
