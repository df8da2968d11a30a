"""Norms per layer: how large the gradient and the weights of each part of a model are, at the steps that are logged.

    ‖g‖ = √ Σ g²  over all parameters of a part; the squares of all parts' gradients add up to `grad_norm` squared

A part is a block, or what stands before and after them: embed, blocks.0 …, norm, unembed. Tied, embed has both.
"""

from collections import defaultdict

import torch
from torch import Tensor, nn

from microformer.training.observers import Observer


def parts(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters of each part by its name, in the model's order."""
    found: dict[str, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        words = name.split(".")
        found[".".join(words[:2]) if words[0] == "blocks" else words[0]].append(parameter)
    return dict(found)


class Norms(Observer):
    """Measures before the step is taken: of the gradients before they are clipped, and of the weights that the step's
    loss is of. Others ask for it with `of`; it has to stand before them among the observers.

    Args:
        model: that is trained.
    """

    def __init__(self, model: nn.Module):
        self.parts = parts(model)
        self.weights: list[Tensor] = [one for each in self.parts.values() for one in each]
        self.numbers = [number for number, each in enumerate(self.parts.values()) for _ in each]
        self.device = self.weights[0].device
        self.measured: tuple[int, Tensor] | None = None
        self.read: tuple[int, dict[str, float]] = (-1, {})

    @torch.no_grad()
    def on_gradients(self, step: int) -> None:
        weights = list(torch._foreach_norm(self.weights))
        gradients = iter(torch._foreach_norm([one.grad for one in self.weights if one.grad is not None]))
        zero = torch.zeros_like(weights[0])
        # What got no gradient, such as an expert that no token was sent to, adds nothing.
        squares = torch.stack([next(gradients) if one.grad is not None else zero for one in self.weights] + weights)
        owners = torch.tensor(self.numbers + [len(self.parts) + one for one in self.numbers], device=squares.device)
        sums = torch.zeros(2 * len(self.parts), device=squares.device, dtype=squares.dtype)
        # Not read yet: a GPU would be waited for.
        self.measured = step, sums.index_add_(0, owners, squares.square()).sqrt_()

    def of(self, step: int) -> dict[str, float]:
        """`grad_norm/<part>` and `weight_norm/<part>` of a step; empty where it was not measured."""
        if self.measured is not None and self.measured[0] == step != self.read[0]:
            names = [f"{what}/{part}" for what in ("grad_norm", "weight_norm") for part in self.parts]
            self.read = step, dict(zip(names, self.measured[1].tolist(), strict=True))
        return self.read[1] if self.read[0] == step else {}
