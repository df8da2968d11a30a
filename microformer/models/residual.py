"""How a half of a block sits on the residual stream: what it reads, and how what it made comes back.

    pre         x ← x + f(norm(x))                  Xiong et al. 2020, "On Layer Normalization"; GPT-2, Llama
    post        x ← norm(x + f(x))                  Vaswani et al. 2017; GPT-1
    sandwich    x ← x + norm(f(norm(x)))            Ding et al. 2021, "CogView"; Gemma 2

With scalars, x and what is added to it are each times a learned number that starts at 1.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from microformer.models import norms
from microformer.models.linear import like
from microformer.models.spec import ModelSpec


class Residual(nn.Module):
    """The way from the stream into one half of a block, and back."""

    roles: ClassVar = {"scalars": "gain"}

    def __init__(self, model: ModelSpec):
        super().__init__()
        self.post = model.norm_placement == "post"
        self.dropout = model.dropout
        self.norm = norms.build(model)
        sandwich = model.norm_placement == "sandwich"
        self.norm_after = norms.build(model) if sandwich else None
        self.scalars = nn.Parameter(torch.ones(2)) if model.residual_scalars else None

    def read(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the half is given of the stream."""
        return x if self.post else self.norm(x)

    def add(
        self, x: Float[Tensor, "batch pos d_model"], made: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """The stream with what the half made of it."""
        if self.norm_after is not None:
            made = self.norm_after(made)
        if self.training and self.dropout:
            made = F.dropout(made, self.dropout)
        if self.scalars is not None:
            kept, added = like(self.scalars, x).unbind()
            x, made = kept * x, added * made
        return self.norm(x + made) if self.post else x + made
