"""What is told of predictions: the likeliest tokens, the probability of the one that came, the entropy.

H = −Σ p log p, in nats
"""

import torch
from jaxtyping import Float
from torch import Tensor

from microformer.inspection.lens import logit_lens, residual_norms
from microformer.inspection.trace import Trace


def entropy(log_p: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    """The entropy of distributions that are given by their logarithms."""
    p = log_p.exp()
    return -torch.where(p == 0, p, p * log_p).sum(-1)


def through_layers(seen: Trace) -> dict[str, Tensor]:
    """The logit lens in figures: top_ids, top_p, target_p (of the token that follows; NaN for the last) and entropy
    [layer+1 pos], and the norms of the residual stream [2·layer+1 pos].

    Raises:
        TraceError: the model has no lens.
    """
    # A row at a time: all logits of all layers of a model with 50,000 tokens are gigabytes.
    rows = [_row(seen, row) for row in range(seen.model.spec.depth + 1)]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]} | {"norms": residual_norms(seen)}


def _row(seen: Trace, row: int) -> dict[str, Tensor]:
    log_p = logit_lens(seen, [row])[0].float().log_softmax(-1)
    top, target = log_p.max(-1), log_p[:-1].gather(1, seen.ids[1:, None])[:, 0].exp()
    last = target.new_full((1,), float("nan"))
    return {
        "top_ids": top.indices, "top_p": top.values.exp(), "target_p": torch.cat([target, last]),
        "entropy": entropy(log_p),
    }  # fmt: skip
