"""What heads do, in numbers: scores by which the field names them.

Read off patterns on text that means nothing: n random tokens, and the same n again. Olsson et al. 2022, "In-context
Learning and Induction Heads"; Elhage et al. 2021; Xiao et al. 2023 (sinks). A score is the mean of a diagonal or a
column of the pattern, as TransformerLens's demonstrations and ARENA have it, and lies between 0 and 1 where rows sum to
1. TransformerLens's `detect_head` divides the same sum by the number of all queries.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microformer.inspection.activations import TraceError, run_with_cache
from microformer.models.model import Microformer

DEFINITIONS = {
    "previous_token": "On random tokens: how much a query gives to the token just before it, on average.",
    "induction": "On random tokens that come twice: how much a query gives to the token that followed the first "
    "occurrence of its own token, on average.",
    "duplicate_token": "On random tokens that come twice: how much a query of the second time gives to the first "
    "occurrence of its own token, on average.",
    "first_token": "On random tokens: how much a query gives to the first of them, on average: a sink where it is "
    "large.",
    "entropy": "On random tokens: how spread out a query's attention is, on average: −Σ p ln p in nats, 0 where it "
    "looks at one token alone.",
}
# As long as the usual demonstrations' text.
_REPEATED = 50


@torch.no_grad()
def head_scores(
    model: Microformer, seed: int = 0, *, rows: int = 4, beginning: Sequence[int] = ()
) -> dict[str, Float[Tensor, "layer head"]]:
    """The scores of every head, by the names of `DEFINITIONS`.

    Args:
        model: in eval mode; a context shorter than 100 tokens is filled.
        seed: of the random tokens.
        rows: how many texts are averaged over.
        beginning: the ids with which the model expects a text to begin (a tokenizer's `beginning`).

    Returns:
        a score for each head; NaN in a layer whose attention shows no pattern, and where the context is too short.

    Raises:
        TraceError: no layer's attention shows a pattern.
    """
    spec = model.spec
    ids, n = repeated_tokens(spec.vocab_size, spec.max_seq_len - len(beginning), seed, rows)
    first = torch.tensor(beginning, dtype=torch.long).expand(rows, -1)
    ids = torch.cat([first, ids], dim=1).to(next(model.parameters()).device)
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(spec.depth)]
    there = [name for name in names if name in model.tap_names()]
    if not there:
        raise TraceError(
            "no head of this model shows a pattern.", "a kernel of your own shows one by handing it to its tap."
        )
    cache = run_with_cache(model, ids, there)[1]
    none = torch.full((rows, spec.num_heads, ids.shape[1], ids.shape[1]), torch.nan)
    patterns = [cache[name][..., len(cache.remembered) :].cpu() if name in cache else none for name in names]
    return {name: torch.stack([_score(name, one, n) for one in patterns]) for name in DEFINITIONS}


def repeated_tokens(vocab_size: int, room: int, seed: int, rows: int = 1) -> tuple[Int[Tensor, "row pos"], int]:
    """n random tokens, then the same n; and n: 50, or half of the room. None comes twice among the n where the
    vocabulary is large enough."""
    n = max(1, min(_REPEATED, room // 2))
    generator = torch.Generator().manual_seed(seed)
    times = -(-n // vocab_size)
    drawn = [
        torch.cat([torch.randperm(vocab_size, generator=generator) for _ in range(times)])[:n] for _ in range(rows)
    ]
    return torch.stack(drawn).repeat(1, 2)[:, : max(1, room)], n


def _score(name: str, pattern: Float[Tensor, "row head query key"], n: int) -> Float[Tensor, "head"]:
    match name:
        case "previous_token":
            each = pattern.diagonal(-1, 2, 3)
        case "induction":
            each = pattern.diagonal(1 - n, 2, 3)
        case "duplicate_token":
            each = pattern.diagonal(-n, 2, 3)
        case "first_token":
            each = pattern[..., 0]
        case _:
            each = pattern_entropy(pattern)
    return each.mean((0, 2))


def pattern_entropy(pattern: Float[Tensor, "*batch query key"]) -> Float[Tensor, "*batch query"]:
    """−Σ p ln p of each query's pattern in nats. Shares that don't sum to 1 are divided by their sum, negative ones
    (of differential attention) count as 0."""
    shares = pattern.clamp_min(0)
    shares = shares / shares.sum(-1, keepdim=True)
    return torch.special.entr(shares).sum(-1)
