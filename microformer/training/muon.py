"""Muon: momentum whose every step is made orthogonal, so that all directions of a matrix learn at the same pace.

    M ← μ M + G        U = orthogonalise(G + μ M)        W ← W − lr · scale · U

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". For matrices only. The scale,
sqrt(max(1, rows / columns)), keeps a step's effect on activations the same whatever the shape (Bernstein 2025,
"Deriving Muon"); so a rate that suits one width suits the others.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from microformer.training.rule import Rule

# The quintic whose five rounds take every singular value in (0, 1] near 1 (Jordan et al. 2024).
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalise(
    matrices: Float[Tensor, "count rows columns"], rounds: int = 5, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "count rows columns"]:
    """The nearest (semi-)orthogonal matrix to each, roughly: singular values land between 0.7 and 1.2.

    Newton-Schulz iteration: X ← aX + (b XXᵀ + c (XXᵀ)²) X, on the wide form of each matrix, all at once.
    """
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x


class Muon(Rule):
    """Muon over matrices, all of one shape orthogonalised together.

    Args:
        matrices: parameters with two axes, or groups of them. A parameter that is several matrices on one another is
            in a group with `rows`: how many each has.
        lr: size of a step; the spectral norm of the change of a square matrix.
        momentum: μ.
        weight_decay: share of lr by which weights shrink a step.
        dtype: precision of the orthogonalisation; weights and momentum stay in float32.
    """

    only_matrices = True

    def __init__(
        self,
        matrices: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(matrices, lr=lr, momentum=momentum, weight_decay=weight_decay, rows=None)
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:
        # Lying or standing, matrices of one shape go together: the nearest orthogonal matrix turns with its own.
        together: dict[tuple[int, ...], list[tuple[Tensor, Tensor, float]]] = defaultdict(list)
        for group in self.param_groups:
            moved = [one for one in group["params"] if one.grad is not None]
            for whole, ahead in zip(moved, self._ahead(moved, group["momentum"]), strict=True):
                rows = group["rows"] or whole.shape[0]
                if group["weight_decay"]:
                    whole.mul_(1 - group["lr"] * group["weight_decay"])
                for matrix, direction in zip(whole.split(rows), ahead.split(rows), strict=True):
                    tall, size = matrix.shape[0] > matrix.shape[1], tuple(sorted(matrix.shape))
                    scale = (size[1] / size[0]) ** 0.5 if tall else 1.0
                    turned = (matrix.mT, direction.mT) if tall else (matrix, direction)
                    together[size].append((*turned, -group["lr"] * scale))
        for alike in together.values():
            steps = orthogonalise(torch.stack([direction for _, direction, _ in alike]), dtype=self.dtype)
            for (matrix, _, rate), step in zip(alike, steps.to(alike[0][0].dtype), strict=True):
                matrix.add_(step, alpha=rate)

    def _ahead(self, matrices: list[Tensor], momentum: float) -> tuple[Tensor, ...] | list[Tensor]:
        """G + μ M of each, with its M brought up to date."""
        if not matrices:
            return []
        for matrix in matrices:
            if "momentum" not in self.state[matrix]:
                self.state[matrix]["momentum"] = torch.zeros_like(matrix)
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        momenta = [self.state[matrix]["momentum"] for matrix in matrices]
        torch._foreach_mul_(momenta, momentum)
        torch._foreach_add_(momenta, gradients)
        return torch._foreach_add(gradients, momenta, alpha=momentum)
