"""Embeddings of n-grams: what the last few tokens are together, looked up before any layer has to find it out.

    x_t = embed(token_t) + Σ_n T_n[h(token_{t−n+1} … token_t)]        n = 2 … N

The hash embeddings of Svenstrup et al. 2017 on token n-grams. A table has a row for each n-gram where it can hold them
all, else n-grams share rows by a hash. Before the text's first token there is none, which counts as a token of its own.
Most useful with characters, of which one alone says little. Knows ids and positions; what came before is in the State.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from microformer.models.linear import Embedding

# 2^64 over the golden ratio, as a signed number: the multiplier of Fibonacci hashing (Knuth, volume 3, section 6.4).
_GOLDEN = -7046029254386353131


class NGrams(nn.Module):
    """A table for each n from 2 to the order, of vectors that start at zero.

    Args:
        order: the longest n-gram, N.
        entries: the most rows a table may have.
        vocab_size: different token ids.
        width: numbers a vector.
        dropout: share of the n-grams left out in training (the others count for more), each for itself. What a table
            knows by heart the layers would else never learn to find out, and a new text has n-grams never seen.
    """

    def __init__(self, order: int, entries: int, vocab_size: int, width: int, dropout: float = 0.0):
        super().__init__()
        self.order = order
        self.dropout = dropout
        self.symbols = vocab_size + 1  # the last one stands for "nothing yet"
        self.rows = [min(entries, self.symbols**n) for n in range(2, order + 1)]
        self.tables = nn.ModuleList(Embedding(rows, width, std=0.0) for rows in self.rows)

    def forward(
        self, ids: Int[Tensor, "batch pos"], recent: Int[Tensor, "batch recent"], position: Int[Tensor, "*batch pos"]
    ) -> Float[Tensor, "batch pos width"]:
        """The sum of the n-grams' vectors.

        Args:
            ids: the tokens.
            recent: the order − 1 tokens before them, whatever they are where there were fewer.
            position: where the tokens stand in their text, from 0.
        """
        text = torch.cat([recent, ids], dim=1)
        key, total = ids, torch.zeros((), device=ids.device)
        for n, table, rows in zip(range(2, self.order + 1), self.tables, self.rows, strict=True):
            before = text[:, self.order - n : text.shape[1] - n + 1]
            key = key * self.symbols + before.masked_fill(position < n - 1, self.symbols - 1)
            vectors = table(self._row(key, rows, n))
            if self.training and self.dropout:
                vectors = vectors * F.dropout(vectors.new_ones((*ids.shape, 1)), self.dropout)
            total = total + vectors
        return total

    def _row(self, key: Int[Tensor, "batch pos"], rows: int, n: int) -> Int[Tensor, "batch pos"]:
        if rows == self.symbols**n:
            return key
        return ((key * _GOLDEN) >> 32).remainder(rows)
