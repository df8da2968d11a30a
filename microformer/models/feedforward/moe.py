"""A mixture of experts: several feed-forwards, of which each token is sent to a few.

    p = softmax(x W_router)        y = Σ over the k highest p_i:  p_i / (their sum) · expert_i(x)
    added to the loss: balance · n Σ_i f_i P_i        f_i: share of the choices that fell on expert i, P_i: mean p_i

Shazeer et al. 2017, "Outrageously Large Neural Networks"; experts and gates as in Jiang et al. 2024, "Mixtral"; the
loss of Fedus et al. 2021, "Switch Transformers", section 2.2, is 1 · balance where all are used alike. No token is
dropped, whatever the others choose, so that none depends on another.

In training an expert computes the tokens sent to it and no others. Else all experts compute all tokens, and what was
not chosen counts 0: so a token's numbers are the same to the bit whatever stands beside it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from microformer.models.feedforward.base import FeedForward
from microformer.models.linear import Linear, like
from microformer.models.taps import Scope


class MoE(FeedForward):
    """Experts of the SwiGLU kind. `hook_gates` is how much of each expert a token takes, 0 of those not chosen;
    `hook_pre` and `hook_post` have an axis of experts.

    Args:
        embed_dim, ff_dim: the outer width, and the middle one of each expert.
        experts, k: how many there are, and how many a token takes.
        balance: the weight of the loss.
    """

    tap_names: Sequence[str] = ("hook_gates", "hook_pre", "hook_post")

    def __init__(self, embed_dim: int, ff_dim: int, experts: int, k: int, balance: float, *, bias: bool):
        super().__init__()
        self.experts, self.k, self.balance = experts, k, balance
        self.W_router = Linear(embed_dim, experts, bias=False, std=embed_dim**-0.5)
        # The experts' matrices stand on one another.
        self.W_gate = Linear(embed_dim, *[ff_dim] * experts, bias=bias, std=embed_dim**-0.5)
        self.W_in = Linear(embed_dim, *[ff_dim] * experts, bias=bias, std=embed_dim**-0.5)
        self.W_out = Linear(ff_dim, *[embed_dim] * experts, bias=bias, std=0.0, writes=True)

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], tap: Scope
    ) -> tuple[Float[Tensor, "batch pos d_model"], Tensor | float]:
        p = torch.softmax(self.W_router(x).float(), dim=-1)
        highest, chosen = p.topk(self.k, dim=-1)
        gates = torch.zeros_like(p).scatter(-1, chosen, highest / highest.sum(-1, keepdim=True))
        gates = tap("hook_gates", gates)
        aux_loss = 0.0
        if self.training and self.balance:
            share = F.one_hot(chosen, self.experts).float().mean((0, 1, 2))
            aux_loss = self.balance * self.experts * (share * p.mean((0, 1))).sum()
        if self.training and not tap.wants("hook_pre") and not tap.wants("hook_post"):
            return self._sent(x, gates.to(x.dtype)), aux_loss
        return self._everywhere(x, gates.to(x.dtype), tap), aux_loss

    def _everywhere(self, x: Tensor, gates: Float[Tensor, "batch pos expert"], tap: Scope) -> Tensor:
        """Every token by every expert: the oracle of the other road."""
        gate, into = (one(x).unflatten(-1, (self.experts, -1)) for one in (self.W_gate, self.W_in))
        gate = tap("hook_pre", gate)
        post = tap("hook_post", F.silu(gate) * into)
        made = [self._out(post[..., i, :], i) for i in range(self.experts)]
        return (torch.stack(made, dim=-2) * gates.unsqueeze(-1)).sum(-2)

    def _sent(self, x: Tensor, gates: Float[Tensor, "batch pos expert"]) -> Tensor:
        """Each token by the experts it is sent to."""
        flat, gates = x.flatten(0, 1), gates.flatten(0, 1)
        y = torch.zeros_like(flat)
        for i in range(self.experts):
            tokens = gates[:, i].nonzero().squeeze(-1)
            read = flat[tokens]
            gate, into = (F.linear(read, *self._part(one, i, x)) for one in (self.W_gate, self.W_in))
            y = y.index_add(0, tokens, self._out(F.silu(gate) * into, i) * gates[tokens, i].unsqueeze(-1))
        return y.view_as(x)

    def _out(self, post: Tensor, i: int) -> Tensor:
        return F.linear(post, *self._part(self.W_out, i, post))

    def _part(self, of: Linear, i: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """One expert's matrix and bias, in x's precision."""
        rows = slice(i * (height := of.outputs[i]), (i + 1) * height)
        return like(of.weight, x)[rows], None if of.bias is None else like(of.bias, x)[rows]
