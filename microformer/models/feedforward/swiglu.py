"""SwiGLU: one branch decides how much of the other passes.

    y = (SiLU(x W_gate) ⊙ x W_in) W_out        SiLU(x) = x · sigmoid(x)

Shazeer 2020, "GLU Variants Improve Transformer". Three matrices where the plain feed-forward has two.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from microformer.models.linear import Linear
from microformer.models.taps import Scope


class Swiglu(nn.Module):
    """Three matrices; `hook_pre` is the gate before SiLU, `hook_post` the gated product."""

    def __init__(self, embed_dim: int, ff_dim: int, *, bias: bool):
        super().__init__()
        self.W_gate = Linear(embed_dim, ff_dim, bias=bias, std=embed_dim**-0.5)
        self.W_in = Linear(embed_dim, ff_dim, bias=bias, std=embed_dim**-0.5)
        self.W_out = Linear(ff_dim, embed_dim, bias=bias, std=0.0)

    def forward(self, x: Float[Tensor, "batch pos d_model"], tap: Scope) -> Float[Tensor, "batch pos d_model"]:
        gate = tap("hook_pre", self.W_gate(x))
        return self.W_out(tap("hook_post", F.silu(gate) * self.W_in(x)))
