"""A model's weights as the field writes them: by head, inputs first, stacked over layers. TransformerLens's shapes.

    w = Weights(model)        w.W_Q[layer, head]: [d_model d_head]        w.W_E[id]: [d_model]

Heads that share keys and values have the same W_K and W_V, each its copy. A bias that a model lacks is 0. Nothing is
folded into anything: norms keep their gains (`model.norm`, `model.blocks[0].residual_1.norm`). What is given is no
copy where it need not be: to change a model, give it an edit instead.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from microformer.inspection.activations import TraceError, block_of
from microformer.models.attention import Attention
from microformer.models.linear import Linear
from microformer.models.model import Microformer
from microformer.models.positions.learned import Learned


class Weights:
    """The weights of a model.

    Args:
        model: whose; a layer that is gone through again is given again.

    Raises:
        TraceError: where the layers' feed-forwards are not of one kind, or have no such matrix, or there is no table of
            positions.
    """

    def __init__(self, model: Microformer):
        self.model = model

    @property
    def W_E(self) -> Float[Tensor, "vocab d_model"]:
        """The token embeddings, before EMBED_SCALE."""
        return self.model.embed.weight.detach()

    @property
    def W_U(self) -> Float[Tensor, "d_model vocab"]:
        """The unembedding."""
        return self.model.unembed.weight.detach().T

    @property
    def b_U(self) -> Float[Tensor, "vocab"]:
        """The unembedding's bias: there is none."""
        return torch.zeros_like(self.W_U[0])

    @property
    def W_pos(self) -> Float[Tensor, "position d_model"]:
        """The learned vector of each position."""
        if not isinstance(self.model.positions, Learned):
            raise TraceError("this model has no table of positions.", "only POSITIONS = 'learned' has one.")
        return self.model.positions.table.weight.detach()

    @cached_property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Stream to queries."""
        return self._attention(lambda one: _by_head(one, 0).mT)

    @cached_property
    def W_K(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Stream to keys."""
        return self._attention(lambda one: _by_head(one, 1).mT)

    @cached_property
    def W_V(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Stream to values."""
        return self._attention(lambda one: _by_head(one, 2).mT)

    @cached_property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        """Added to queries."""
        return self._attention(lambda one: _by_head(one, 0, bias=True))

    @cached_property
    def b_K(self) -> Float[Tensor, "layer head d_head"]:
        """Added to keys."""
        return self._attention(lambda one: _by_head(one, 1, bias=True))

    @cached_property
    def b_V(self) -> Float[Tensor, "layer head d_head"]:
        """Added to values."""
        return self._attention(lambda one: _by_head(one, 2, bias=True))

    @cached_property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        """What a head took to the stream."""
        return self._attention(lambda one: one.W_O.weight.T.unflatten(0, (one.heads[0], one.d_head)))

    @cached_property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        """Added to what all heads say."""
        return self._attention(lambda one: _bias(one.W_O))

    @cached_property
    def W_in(self) -> Float[Tensor, "layer d_model d_ff"]:
        """Stream to the feed-forward's middle; of experts, all of them, one after the other."""
        return self._feedforward("W_in", lambda one: one.weight.T)

    @cached_property
    def W_gate(self) -> Float[Tensor, "layer d_model d_ff"]:
        """Stream to the gate of a gated feed-forward."""
        return self._feedforward("W_gate", lambda one: one.weight.T)

    @cached_property
    def W_out(self) -> Float[Tensor, "layer d_ff d_model"]:
        """The feed-forward's middle to the stream."""
        return self._feedforward("W_out", lambda one: one.weight.T)

    @cached_property
    def b_in(self) -> Float[Tensor, "layer d_ff"]:
        """Added in the feed-forward's middle, before the activation."""
        return self._feedforward("W_in", _bias)

    @cached_property
    def b_gate(self) -> Float[Tensor, "layer d_ff"]:
        """Added to the gate."""
        return self._feedforward("W_gate", _bias)

    @cached_property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        """Added to what the feed-forward says."""
        return self._feedforward("W_out", _bias)

    def _attention(self, of: Callable[[Attention], Tensor]) -> Tensor:
        blocks = [block_of(self.model, layer) for layer in range(self.model.spec.depth)]
        return torch.stack([of(block.attention).detach() for block in blocks])

    def _feedforward(self, name: str, of: Callable[[Linear], Tensor]) -> Tensor:
        found = []
        for layer in range(self.model.spec.depth):
            part = block_of(self.model, layer).feedforward
            matrix = getattr(part, name, None)
            if not isinstance(matrix, Linear):
                raise TraceError(f"layer {layer}'s {type(part).__name__} has no {name}.", "W_in and W_out are usual.")
            found.append(of(matrix).detach())
        if len({one.shape for one in found}) > 1:
            raise TraceError(f"the layers' {name} differ in shape and can't be stacked.", "read them block by block.")
        return torch.stack(found)


def _by_head(attention: Attention, which: int, *, bias: bool = False) -> Tensor:
    """The rows of W_QKV that make queries (0), keys (1) or values (2), or their biases, once for each head."""
    whole = _bias(attention.W_QKV) if bias else attention.W_QKV.weight
    part = whole.split([heads * attention.d_head for heads in attention.heads])[which]
    part = part.unflatten(0, (-1, attention.d_head))
    return part.repeat_interleave(attention.heads[0] // len(part), dim=0)


def _bias(linear: Linear) -> Tensor:
    return torch.zeros_like(linear.weight[:, 0]) if linear.bias is None else linear.bias
