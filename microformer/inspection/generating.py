"""What a model says next, one request at a time: nothing is remembered between two.

The n-th new token has the n-th number of its seed, and which tokens are seen depends on their number alone, so that
any place of a text can be gone on from, and the text is the one that `microformer generate` writes with that seed.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

import torch

from microformer import generation
from microformer.inspection.trace import Trace
from microformer.inspection.words import Words
from microformer.inspection.worker import Stopped
from microformer.tokenization import Unknown


def sampler(words: Words) -> generation.Sampler:
    """How a request wants the next id chosen.

    Raises:
        GenerationError: a value out of range.
    """
    return generation.Sampler(
        words.number("temperature", 0.8),
        words.whole("top_k", 0, 10**9, usual=0),
        words.number("top_p", 1.0),
        words.number("min_p", 0.0),
    )


def further(
    seen: Trace,
    made: Sequence[int],
    count: int,
    sampler: generation.Sampler,
    seed: int,
    likeliest: int,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """The next tokens after a text and what was generated so far, under the text's edits.

    Args:
        seen: the text; of one longer than the context all of it is the prompt.
        made: ids generated so far.
        count: how many more.
        likeliest: how many of a distribution's likeliest are told.
        stop: asked before each token.

    Returns:
        ids [count], and of the distribution each was drawn from: top_ids and top_p [count likeliest], entropy [count]
        in nats, p [count] of the chosen; ended: whether the document ended, whose token is not among them.

    Raises:
        Stopped: it was asked to.
    """
    run = seen.run
    assert run is not None
    telling = _Telling(sampler.temperature, sampler.top_k, sampler.top_p, sampler.min_p)
    prompt, ids = [*_prompt(seen), *made], []
    steps = generation.stream(seen.model, [prompt], telling, count, seed=seed, tap=seen.tap(), drawn=len(made))
    with run.explained():
        for (new,) in steps:
            if stop():
                raise Stopped
            if new == run.tokenizer.end_of_document:
                break
            ids.append(new)
    p = torch.cat(telling.told[: len(ids)]) if ids else torch.zeros(0, seen.model.spec.vocab_size)
    chosen, top = torch.tensor(ids, dtype=torch.long), p.topk(min(likeliest, p.shape[1]))
    return {
        "ids": chosen, "top_ids": top.indices, "top_p": top.values, "entropy": -torch.special.xlogy(p, p).sum(-1),
        "p": p.gather(1, chosen[:, None])[:, 0], "ended": len(ids) < count,
    }  # fmt: skip


class _Telling(generation.Sampler):
    """A sampler that keeps what it drew from."""

    @cached_property
    def told(self) -> list[torch.Tensor]:
        """The distributions, in their order. [1 vocab]"""
        return []

    def choose(self, logits: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        self.told.append(self.distribution(logits))
        return super().choose(logits, u)


def _prompt(seen: Trace) -> list[int]:
    run, ids = seen.run, seen.ids.tolist()
    if not seen.left_out or run is None or seen.text is None:
        return ids
    return [
        *run.tokenizer.beginning,
        *run.tokenizer.encode(seen.text, cast(Unknown, run.settings.data.unknown)).tolist(),
    ]
