"""Diagnostics: what goes wrong inside a model while it trains, in one line that names the layer.

    silent units      |post| ≤ RMS(post) / 1000 for every one of some thousand tokens; more than a tenth of a layer
                      (Lu et al. 2020, "Dying ReLU"; an expert that is never chosen is silent as a whole)
    collapsed heads   −Σ p ln p < 0.05 nats for 98 of 100 queries from the 8th token on: one key has all
                      (Zhai et al. 2023, "Stabilizing Transformer Training by Preventing Attention Entropy Collapse")
    the stream        its root mean square after a layer is 300 times that before the first, or a 300th
    gradients         a part's norm is 30 times its median over the last 20 logged steps; or a layer's is a 1000th of
                      the largest part's (Bengio et al. 1994; Pascanu et al. 2013)
    weights           a part's norm is 10 times what it was at the first look, or a 30th

What is found is told once, and again when it is twice as bad. Looking draws no random number and changes no weight. The
bounds lie far outside of what healthy models of every kind here show (docs/trackers.md). Knows no loop and no tracker.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from microformer.errors import notice
from microformer.inspection.activations import Activations, run_with_cache
from microformer.inspection.heads import pattern_entropy
from microformer.models.model import Microformer
from microformer.training.norms import Norms
from microformer.training.observers import Observer, Row

# What is looked at: that many tokens, in texts of the context's length or this one.
TOKENS = 1024
_LONGEST = 256

_SILENT, _LAYER = 1e-3, 0.1
_COLLAPSED, _EVERYWHERE, _FROM = 0.05, 0.98, 8
_STREAM = 300.0
_SPIKE, _REMEMBERED, _ENOUGH = 30.0, 20, 10
_VANISHED = 1e-3
_GROWN, _SHRUNK = 10.0, 1 / 30


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Args:
        key: what and where: the same finding at another step has the same.
        severity: twice as much is twice as bad.
        sentence: what a person is told.
    """

    key: str
    severity: float
    sentence: str


class Diagnosing(Observer):
    """Looks at the model every so many steps and at its end, and at the norms of each logged step.

    Args:
        model: that is trained.
        ids: texts to look at it with. [text pos]
        norms: an observer that stands before this one.
        every: steps between two looks. None is earlier: what begins at zero is not silent.
        tell: takes a step and a sentence.
    """

    def __init__(
        self,
        model: Microformer,
        ids: Int[Tensor, "text pos"],
        norms: Norms,
        every: int,
        tell: Callable[[int, str], None] = lambda step, sentence: notice(f"step {step:,}, {sentence}"),
    ):
        self.model, self.ids, self.norms, self.every, self.tell = model, ids, norms, every, tell
        self.told: dict[str, float] = {}
        self.first: dict[str, float] = {}  # the weights' norms at the first look
        self.recent: dict[str, deque[float]] = {}  # of the gradients of each part
        self.looking = False

    def on_step(self, step: int, progress: float, seconds: float) -> None:
        if self.every and (step % self.every == 0 or progress >= 1):
            self.looking = True  # at the norms too, with the next row
            try:
                self._say(step, look(self.model, self.ids))
            except Exception as error:  # a training must not die of being looked at
                self.every = 0
                notice(f"diagnostics failed and are off from here on: {type(error).__name__}: {error}")

    def on_row(self, row: Row) -> None:
        step = int(row["step"])
        if not self.every or not (norms := self.norms.of(step)):
            return
        gradients, weights = ({part: norms[f"{what}/{part}"] for part in self.norms.parts} for what in _NORMS)
        self._say(step, spikes(gradients, self.recent))
        for part, norm in gradients.items():
            self.recent.setdefault(part, deque(maxlen=_REMEMBERED)).append(norm)
        if self.looking:
            self.looking = False
            self._say(step, vanished(gradients))
            self._say(step, changed(weights, self.first))
            self.first = {**weights, **self.first}

    def state_dict(self) -> dict[str, Any]:
        recent = {part: list(norms) for part, norms in self.recent.items()}
        return {"told": self.told, "first": self.first, "recent": recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.told, self.first = dict(state["told"]), dict(state["first"])
        self.recent = {part: deque(norms, maxlen=_REMEMBERED) for part, norms in state["recent"].items()}

    def _say(self, step: int, findings: Iterable[Finding]) -> None:
        for found in findings:
            if found.severity >= 2 * self.told.get(found.key, 0.0):
                self.told[found.key] = found.severity
                self.tell(step, found.sentence)


_NORMS = ("grad_norm", "weight_norm")


def texts(ids: Integer[Tensor, "token"], context: int) -> Int[Tensor, "text pos"]:
    """Texts to look at a model with, from all over a longer one.

    Args:
        ids: the longer one.
        context: the model's.
    """
    length = min(context, _LONGEST, len(ids))
    number = max(1, min(TOKENS // length, len(ids) // length))
    starts = torch.linspace(0, len(ids) - length, number).long()
    return torch.stack([ids[start : start + length] for start in starts.tolist()]).long()


@torch.no_grad()
def look(model: Microformer, ids: Int[Tensor, "text pos"]) -> list[Finding]:
    """What is wrong with a model as it stands.

    Args:
        model: on any device, in any mode and precision, which are put back.
        ids: texts.
    """
    training, precision = model.training, model.compute_dtype
    model.eval()
    model.compute_dtype = torch.float32
    try:
        wanted = ("hook_post", "hook_gates", "hook_pattern", "hook_resid_post", "blocks.0.hook_resid_pre")
        names = [name for name in model.tap_names() if name.endswith(wanted)]
        cache = run_with_cache(model, ids.to(next(model.parameters()).device), names)[1]
    finally:
        model.compute_dtype = precision
        model.train(training)
    layers = range(model.spec.depth)
    found = [each for layer in layers for each in (*_silent(cache, layer), *_collapsed(cache, layer))]
    return [*found, *_stream(cache, layers)]


def _silent(cache: Activations, layer: int) -> list[Finding]:
    name = f"blocks.{layer}.mlp.hook_post"
    if name not in cache:
        return []
    units = silent_units(cache[name], cache.get(f"blocks.{layer}.mlp.hook_gates"))
    silent, of, tokens = int(units.sum()), units.numel(), cache[name].shape[0] * cache[name].shape[1]
    if silent <= _LAYER * of:
        return []
    sentence = f"layer {layer}: {silent:,} of its {of:,} units are silent for every one of {tokens:,} tokens."
    return [Finding(f"silent/{layer}", silent / of, sentence)]


def silent_units(
    post: Float[Tensor, "text pos *unit"], gates: Float[Tensor, "text pos expert"] | None = None
) -> Bool[Tensor, "*unit"]:
    """Which units of a feed-forward pass nothing on.

    Args:
        post: their activations; of a mixture of experts, an axis of experts before that of units.
        gates: how much of each expert a token takes.
    """
    if gates is not None:
        post = post * (gates > 0).unsqueeze(-1)
    bound = _SILENT * post.square().mean().sqrt()
    return (post.abs() <= bound).flatten(0, 1).all(0)


def _collapsed(cache: Activations, layer: int) -> list[Finding]:
    name = f"blocks.{layer}.attn.hook_pattern"
    if name not in cache:
        return []
    pattern = cache[name]
    later = pattern[..., min(_FROM, pattern.shape[-2] // 2) :, :]
    if pattern.shape[-1] < 2:
        return []
    entropy = pattern_entropy(later)
    heads = ((entropy < _COLLAPSED).float().mean((0, 2)) >= _EVERYWHERE).nonzero().flatten().tolist()
    if not heads:
        return []
    which = f"head {heads[0]} looks" if len(heads) == 1 else f"heads {', '.join(map(str, heads))} look"
    sentence = f"layer {layer}: its {which} at one token alone, wherever in the text (entropy below {_COLLAPSED})."
    return [Finding(f"collapsed/{layer}", float(len(heads)), sentence)]


def _stream(cache: Activations, layers: range) -> list[Finding]:
    sizes = [_size(cache["blocks.0.hook_resid_pre"]), *(_size(cache[f"blocks.{i}.hook_resid_post"]) for i in layers)]
    found = []
    for layer in layers:
        ratio = sizes[layer + 1] / max(sizes[0], 1e-30)
        if 1 / _STREAM < ratio < _STREAM:
            continue
        verb, severity = ("grows", ratio) if ratio > 1 else ("vanishes", 1 / max(ratio, 1e-30))
        sentence = f"layer {layer}: the stream {verb} to {ratio:.2g} times its size before the first layer."
        found.append(Finding(f"stream/{verb}", severity, sentence))
    return found[:1]  # the first layer at which it does; those after it read the same stream


def _size(stream: Tensor) -> float:
    return float(stream.square().mean().sqrt())


def spikes(gradients: Mapping[str, float], recent: Mapping[str, Iterable[float]]) -> list[Finding]:
    """Gradients that are much larger than they were.

    Args:
        gradients: the norm of each part.
        recent: their norms at logged steps before.
    """
    found = []
    for part, norm in gradients.items():
        before = list(recent.get(part, ()))
        if len(before) < _ENOUGH or not (usual := median(before)) or norm < _SPIKE * usual:
            continue
        ratio = norm / usual
        sentence = f"{_in_words(part)}: its gradient explodes: norm {norm:.2g}, {ratio:,.0f} times what is usual here."
        found.append(Finding(f"explodes/{part}", ratio, sentence))
    return found


def vanished(gradients: Mapping[str, float]) -> list[Finding]:
    """Layers whose gradient is next to nothing beside that of other parts."""
    largest = max(gradients.values())
    found = []
    for part, norm in gradients.items():
        if not part.startswith("blocks.") or not largest or norm > _VANISHED * largest:
            continue
        sentence = f"{_in_words(part)}: its gradient vanishes: norm {norm:.2g}, and {largest:.2g} elsewhere."
        found.append(Finding(f"vanishes/{part}", largest / max(norm, 1e-30), sentence))
    return found


def changed(weights: Mapping[str, float], first: Mapping[str, float]) -> list[Finding]:
    """Weights that have grown or shrunk out of bounds.

    Args:
        weights: the norm of each part.
        first: what they were at the first look.
    """
    found = []
    for part, norm in weights.items():
        if not (before := first.get(part, 0.0)):
            continue
        ratio = norm / before
        if _SHRUNK < ratio < _GROWN:
            continue
        verb, severity = ("grow", ratio) if ratio > 1 else ("shrink", 1 / max(ratio, 1e-30))
        sentence = f"{_in_words(part)}: its weights {verb} to {ratio:.2g} times their first norm, {before:.3g}."
        found.append(Finding(f"weights {verb}/{part}", severity, sentence))
    return found


def _in_words(part: str) -> str:
    return part.replace("blocks.", "layer ")
