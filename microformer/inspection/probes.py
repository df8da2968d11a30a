"""Probes: while a model trains, a small picture of what it does with one text, every so many steps.

A probe is a file in the run folder (`runs.py` keeps them): the text's ids, each head's pattern in 8 bits, the loss of
each token, the head scores and the logit lens. `Probing` writes them as an observer of the loop; `read` reads one.
Looking changes nothing: no random number is drawn from torch's own generator, and weights and modes are put back to
the bit. Knows no loop and no page.

Steps: 1, 2, 4, 8 … and every PROBE_STEPS; where these become too many, every second of the latter goes, and so on.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microformer.errors import notice
from microformer.inspection.activations import TraceError
from microformer.inspection.heads import head_scores
from microformer.inspection.likeliest import through_layers
from microformer.inspection.trace import Trace, spelled
from microformer.models.model import Microformer
from microformer.runs import Run
from microformer.training.observers import Observer

# The longest text that is looked at, and the most numbers that its patterns may be: a byte each.
LENGTH = 64
_MOST_NUMBERS = 300_000
# The most probes that a run keeps; with the most numbers of each, some 60 MB.
_MOST = 150


@dataclass(frozen=True)
class Probe:
    """One probe, as it was read.

    Args:
        step: of the weights that it is of.
        tensors: as they lie in the file.
        tokens: the text, a string a token.
        text: the text.
        missing: the layers whose attention shows no pattern.
        remembered: how many of a pattern's columns stand before the text's own.
    """

    step: int
    tensors: dict[str, Tensor]
    tokens: list[str]
    text: str
    missing: tuple[int, ...]
    remembered: int

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def ids(self) -> Int[Tensor, "pos"]:
        """The text's ids."""
        return self.tensors["ids"]

    @cached_property
    def patterns(self) -> Float[Tensor, "layer head query key"]:
        """Each head's pattern, to within a 255th of its largest share; what was 0 is 0."""
        return self.tensors["pattern"].float() / 255 * self.tensors["scale"][..., None, None]

    @property
    def head_scores(self) -> dict[str, Float[Tensor, "layer head"]]:
        """The head scores by name; empty where there is no pattern to score."""
        scores = [name for name in self.tensors if name.startswith("score_")]
        return {name.removeprefix("score_"): self.tensors[name] for name in scores}


def read(run: Run, step: int) -> Probe:
    """A run's probe of a step.

    Raises:
        RunError: there is none, or it can't be read.
    """
    tensors, about = run.probe(step)
    ids = tensors["ids"].tolist()
    said = json.loads(about.get("probe", "{}"))
    tokens = spelled(run.tokenizer, ids)
    return Probe(step, tensors, tokens, run.tokenizer.decode(ids), tuple(said["missing"]), said["remembered"])


class Probing(Observer):
    """Writes probes into a run folder.

    Args:
        run: whose folder.
        model: that is trained.
        ids: the text that it is shown, its first LENGTH tokens or fewer.
        every: steps between two; 0 for none.
        averaged: while inside, the model holds the weights that are kept, as for a snapshot.
        shown: is shown the text's trace of each probe's step, while the model holds those weights.
    """

    def __init__(
        self,
        run: Run,
        model: Microformer,
        ids: Int[Tensor, "pos"],
        every: int,
        averaged: Callable[[], AbstractContextManager[None]],
        shown: Callable[[int, Trace], None] = lambda step, seen: None,
    ):
        self.run, self.model, self.every, self.averaged, self.shown = run, model, every, averaged, shown
        self.ids = ids[: length(model)]
        self.written = -1

    def on_step(self, step: int, progress: float, seconds: float) -> None:
        if self.every and (progress >= 1 or step % self.every == 0 or step.bit_count() == 1):
            self.write(step)

    def at_end(self, step: int) -> None:
        """Writes the last one, where training ended before its budget did."""
        if self.every and self.written != step:
            self.write(step)

    def write(self, step: int) -> None:
        """Looks at the model and writes it down."""
        try:
            with self.averaged():
                tensors, said = look(self.model, self.ids, self.run.tokenizer.beginning, partial(self.shown, step))
            self.run.write_probe(step, tensors, {"probe": json.dumps(said)})
            self.run.drop_probes(superfluous(self.run.probes, self.every, step))
            self.written = step
        except Exception as error:
            # A training of hours must not die of a picture, whatever is wrong with it; and to be told at each of a
            # thousand would hide all else.
            self.every = 0
            notice(f"the probe of step {step:,} failed, and there will be no more: {type(error).__name__}: {error}")


def length(model: Microformer) -> int:
    """How many tokens a probe of this model looks at: fewer where it has many heads."""
    heads = model.spec.depth * model.spec.num_heads
    return max(2, min(LENGTH, model.spec.max_seq_len, int((_MOST_NUMBERS / heads) ** 0.5)))


def superfluous(steps: Sequence[int], every: int, now: int) -> list[int]:
    """Of the steps that there are probes of, those to be dropped: none while they are few."""
    if len(steps) <= _MOST:
        return []
    interval = every
    while now / interval > _MOST / 2:
        interval *= 2
    return [step for step in steps if step % interval and step.bit_count() > 1 and step != now]


@torch.no_grad()
def look(
    model: Microformer,
    ids: Int[Tensor, "pos"],
    beginning: Sequence[int] = (),
    shown: Callable[[Trace], None] = lambda seen: None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a probe holds: tensors by name, and words.

    Args:
        model: on any device, in any mode and precision, which are put back.
        ids: the text.
        beginning: the ids with which the model expects a text to begin.
        shown: is shown the text's trace, while the model is as it was for it.
    """
    training, precision = model.training, model.compute_dtype
    model.eval()
    model.compute_dtype = torch.float32
    try:
        seen = Trace(model, ids.to(next(model.parameters()).device))
        tensors = {"ids": seen.ids, "losses": seen.losses}
        missing = _patterns(seen, tensors)
        with suppress(TraceError):  # a model without a lens
            tensors |= {f"lens_{name}": one for name, one in through_layers(seen).items()}
        with suppress(TraceError):  # a model without patterns
            tensors |= {f"score_{name}": one for name, one in head_scores(model, rows=1, beginning=beginning).items()}
        shown(seen)
    finally:
        model.compute_dtype = precision
        model.train(training)
    words = {"missing": missing, "remembered": len(seen.remembered)}
    return {name: _small(one.cpu()) for name, one in tensors.items()}, words


def _patterns(seen: Trace, tensors: dict[str, Tensor]) -> list[int]:
    """Adds the patterns in 8 bits to the tensors; gives the layers that have none."""
    found: dict[int, Tensor] = {}
    layers = range(seen.model.spec.depth)
    for layer in layers:
        with suppress(TraceError):
            found[layer] = seen.pattern(layer)
    if found:
        empty = torch.zeros_like(next(iter(found.values())))
        patterns = torch.stack([found.get(layer, empty) for layer in layers])
        scale = patterns.amax((-2, -1))
        shares = patterns / scale.clamp_min(1e-30)[..., None, None]
        # What is not 0 does not become 0: exact zeros are a finding. Differential attention's may be below it.
        bytes_ = torch.where(shares > 0, (255 * shares).round().clamp(1, 255), 0.0)
        tensors |= {"pattern": bytes_.to(torch.uint8), "scale": scale}
    return [layer for layer in layers if layer not in found]


def _small(tensor: Tensor) -> Tensor:
    match tensor.dtype:
        case torch.int64:
            return tensor.int()
        case torch.float64 | torch.float16 | torch.bfloat16:
            return tensor.float()
    return tensor
