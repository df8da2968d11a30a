"""Attention without a competition: each key's share is its own affair.

    pattern = sigmoid(S − ln n)        n: how many keys the query sees

Ramapuram et al. 2024, "Theory, Analysis, and Best Practices for Sigmoid Self-Attention". The paper takes the context's
length for n, whatever the query's place; counted for each query, shares sum to about 1 from the first token on.
"""

import torch
from torch import Tensor

from microformer.models.kernels.base import Kernel


class Sigmoid(Kernel):
    """Each share lies between 0 and 1; they need not sum to 1."""

    def pattern(self, scores: Tensor) -> Tensor:
        n = (scores > float("-inf")).sum(-1, keepdim=True).clamp_min(1)
        return torch.sigmoid(scores - n.to(scores.dtype).log())
