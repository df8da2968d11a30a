"""Activations: what bends a number between two matrices.

    ReLU: max(0, x)      ReLU²: max(0, x)²      GELU: x Φ(x), with Φ the normal distribution, or a tanh in its place

ReLU²: So et al. 2021, "Primer". GELU: Hendrycks and Gimpel 2016; the tanh form is GPT-1's and GPT-2's.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from microformer.models.linear import exporting

_FEW = 2**9


def relu2(x: Tensor) -> Tensor:
    """max(0, x)²"""
    return torch.relu(x).square()


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU with 0.5 (1 + tanh(√(2/π) (x + 0.044715 x³))) for Φ."""
    return F.gelu(x, approximate="tanh")


def gelu(x: Tensor) -> Tensor:
    """x Φ(x). On a CPU PyTorch hands float32 to oneDNN: the fastest for many numbers, and for one token's it takes
    longer to begin than all of them take in double."""
    on_cpu = x.dtype == torch.float32 and x.device.type == "cpu" and not exporting()
    if on_cpu and x.numel() <= _FEW and not torch.is_grad_enabled():
        return F.gelu(x.double()).float()
    return F.gelu(x)
