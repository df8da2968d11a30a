"""Memory tokens: learned vectors that stand before every text, seen by all of it.

    the layers read  [m_1 … m_n ; x_1 … x_t]

Burtsev et al. 2020, "Memory Transformer", the MemTransformer. What they hold is the same for every text: a place to
keep what helps always, and one to look at where nothing else is worth it.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microformer.models.memory.base import Memory
from microformer.models.spec import ModelSpec
from microformer.models.state import State


class MemoryTokens(Memory):
    """Learned tokens before the text.

    Args:
        tokens: how many.
        model: whose stream they enter.
    """

    roles: ClassVar = {"learned": "embedding"}

    def __init__(self, tokens: int, model: ModelSpec):
        super().__init__()
        self.tokens = tokens
        self.std = 0.02 if model.tie_embeddings else 1.0  # as of the embeddings they stand beside
        self.learned = nn.Parameter(torch.zeros(tokens, model.embed_dim))

    def start(self, generator: torch.Generator) -> None:
        """Draws the starting vectors."""
        self.learned.normal_(0.0, self.std, generator=generator)

    def before(self, state: State, rows: int) -> Float[Tensor, "batch token d_model"]:
        return self.learned.expand(rows, -1, -1)
