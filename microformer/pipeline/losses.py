"""Which tokens a model finds hard: by the kind of their characters, and the passages that cost it most.

Reads the loss of each token and what the token is as text.
"""

import unicodedata
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from torch import Tensor

from microformer.tokenization import Tokenizer

_CLASSES = {"L": "letters", "M": "letters", "N": "digits", "P": "punctuation", "S": "punctuation", "Z": "spaces"}
# Tokens of a passage, and of what is shown before it.
_PASSAGE, _BEFORE = 32, 16
_PASSAGES = 5


def by_class(
    tokenizer: Tokenizer, ids: Integer[Tensor, "tokens"], each: Float[Tensor, "tokens"] | None
) -> dict[str, dict[str, float]]:
    """For each kind of token that there is: its mean loss in `nats` and its `share` of the tokens scored.

    A token of several characters is of the kind of its first one that is no space.

    Args:
        each: the loss of each token, in nats; NaN where it was not scored.
    """
    if each is None:
        return {}
    names = [class_of(tokenizer, token) for token in range(tokenizer.vocab_size)]
    kinds = sorted(set(names))
    kind_of = np.array([kinds.index(name) for name in names])
    losses = each.numpy()
    scored = np.isfinite(losses)
    of = kind_of[ids.numpy()[scored].astype(np.int64)]
    counts = np.bincount(of, minlength=len(kinds))
    sums = np.bincount(of, losses[scored].astype(np.float64), minlength=len(kinds))
    return {
        kind: {"nats": float(sums[at] / counts[at]), "share": float(counts[at] / counts.sum())}
        for at, kind in sorted(enumerate(kinds), key=lambda one: -counts[one[0]])
        if counts[at]
    }


def class_of(tokenizer: Tokenizer, token: int) -> str:
    """What a token is: letters, digits, punctuation, spaces, line ends, the end of a document, or other."""
    if token == tokenizer.end_of_document:
        return "end of document"
    text = tokenizer.decode([token])
    if text and not text.strip():
        return "line ends" if "\n" in text or "\r" in text else "spaces"
    return _CLASSES.get(unicodedata.category(text.strip()[0])[0], "other") if text else "other"


def surprising(
    tokenizer: Tokenizer, ids: Integer[Tensor, "tokens"], each: Float[Tensor, "tokens"] | None
) -> list[dict[str, Any]]:
    """The passages of 32 tokens with the highest mean loss, none over another: where they begin (`token`), `nats` a
    token, their `text`, and what stands `before` it."""
    if each is None or len(each) < _PASSAGE:
        return []
    losses = np.nan_to_num(each.numpy().astype(np.float64), nan=0.0)
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    means = (sums[_PASSAGE:] - sums[:-_PASSAGE]) / _PASSAGE
    found = []
    for _ in range(_PASSAGES):
        at = int(means.argmax())
        if not means[at] > 0:
            break
        found.append(
            {
                "token": at,
                "nats": float(means[at]),
                "before": tokenizer.decode(ids[max(0, at - _BEFORE) : at].tolist()),
                "text": tokenizer.decode(ids[at : at + _PASSAGE].tolist()),
            }
        )
        means[max(0, at - _PASSAGE + 1) : at + _PASSAGE] = 0.0
    return found
