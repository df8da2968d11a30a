"""What a part is good for: the loss without it, and what an edit does to every prediction.

    Δ = mean loss of the text with the part's output set to 0 − mean loss without       in nats a token

A part that others make up for counts little (McGrath et al. 2023, "The Hydra Effect"); one that the text does not need
counts nothing. All heads of a layer are silenced at once, each in a copy of the text of its own, and a copy is read on
from the layer where it differs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microformer.inspection.activations import TraceError, block_of, in_turn
from microformer.inspection.trace import Trace
from microformer.models.memory import Memory
from microformer.models.model import token_losses
from microformer.models.taps import Edit, Scope


@dataclass(frozen=True)
class KnockOut:
    """The change of the mean loss, in nats a token, without each part; above 0: the part helps.

    Args:
        heads: without one head.
        attn, mlps: without a whole half of a layer.
    """

    heads: Float[Tensor, "layer head"]
    attn: Float[Tensor, "layer"]
    mlps: Float[Tensor, "layer"]


@torch.no_grad()
def knock_out_map(seen: Trace, stop: Callable[[], bool] = lambda: False) -> KnockOut | None:
    """The loss of the text without each head and each half of a layer: zero ablation, on top of the trace's edits.

    Args:
        seen: a trace of two tokens or more.
        stop: asked before each layer that is computed: whether the answer is no longer wanted.

    Returns:
        the changes; None where it was stopped.

    Raises:
        TraceError: a text of one token.
    """
    if len(seen.ids) < 2:
        raise TraceError("one token alone has no loss.", "give a text of two tokens or more.")
    spec, base = seen.model.spec, seen.losses.mean()
    changes = []
    for layer in range(spec.depth):
        losses = _without(seen, layer, stop)
        if losses is None:
            return None
        changes.append(losses - base)
    table = torch.stack(changes)
    return KnockOut(table[:, : spec.num_heads], table[:, -2], table[:, -1])


def _without(seen: Trace, layer: int, stop: Callable[[], bool]) -> Float[Tensor, "copy"] | None:
    """The mean loss of copies of the text: without each head of a layer, without its attention, without its
    feed-forward."""
    model, heads = seen.model, seen.model.spec.num_heads

    def silence_heads(z: Tensor) -> Tensor:
        z = z.clone()
        z[torch.arange(heads), :, torch.arange(heads)] = 0.0
        return z

    def silence(copy: int) -> Callable[[Tensor], Tensor]:
        return lambda out: out.index_fill(0, torch.tensor([copy], device=out.device), 0.0)

    block = f"blocks.{layer}"
    silenced = {f"{block}.attn.hook_z": silence_heads}
    silenced |= {f"{block}.hook_attn_out": silence(heads), f"{block}.hook_mlp_out": silence(heads + 1)}
    tap = in_turn(seen.tap(), seen.patched and seen.patched(), Edit(silenced))
    if type(model.memory) is not Memory:  # what it puts before the text, or takes along, is of each copy
        if stop():
            return None
        logits = model(seen.ids.expand(heads + 2, -1), tap=tap).logits
    else:
        x = seen.cache[f"{block}.hook_resid_pre"].expand(heads + 2, -1, -1)
        where = model.empty_state().positions(x.shape[1], x.device)
        order = model.positions.order(where, x.dtype)
        for on in range(layer, model.spec.depth):
            if stop():
                return None
            # What a tap made of the stream before this layer is in it already.
            scope = Scope(_Except(tap, f"{block}.hook_resid_pre"), f"blocks.{on}.")
            x = block_of(model, on)(x, order, None, scope)[0]
        logits = model.unembed(Scope(tap)("ln_final.hook_normalized", model.norm(x)))
    return token_losses(logits[:, :-1], seen.ids[1:].expand(heads + 2, -1)).mean(1)


class _Except:
    """A tap without one of its names."""

    def __init__(self, tap, name: str):
        self.tap, self.name = tap, name

    def wants(self, name: str) -> bool:
        return name != self.name and self.tap.wants(name)

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        return self.tap(name, tensor)


@dataclass(frozen=True)
class Effect:
    """What an edit does to the predictions of a text.

    Args:
        before, after: −log p of each token but the first, in nats.
        kl: KL(before ‖ after) of each position's prediction, in nats.
    """

    before: Float[Tensor, "next"]
    after: Float[Tensor, "next"]
    kl: Float[Tensor, "pos"]


def effect(before: Trace, after: Trace) -> Effect:
    """Two traces of the same text compared.

    Raises:
        TraceError: they are of different texts.
    """
    if before.ids.tolist() != after.ids.tolist():
        raise TraceError("these are traces of different texts.", "compare a text with itself under an edit.")
    log_p, log_q = (one.logits.double().log_softmax(-1) for one in (before, after))
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).clamp_min(0)  # rounding may fall below
    return Effect(before.losses, after.losses, kl.float())
