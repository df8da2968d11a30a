"""MyNorm: a bend in a norm's place, that looks at one number at a time.

    y = gain · tanh(a · x)

Zhu et al. 2025, "Transformers without Normalization" (DyT). A start: put your own formula in `forward`.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microformer.models.norms import Norm
from microformer.models.spec import ModelSpec


class MyNorm(Norm):
    """Each vector on its own: nothing here may look at another position.

    Args:
        model: the whole model's sizes: model.embed_dim …
        steepness: where a begins.
    """

    # What each parameter is to the optimizer: gain, bias, embedding or matrix.
    roles = {"gain": "gain", "steepness": "gain"}

    def __init__(self, model: ModelSpec, steepness: float = 0.5):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(model.embed_dim))
        self.steepness = nn.Parameter(torch.full((1,), float(steepness)))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The normed vectors."""
        # Numbers meet in x's precision, for that may be bfloat16.
        return self.gain.to(x.dtype) * torch.tanh(self.steepness.to(x.dtype) * x)
