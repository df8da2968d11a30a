"""Evaluation: the exact loss over a whole split, and what to hold it against. Knows ids and models, no text, no files.

Every token is scored exactly once. `blocks`: the split is cut into blocks of the context, side by side, the first one
primed by the token before the split. `sliding`: each block is half of the context, and the other half is read before
it without being scored again, so that every token but the first few has at least half a context behind it.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Integer
from torch import Tensor

from microformer.errors import DataError
from microformer.models.model import Microformer, token_losses

_MOST_LOGITS = 2**26


@dataclass(frozen=True)
class Loss:
    """A loss over a text.

    Args:
        nats_per_token: mean of −log p(token).
        tokens: how many were scored.
    """

    nats_per_token: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(nats a token)."""
        return math.exp(self.nats_per_token)

    def bits_per(self, units: int) -> float:
        """Bits a unit of the same text, such as its characters or its bytes. units: how many the text has."""
        return self.nats_per_token * self.tokens / math.log(2) / units


@torch.no_grad()
def evaluate(
    model: Microformer,
    ids: Integer[Tensor, "tokens"],
    prime: int | None,
    *,
    context: Literal["blocks", "sliding"] = "blocks",
    tokens_at_once: int = 8192,
) -> Loss:
    """The exact loss of a model over `ids`.

    Args:
        model: on the device where it is to be computed; its mode (train or eval) is the caller's.
        ids: the text, as its tokenizer encoded it; may be memory-mapped.
        prime: the token before the first one; None: the first token primes the others and is not scored.
        context: how much is seen before each token.
        tokens_at_once: how many tokens are computed together.

    Raises:
        DataError: there is no token to score.
    """
    if prime is None:
        prime, ids = (int(ids[0]) if len(ids) else 0), ids[1:]
    if len(ids) == 0:
        raise DataError("the text is too short: it has no token to score.", "give a longer one.")
    length = model.spec.max_seq_len
    device = next(model.parameters()).device
    past = 0 if context == "blocks" else length // 2
    stride = length - past
    # Rows computed together are alike: the first has no past and the last may be short, so each goes alone.
    begins = list(range(0, len(ids), stride))
    # A large vocabulary's logits are what fills the memory.
    middle, rows = begins[1:-1], max(1, min(tokens_at_once, _MOST_LOGITS // model.spec.vocab_size) // length)
    groups = [begins[:1], *(middle[i : i + rows] for i in range(0, len(middle), rows)), begins[1:][-1:]]

    total = 0.0
    for group in filter(None, groups):
        seen_before = min(past, group[0])
        scored = min(stride, len(ids) - group[0])
        at = torch.tensor(group)[:, None] + torch.arange(-seen_before, scored)
        read = ids[(at - 1).clamp_min(0)].long().masked_fill_(at == 0, prime)
        losses = token_losses(model(read.to(device)).logits, ids[at].long().to(device))
        total += losses[:, seen_before:].cpu().double().sum().item()  # Apple's GPUs have no doubles
    return Loss(total / len(ids), len(ids))


def uniform(vocab_size: int) -> float:
    """The loss of a model that knows nothing: log(vocabulary), in nats a token."""
    return math.log(vocab_size)


def unigram(train: Integer[Tensor, "train_tokens"], ids: Integer[Tensor, "tokens"], vocab_size: int) -> float:
    """The loss of a model that knows how often each token comes in `train` (plus one each) and no more, in nats."""
    counts = _counts(train, vocab_size) + 1
    seen = _counts(ids, vocab_size)
    return float(-(seen * (counts / counts.sum()).log()).sum() / seen.sum())


def _counts(ids: Tensor, vocab_size: int, piece: int = 1 << 22) -> Tensor:
    counts = torch.zeros(vocab_size, dtype=torch.float64)
    for part in ids.split(piece):
        counts += torch.bincount(part.long(), minlength=vocab_size)
    return counts
