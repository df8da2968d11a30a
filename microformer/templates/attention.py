"""MyAttention: softmax in which each head learns how much may go to no key at all.

    pattern = exp(S) / (exp(b_h) + Σ exp(S))        S = q kᵀ / sqrt(d_head) + bias + mask

Miller 2023, "Attention Is Off By One", with b = 0; learned as in OpenAI 2025, "gpt-oss". A start: put your own formula
in `pattern`.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microformer.models.kernels import Kernel
from microformer.models.spec import ModelSpec


class MyAttention(Kernel):
    """Cache, mask, positions' bias, shared keys, score cap, dropout and taps are the Kernel's.

    Args:
        model: the whole model's sizes: model.num_heads, model.d_head, model.max_seq_len …
        nothing: where b begins; ATTENTION = "my_attention.py:MyAttention(nothing=-2)" sets it.
    """

    # What each parameter is to the optimizer: gain, bias, embedding or matrix.
    roles = {"nothing": "bias"}

    def __init__(self, model: ModelSpec, nothing: float = 0.0):
        super().__init__(model)
        self.nothing = nn.Parameter(torch.full((model.num_heads, 1, 1), float(nothing)))

    def pattern(self, scores: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        """How much of each key's value a query takes. Scores are −inf where it may not look: later keys, above all."""
        # Numbers meet in the scores' precision, for that may be bfloat16.
        nothing = self.nothing.to(scores.dtype).expand(*scores.shape[:-1], 1)
        return torch.softmax(torch.cat([nothing, scores], dim=-1), dim=-1)[..., 1:]
