"""Multi-head attention: what each position asks of those before it, and what it takes from them.

    q, k, v = x W_QKV   (three maps in one, split into heads)      out = concat(kernel(q, k, v)) [⊙ sigmoid(x W_G)] W_O

Vaswani et al. 2017, section 3.2.2. Owns the projections and the heads; the comparing and mixing is the kernel's.
Queries and keys may be normalised in each head (Henry et al. 2020, "Query-Key Normalization"; as RMSNorm in Qwen3),
several heads of queries may share one of keys and values (Shazeer 2019, "Fast Transformer Decoding"; Ainslie et al.
2023, "GQA"), and what is taken may pass a gate (Qiu et al. 2025, "Gated Attention for Large Language Models"). In one
layer what earlier segments said may be looked up besides (models/memory/knn.py).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microformer.models import kernels, memory, spec
from microformer.models.linear import Linear
from microformer.models.norms import RMSNorm
from microformer.models.positions import Order
from microformer.models.state import LayerState, Retrieved
from microformer.models.taps import Scope


class Attention(nn.Module):
    """The attention half of a block.

    Args:
        kind: of its kernel.
        model: whose block it is.
        block: which one, from 0.
    """

    def __init__(self, kind: spec.Attention, model: spec.ModelSpec, block: int = 0):
        super().__init__()
        width, kv_width = model.embed_dim, model.kv_heads * model.d_head
        self.d_head, self.heads = model.d_head, (model.num_heads, model.kv_heads, model.kv_heads)
        self.kernel = kernels.build(kind, model)
        self.W_QKV = Linear(width, width, kv_width, kv_width, bias=model.bias, std=width**-0.5)
        self.W_G = Linear(width, width, bias=model.bias, std=0.0) if model.output_gate else None
        self.W_O = Linear(width, width, bias=model.bias, std=0.0, writes=True)
        self.retrieval = memory.retrieval(model, block)
        self.norm_q = RMSNorm(model.d_head, 1e-6) if model.qk_norm else None
        self.norm_k = RMSNorm(model.d_head, 1e-6) if model.qk_norm else None

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        order: Order,
        state: LayerState | None,
        tap: Scope,
    ) -> tuple[Float[Tensor, "batch pos d_model"], LayerState]:
        """Args: the normed stream; the order of its tokens; this layer's memory; the tap."""
        q, k, v = self.W_QKV(x).unflatten(-1, (-1, self.d_head)).split_with_sizes(self.heads, 2)
        q, k, v = tap("hook_q", q), tap("hook_k", k), tap("hook_v", v)
        if self.norm_q is not None and self.norm_k is not None:
            q, k = self.norm_q(q), self.norm_k(k)
        unturned = q, k
        if order.turn is not None:
            q, k = tap("hook_rot_q", order.turn(q)), tap("hook_rot_k", order.turn(k))

        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.retrieval is None:
            z, seen = self.kernel(q, k, v, order, state, tap)
        else:
            local = state.local if isinstance(state, Retrieved) else None
            z, local = self.kernel(q, k, v, order, local, tap)
            q, k = (one.transpose(1, 2) for one in unturned)
            z, seen = self.retrieval(z, q, k, v, state, local, order.where)
        z = tap("hook_z", z.transpose(1, 2)).flatten(-2)
        if self.W_G is not None:
            z = z * torch.sigmoid(self.W_G(x))
        return self.W_O(z), seen
