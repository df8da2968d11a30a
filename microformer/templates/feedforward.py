"""MyFeedforward: two matrices with a bend between that each of its numbers learns.

    y = (max(0, h) + a ⊙ min(0, h)) W_out        h = x W_in

He et al. 2015, "Delving Deep into Rectifiers" (PReLU). A start: put your own formula in `forward`.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microformer.models.feedforward import FeedForward
from microformer.models.linear import Linear
from microformer.models.spec import ModelSpec
from microformer.models.taps import Scope


class MyFeedforward(FeedForward):
    """Each position on its own: nothing here may look at another.

    Args:
        model: the whole model's sizes: model.embed_dim, model.ff_dim …
        slope: where the learned slopes below 0 begin.
    """

    # What it shows a tap, in this order.
    tap_names = ("hook_pre", "hook_post")
    # What each parameter is to the optimizer: gain, bias, embedding or matrix. Linear says its own.
    roles = {"slope": "gain"}

    def __init__(self, model: ModelSpec, slope: float = 0.25):
        super().__init__()
        # Linear draws its start from the model's seed; 0 for the matrix that adds to the stream.
        self.W_in = Linear(model.embed_dim, model.ff_dim, bias=model.bias, std=model.embed_dim**-0.5)
        self.W_out = Linear(model.ff_dim, model.embed_dim, bias=model.bias, std=0.0, writes=True)
        self.slope = nn.Parameter(torch.full((model.ff_dim,), float(slope)))

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], tap: Scope
    ) -> tuple[Float[Tensor, "batch pos d_model"], Tensor | float]:
        """What is added to the stream, and what is added to the loss in training (0 for nothing)."""
        h = tap("hook_pre", self.W_in(x))
        # Numbers meet in x's precision, for that may be bfloat16.
        h = h.clamp_min(0) + self.slope.to(x.dtype) * h.clamp_max(0)
        return self.W_out(tap("hook_post", h)), 0.0
