"""MyPositions: the further back a key, the less its score, at a rate that each head learns.

    S ← S − exp(r_h) · ln(1 + query − key)

Chi et al. 2022, "KERPLE", its logarithmic form with one parameter. A start: a kind of positions says one of three
things, and leaves the others as they are: `embed` adds vectors to the tokens', `turn` turns queries and keys, `bias`
is added to scores.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microformer.models.positions import PositionKind
from microformer.models.spec import ModelSpec


class MyPositions(PositionKind):
    """A bias that falls with the logarithm of the distance.

    Args:
        model: the whole model's sizes: model.num_heads, model.embed_dim, model.max_seq_len …
        rate: where the heads' rates begin.
    """

    # What each parameter is to the optimizer: gain, bias, embedding or matrix.
    roles = {"rates": "gain"}

    def __init__(self, model: ModelSpec, rate: float = 1.0):
        super().__init__()
        self.rates = nn.Parameter(torch.full((model.num_heads, 1, 1), float(rate)).log())

    def bias(
        self, query: Int[Tensor, "*batch query"], key: Int[Tensor, "*batch key"]
    ) -> Float[Tensor, "*batch head query key"]:
        """Positions are in tokens from the start of each row's text; with a cache there are more keys than queries."""
        distance = (query.unsqueeze(-1) - key.unsqueeze(-2)).clamp_min(0)  # later keys are masked anyway
        return -self.rates.exp() * torch.log1p(distance.float()).unsqueeze(-3)
