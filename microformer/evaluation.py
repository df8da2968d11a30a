"""Evaluation: the exact loss over a whole split. Knows ids and models, no text, no files.

Every token is scored exactly once. `blocks`: the split is cut into blocks of the context, side by side, the first one
primed by the token before the split. `sliding`: each block is half of the context, and the other half is read before
it without being scored again, so that every token but the first few has at least half a context behind it.

A model whose memory goes on past the context reads the split as it was trained: in a few stretches side by side, each
from its beginning with an empty memory.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from microformer.errors import DataError
from microformer.models.model import Microformer, token_losses
from microformer.models.state import State

_MOST_LOGITS = 2**26
# What keeps a device busy and its caches from overflowing.
_AT_ONCE = {"cpu": 2**13, "cuda": 2**16, "mps": 2**13}
# The fewest segments of a stretch, of which the first has nothing to remember.
_SEGMENTS = 64


@dataclass(frozen=True)
class Loss:
    """A loss over a text.

    Args:
        nats_per_token: mean of −log p(token).
        tokens: how many were scored.
        exact_match: of a text that is a row of examples, the share of those in which the likeliest token is the right
            one at every place that counts; None for other texts.
        standard_error: of nats_per_token, from how much blocks differ among one another; None where there is one block.
        by_position: the mean loss of the tokens at each place of their block, from the one with one token before it to
            the one with a whole context; of blocks alone, where all of their tokens are scored.
        each: the loss of each token of the text, in nats; NaN where it was not scored. [tokens]
    """

    nats_per_token: float
    tokens: int
    exact_match: float | None = None
    standard_error: float | None = None
    by_position: tuple[float, ...] = ()
    each: Float[Tensor, "tokens"] | None = field(default=None, compare=False, repr=False)

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
    stride: int | None = None,
    tokens_at_once: int | None = None,
    counted: Bool[Tensor, "tokens"] | None = None,
    example: int = 1,
) -> Loss:
    """The exact loss of a model over `ids`.

    Args:
        model: on the device where it is to be computed; its mode (train or eval) is the caller's.
        ids: the text, as its tokenizer encoded it; may be memory-mapped.
        prime: the token before the first one; None: the first token primes the others and is not scored. Nor is it
            where the text is a row of examples: read from the first on, they stand in segments as in training.
        context: how much is seen before each token.
        stride: tokens by which a sliding context moves on, each time scoring so many; None: half of the context.
        tokens_at_once: how many tokens are computed together; None for what suits the device.
        counted: for each token whether it is scored; None: all are. [tokens]
        example: tokens of which `ids` is a row of examples; 1: it is one text.

    Raises:
        DataError: there is no token to score, or a model with a memory is asked for a sliding context.
    """
    length = model.spec.max_seq_len
    if stride is not None and (context != "sliding" or not 1 <= stride <= length):
        raise DataError(
            f"a stride of {stride} can't be: it is for a sliding context, and from 1 to {length}.",
            "give --context sliding, and a stride of half the context or less.",
        )
    not_scored = 0
    if prime is None or example > 1:
        not_scored, prime, ids = 1, (int(ids[0]) if len(ids) else 0), ids[1:]
        counted = None if counted is None else counted[1:]
    tokens = len(ids) if counted is None else int(counted.sum())
    if tokens == 0:
        raise DataError("the text is too short: it has no token to score.", "give a longer one.")
    tokens_at_once = tokens_at_once or _AT_ONCE.get(_device(model).type, 2**13)
    # A large vocabulary's logits are what fills the memory.
    rows = max(1, min(tokens_at_once, _MOST_LOGITS // model.spec.vocab_size) // model.spec.max_seq_len)
    if not model.spec.carries:
        pieces = _windows(model, ids, prime, rows, length if context == "blocks" else stride or -(-length // 2))
    elif context == "blocks":
        pieces = _stretches(model, ids, prime, rows, example)
    else:
        raise DataError("a model with a memory reads on, and has no sliding context.", "leave --context at blocks.")

    total, right = 0.0, torch.zeros(len(ids) if example > 1 else 0, dtype=torch.bool)
    sums: list[Tensor] = []  # of each block: its loss, and how many of its tokens are scored
    places = torch.zeros(2, length, dtype=torch.float64)
    each = torch.full((not_scored + len(ids),), math.nan)
    for at, logits in pieces:
        targets = ids[at].long().to(logits.device)
        losses = token_losses(logits, targets)
        losses = losses.cpu().double()  # Apple's GPUs have no doubles
        each[at + not_scored] = losses.float()
        if counted is not None:
            losses = losses * counted[at]
        total += losses.sum().item()
        scored = torch.ones_like(losses) if counted is None else counted[at].double()
        sums.append(torch.stack([losses.sum(1), scored.sum(1)]))
        if losses.shape[1] <= places.shape[1]:
            places[:, : losses.shape[1]] += torch.stack([losses.sum(0), scored.sum(0)])
        if example > 1:
            right[at] = (logits.argmax(-1) == targets).cpu()
    exact = None
    if example > 1:
        right = right if counted is None else right | ~counted
        right = torch.cat([right.new_ones(1), right])  # the first example's first token was not scored
        exact = float(right[: len(right) // example * example].view(-1, example).all(1).double().mean())
    by_position = tuple((places[0] / places[1]).tolist()) if context == "blocks" and counted is None else ()
    if counted is not None:
        each[not_scored:][~counted] = math.nan
    return Loss(total / tokens, tokens, exact, _standard_error(torch.cat(sums, dim=1)), by_position, each)


def _standard_error(sums: Float[Tensor, "two block"]) -> float | None:
    """Of a mean over tokens that come in blocks: a ratio of sums, whose blocks are drawn and not its tokens."""
    blocks, (losses, scored) = sums.shape[1], sums
    if blocks < 2:
        return None
    apart = losses - scored * losses.sum() / scored.sum()
    return float((apart.square().sum() * blocks / (blocks - 1)).sqrt() / scored.sum())


Pieces = Iterator[tuple[Int[Tensor, "row pos"], Float[Tensor, "row pos vocab"]]]


def _windows(model: Microformer, ids: Tensor, prime: int, rows: int, stride: int) -> Pieces:
    """Which tokens are scored, and the logits of each, by windows that know nothing of each other."""
    past = model.spec.max_seq_len - stride
    # Rows computed together are alike: the first ones have less of a past and the last may be short.
    begins = list(range(0, len(ids), stride))
    apart = [begin for begin in begins[:-1] if begin < past] or begins[:1]
    middle = begins[len(apart) : -1]
    last = begins[len(apart) :][-1:]
    groups = [*([one] for one in apart), *(middle[i : i + rows] for i in range(0, len(middle), rows)), last]
    for group in filter(None, groups):
        seen_before = min(past, group[0])
        scored = min(stride, len(ids) - group[0])
        at = torch.tensor(group)[:, None] + torch.arange(-seen_before, scored)
        yield at[:, seen_before:], model(_before(ids, at, prime).to(_device(model))).logits[:, seen_before:]


def _stretches(model: Microformer, ids: Tensor, prime: int, rows: int, example: int) -> Pieces:
    """The same by rows that read on, segment by segment, and remember."""
    length = model.spec.max_seq_len
    rows = max(1, min(rows, len(ids) // (_SEGMENTS * length)))
    unit = math.lcm(length, example)
    stretch = -(-len(ids) // (rows * unit)) * unit
    begins = torch.arange(0, len(ids), stretch)
    state: State | None = model.empty_state()
    for read in range(0, min(stretch, len(ids)), length):
        at = begins[:, None] + read + torch.arange(length)
        output = model(_before(ids, at.clamp_max(len(ids) - 1), prime).to(_device(model)), state=state)
        state = output.state
        for row, logits in zip(at, output.logits, strict=True):
            inside = int((row < len(ids)).sum())  # the last stretch may be short
            if inside:
                yield row[None, :inside], logits[None, :inside]


def _before(ids: Tensor, at: Int[Tensor, "row pos"], prime: int) -> Int[Tensor, "row pos"]:
    """The token before each."""
    return ids[(at - 1).clamp_min(0)].long().masked_fill(at == 0, prime)


def _device(model: Microformer) -> torch.device:
    return next(model.parameters()).device
