"""The gated feed-forward: one branch decides how much of the other passes.

    y = (act(x W_gate) ⊙ x W_in) W_out        SwiGLU: act = SiLU, x · sigmoid(x)        GEGLU: act = GELU

Shazeer 2020, "GLU Variants Improve Transformer". Three matrices where the plain feed-forward has two.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from microformer.models.feedforward.activations import gelu
from microformer.models.feedforward.base import FeedForward
from microformer.models.linear import Linear
from microformer.models.taps import Scope


class Gated(FeedForward):
    """Three matrices; `hook_pre` is the gate before its activation, `hook_post` the gated product.

    Args:
        embed_dim, ff_dim: the outer and the middle width.
        activation: `silu` or `gelu`.
    """

    def __init__(self, embed_dim: int, ff_dim: int, activation: str, *, bias: bool):
        super().__init__()
        self.act = {"silu": F.silu, "gelu": gelu}[activation]
        self.W_gate = Linear(embed_dim, ff_dim, bias=bias, std=embed_dim**-0.5)
        self.W_in = Linear(embed_dim, ff_dim, bias=bias, std=embed_dim**-0.5)
        self.W_out = Linear(ff_dim, embed_dim, bias=bias, std=0.0, writes=True)

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], tap: Scope
    ) -> tuple[Float[Tensor, "batch pos d_model"], Tensor | float]:
        gate = tap("hook_pre", self.W_gate(x))
        return self.W_out(tap("hook_post", self.act(gate) * self.W_in(x))), 0.0
