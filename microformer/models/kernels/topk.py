"""Attention to the k highest scores of each query alone.

    pattern = softmax(S where S is among the k highest, else −inf)

Zhao et al. 2019, "Explicit Sparse Transformer"; Gupta et al. 2021, "Memory-efficient Transformers via Top-k Attention".
Among equals the choice is PyTorch's; exactly k keys are kept wherever there are as many.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from microformer.models.kernels.base import Kernel
from microformer.models.linear import exporting
from microformer.models.spec import ModelSpec


class TopK(Kernel):
    """Dense attention with all but the k highest scores left out.

    Args:
        k: how many keys a query takes from.
    """

    def __init__(self, k: int, model: ModelSpec):
        super().__init__(model)
        self.k = k

    def pattern(self, scores: Tensor) -> Tensor:
        if exporting():  # with k more that nobody sees there always are k
            return self._shares(F.pad(scores, (0, self.k), value=float("-inf")))[..., : -self.k]
        return self._shares(scores)

    def _shares(self, scores: Tensor) -> Tensor:
        highest, places = scores.topk(min(self.k, scores.shape[-1]), dim=-1, sorted=False)
        return torch.zeros_like(scores).scatter(-1, places, torch.softmax(highest, dim=-1))
