"""AdamW: a number moves by its gradient's running mean over its running size, so all move at about the same pace.

    m ← β₁ m + (1 − β₁) G        v ← β₂ v + (1 − β₂) G²
    W ← (1 − lr · decay) W − lr · (m / (1 − β₁ᵗ)) / (sqrt(v / (1 − β₂ᵗ)) + ε)

Kingma and Ba 2015, "Adam"; the decay beside it: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization".
Both means begin at 0, and what they are divided by makes up for that; t counts steps.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from microformer.training.rule import Rule


class AdamW(Rule):
    """AdamW over any parameters.

    Args:
        params: parameters, or groups of them with a `lr` or `weight_decay` of their own.
        lr: size of a step.
        betas: β₁ and β₂, how much of the running means a step keeps.
        eps: ε, what keeps a number that was never moved from being divided by 0.
        weight_decay: share of lr by which weights shrink a step.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        self.betas, self.eps = betas, eps

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            moved = [one for one in group["params"] if one.grad is not None]
            if not moved:
                continue
            for one in moved:
                if not self.state[one]:
                    self.state[one] = {
                        "step": torch.zeros((), device=one.device),
                        "exp_avg": torch.zeros_like(one),
                        "exp_avg_sq": torch.zeros_like(one),
                    }
            gradients = [one.grad for one in moved]
            m, v, t = ([self.state[one][what] for one in moved] for what in ("exp_avg", "exp_avg_sq", "step"))
            torch._foreach_add_(t, 1)
            update = fused if moved[0].device.type in ("cpu", "cuda") else as_written
            update(moved, gradients, m, v, t, group["lr"], group["weight_decay"], self.betas, self.eps)


def fused(
    weights: list[Tensor], gradients: list[Any], m: list[Tensor], v: list[Tensor], t: list[Tensor],
    lr: float, decay: float, betas: tuple[float, float], eps: float,
) -> None:  # fmt: skip
    """The formula over all weights in PyTorch's one call for it."""
    torch._fused_adamw_(
        weights, gradients, m, v, [], t,
        lr=lr, beta1=betas[0], beta2=betas[1], weight_decay=decay, eps=eps, amsgrad=False, maximize=False,
    )  # fmt: skip


def as_written(
    weights: list[Tensor], gradients: list[Any], m: list[Tensor], v: list[Tensor], t: list[Tensor],
    lr: float, decay: float, betas: tuple[float, float], eps: float,
) -> None:  # fmt: skip
    """The formula as it stands at the top of this file, for devices that have no such call."""
    for w, g, mean, size, steps in zip(weights, gradients, m, v, t, strict=True):
        mean.lerp_(g, 1 - betas[0])
        size.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
        w.mul_(1 - lr * decay)
        w.sub_(lr * (mean / (1 - betas[0] ** steps)) / ((size / (1 - betas[1] ** steps)).sqrt() + eps))
