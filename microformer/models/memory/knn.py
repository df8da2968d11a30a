"""A memory that is looked things up in: for each query the most similar keys of earlier segments, in one layer.

    z = g ⊙ softmax(q · k_1..k / sqrt(d_head)) v_1..k + (1 − g) ⊙ z of the segment        g = sigmoid(gate of the head)

Wu et al. 2022, "Memorizing Transformers". The k keys with the highest scores are found without a gradient, and their
shares have one; what is stored has none. Keys are stored as they were before they were turned to their position, and
so are compared by what they say and not by where they stood.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from microformer.models.linear import like
from microformer.models.memory.base import Memory
from microformer.models.spec import ModelSpec
from microformer.models.state import LayerState, Positions, Retrieved, State


class KNN(Memory):
    """One layer's keys and values go over into its store; of the other layers nothing does.

    Args:
        size: the most tokens that the store holds.
    """

    carries = True

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def between(self, state: State, written: Tensor | None) -> State:
        return state.next_segment(tuple(self._stored(one) for one in state.layers))

    def _stored(self, part: LayerState | None) -> LayerState | None:
        if not isinstance(part, Retrieved):
            return None
        stored = zip((part.stored_keys, part.stored_values), (part.keys, part.values), strict=True)
        keys, values = (torch.cat([old, new.detach()], dim=2)[:, :, -self.size :] for old, new in stored)
        return Retrieved(keys[:, :, :0], values[:, :, :0], keys, values)


class Retrieval(nn.Module):
    """The part of an attention that looks into the store.

    Args:
        k: how many keys a query takes from.
        model: whose heads they are.
    """

    roles: ClassVar = {"gate": "gain"}

    def __init__(self, k: int, model: ModelSpec):
        super().__init__()
        self.k = k
        self.queries_a_key = model.num_heads // model.kv_heads
        self.gate = nn.Parameter(torch.zeros(model.num_heads))

    def forward(
        self,
        z: Float[Tensor, "batch head pos d_head"],
        q: Float[Tensor, "batch head pos d_head"],
        k: Float[Tensor, "batch kv_head pos d_head"],
        v: Float[Tensor, "batch kv_head pos d_head"],
        state: LayerState | None,
        local: LayerState,
        where: Positions,
    ) -> tuple[Float[Tensor, "batch head pos d_head"], Retrieved]:
        """What attention makes of the segment, mixed with what is found in the store; and the layer's next memory.

        Args:
            z: of the segment.
            q, k, v: before queries and keys were turned.
            state: the layer's memory before these tokens.
            local: its memory of the segment after them.
            where: which segment it is, and where rows' texts begin.
        """
        if state is None:
            return z, Retrieved(k, v, k[:, :, :0], v[:, :, :0], local)
        assert isinstance(state, Retrieved)
        keys, values = torch.cat([state.keys, k], dim=2), torch.cat([state.values, v], dim=2)
        seen = replace(state, keys=keys, values=values, local=local)
        count = state.stored_keys.shape[2]
        if not count:
            return z, seen
        keys, values = (one.repeat_interleave(self.queries_a_key, 1) for one in (seen.stored_keys, seen.stored_values))
        found, any_found = self._found(q * q.shape[-1] ** -0.5, keys, values, where.stored(count))
        gate = like(torch.sigmoid(self.gate), z)[:, None, None] * any_found
        return gate * found + (1 - gate) * z, seen

    def _found(
        self, q: Tensor, keys: Tensor, values: Tensor, own: Bool[Tensor, "batch stored"] | None
    ) -> tuple[Tensor, Tensor]:
        """What each query takes of the values of the k keys nearest to it; and 0 for the rows that have none, else 1.

        own: which of the stored keys are of each row's text; None for all.
        """
        with torch.no_grad():
            scores = q @ keys.mT
            if own is not None:
                scores = scores.masked_fill(~own[:, None, None, :], float("-inf"))
            highest, at = scores.topk(min(self.k, keys.shape[2]), dim=-1)
            unseen = highest == float("-inf")
        # The keys and values of every head under one another: a row of them for each place found.
        rows = torch.arange(keys.shape[0] * keys.shape[1], device=q.device).view(*keys.shape[:2], 1, 1)
        at = at + rows * keys.shape[2]
        near_keys, near_values = (one.reshape(-1, one.shape[-1])[at] for one in (keys, values))
        scores = (near_keys @ q.unsqueeze(-1)).squeeze(-1)
        # A finite number: where nothing is to be seen at all, shares are equal, and the gate shuts them out.
        shares = torch.softmax(scores.masked_fill(unseen, torch.finfo(scores.dtype).min), dim=-1)
        any_found = (~unseen[..., :1]).to(q.dtype)
        return (shares.unsqueeze(-2) @ near_values).squeeze(-2), any_found
