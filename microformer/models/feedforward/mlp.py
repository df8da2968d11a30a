"""The plain feed-forward: widen, bend, narrow.

    y = act(x W_in) W_out        act: one of activations.py

Vaswani et al. 2017, section 3.3.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from microformer.models.feedforward.activations import gelu, gelu_tanh, relu2
from microformer.models.feedforward.base import FeedForward
from microformer.models.linear import Linear
from microformer.models.taps import Scope


class MLP(FeedForward):
    """Two matrices with an activation between.

    Args:
        embed_dim, ff_dim: the outer and the middle width.
        activation: `gelu`, `gelu_tanh`, `relu` or `relu2`.
    """

    def __init__(self, embed_dim: int, ff_dim: int, activation: str, *, bias: bool):
        super().__init__()
        self.act = {"gelu": gelu, "gelu_tanh": gelu_tanh, "relu": torch.relu, "relu2": relu2}[activation]
        self.W_in = Linear(embed_dim, ff_dim, bias=bias, std=embed_dim**-0.5)
        self.W_out = Linear(ff_dim, embed_dim, bias=bias, std=0.0, writes=True)

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], tap: Scope
    ) -> tuple[Float[Tensor, "batch pos d_model"], Tensor | float]:
        pre = tap("hook_pre", self.W_in(x))
        return self.W_out(tap("hook_post", self.act(pre))), 0.0
