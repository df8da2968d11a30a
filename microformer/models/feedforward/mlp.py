"""The plain feed-forward: widen, bend, narrow.

    y = act(x W_in) W_out        act = GELU: x Φ(x), with Φ the normal distribution, or a tanh in its place
                                       ReLU²: max(0, x)²

Vaswani et al. 2017, section 3.3. GELU: Hendrycks and Gimpel 2016. ReLU²: So et al. 2021, "Primer".
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from microformer.models.linear import Linear
from microformer.models.taps import Scope

_FEW = 2**9


class MLP(nn.Module):
    """Two matrices with an activation between.

    Args:
        embed_dim, ff_dim: the outer and the middle width.
        activation: `gelu`, `gelu_tanh` or `relu2`.
    """

    def __init__(self, embed_dim: int, ff_dim: int, activation: str, *, bias: bool):
        super().__init__()
        self.activation = activation
        self.W_in = Linear(embed_dim, ff_dim, bias=bias, std=embed_dim**-0.5)
        self.W_out = Linear(ff_dim, embed_dim, bias=bias, std=0.0)

    def forward(self, x: Float[Tensor, "batch pos d_model"], tap: Scope) -> Float[Tensor, "batch pos d_model"]:
        pre = tap("hook_pre", self.W_in(x))
        return self.W_out(tap("hook_post", self.act(pre)))

    def act(self, pre: Tensor) -> Tensor:
        """The activation."""
        match self.activation:
            case "gelu":
                return _gelu(pre)
            case "gelu_tanh":
                return F.gelu(pre, approximate="tanh")
            case _:
                return torch.relu(pre).square()


def _gelu(x: Tensor) -> Tensor:
    """F.gelu, which on a CPU hands float32 to oneDNN: the fastest for many numbers, and for one token's it takes longer
    to begin than all of them take in double."""
    if x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() <= _FEW and not torch.is_grad_enabled():
        return F.gelu(x.double()).float()
    return F.gelu(x)
