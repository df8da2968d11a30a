"""Edits of a model at work, in words: which part, and what becomes of what it says.

    L0H2 zero     L0H2 mean     L0H2 x0.5     L0H2 solo     L1.attn zero     L1.mlp mean     L1 zero

A head's part is its z, before W_O (`hook_z`); a half's is what it adds to the stream (`hook_attn_out`,
`hook_mlp_out`), and a layer's are both. zero and mean ablation are the field's (Olsson et al. 2022, "In-context
Learning and Induction Heads"): the mean is over the positions of the same text without edits, one constant, so that
reading with a cache gives what reading without gives. solo silences all other heads of the layer; several heads' solos
leave all of these. Where one part has several edits they are made in their order.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microformer.errors import MicroformerError, nearest
from microformer.models.spec import ModelSpec
from microformer.models.taps import Edit as Editing

HOW = ("zero", "mean", "solo")
_HINT = 'such as "L0H2 zero", "L0H2 x0.5", "L1.attn mean" or "L1.mlp zero".'


class EditError(MicroformerError):
    """An edit that can't be read, or of what the model does not have."""


@dataclass(frozen=True)
class Edit:
    """What becomes of a part.

    Args:
        layer: from 0; a model that goes through its blocks several times counts on.
        head: from 0; None for a half or a whole layer.
        part: `head`, `attn`, `mlp` or `layer`.
        how: `zero`, `mean`, `scale` or `solo`.
        factor: of `scale`.
    """

    layer: int
    head: int | None
    part: str
    how: str
    factor: float = 1.0

    @property
    def target(self) -> str:
        """The part, as it is spelled: L0H2, L1.attn, L1.mlp or L1."""
        match self.part:
            case "head":
                return f"L{self.layer}H{self.head}"
            case "layer":
                return f"L{self.layer}"
        return f"L{self.layer}.{self.part}"

    @property
    def names(self) -> tuple[str, ...]:
        """The activations that it changes."""
        block = f"blocks.{self.layer}"
        match self.part:
            case "head":
                return (f"{block}.attn.hook_z",)
            case "layer":
                return (f"{block}.hook_attn_out", f"{block}.hook_mlp_out")
        return (f"{block}.hook_{self.part}_out",)

    def __str__(self) -> str:
        how = f"x{str(self.factor).removesuffix('.0')}" if self.how == "scale" else self.how
        return f"{self.target} {how}"


def parse(words: str, spec: ModelSpec) -> Edit:
    """The edit that is spelled so; `str` gives the spelling back.

    Raises:
        EditError: it is no edit, or the model has no such layer or head.
    """
    said = re.fullmatch(r"\s*L(\d+)(?:H(\d+)|\.(\w+))?\s+(\S+)\s*", words, re.IGNORECASE)
    if not said:
        raise EditError(f"{words!r} is no edit.", f"say a part and what becomes of it, {_HINT}")
    layer, head, half, how = said.groups()
    layer, head, half, how = int(layer), None if head is None else int(head), half and half.lower(), how.lower()
    if layer >= spec.depth:
        raise EditError(f"{words!r}: the model has no layer {layer}.", f"its layers are L0 to L{spec.depth - 1}.")
    if head is not None and head >= spec.num_heads:
        raise EditError(f"{words!r}: a layer has no head {head}.", f"its heads are H0 to H{spec.num_heads - 1}.")
    if half not in (None, "attn", "mlp"):
        raise EditError(f"{words!r}: a layer has no part {half!r}.", f"write L{layer}.attn or L{layer}.mlp.")
    part = "head" if head is not None else half or "layer"
    if (factor := _factor(how)) is not None:
        return Edit(layer, head, part, "scale", factor)
    if how not in HOW:
        meant = nearest(how, HOW)
        hint = f"did you mean {meant}?" if meant else "there are: zero, mean, solo, and a factor such as x0.5."
        raise EditError(f"{words!r}: nothing is called {how!r}.", hint)
    if how == "solo" and part != "head":
        raise EditError(f"{words!r}: only a head can be heard alone.", f"write one, such as L{layer}H0 solo.")
    return Edit(layer, head, part, how)


def _factor(how: str) -> float | None:
    """The number after an x; None where it is none."""
    try:
        factor = float(how[1:]) if how[:1] in ("x", "×") else math.nan
    except ValueError:
        return None
    return factor if math.isfinite(factor) else None


def tap_of(edits: Sequence[Edit], unedited: Mapping[str, Tensor] | None = None) -> Editing:
    """The tap that makes these edits.

    Args:
        unedited: activations of the same text without edits, which a mean is of (a trace's `cache`).

    Raises:
        EditError: a mean, and nothing to take it of.
    """
    made: dict[str, list[Callable[[Tensor], Tensor]]] = {}
    solos: dict[int, list[int]] = {}
    for edit in edits:
        if edit.how == "solo" and edit.head is not None:
            solos.setdefault(edit.layer, []).append(edit.head)
    for layer, heads in solos.items():
        made.setdefault(f"blocks.{layer}.attn.hook_z", []).append(_only(heads))
    for edit in edits:
        for name in edit.names if edit.how != "solo" else ():
            made.setdefault(name, []).append(_changed(edit, name, unedited))
    return Editing({name: _one_after_another(changes) for name, changes in made.items()})


def _changed(edit: Edit, name: str, unedited: Mapping[str, Tensor] | None) -> Callable[[Tensor], Tensor]:
    """What an edit makes of an activation. [batch pos head d_head] of heads, else [batch pos d_model]"""
    mean = None
    if edit.how == "mean":
        if unedited is None:
            raise EditError(f'"{edit}" needs a text to take the mean of.', "hand the trace without edits along.")
        mean = unedited[name].mean(1, keepdim=True)

    def change(whole: Tensor) -> Tensor:
        value = whole if edit.head is None else whole[:, :, edit.head]
        match edit.how:
            case "zero":
                value = torch.zeros_like(value)
            case "scale":
                value = edit.factor * value
            case _:
                assert mean is not None
                value = (mean if edit.head is None else mean[:, :, edit.head]).to(value).expand_as(value)
        return value if edit.head is None else whole.index_copy(2, _index(whole, [edit.head]), value.unsqueeze(2))

    return change


def _only(heads: Sequence[int]) -> Callable[[Tensor], Tensor]:
    def change(whole: Tensor) -> Tensor:
        silenced = [head for head in range(whole.shape[2]) if head not in heads]
        return whole.index_fill(2, _index(whole, silenced), 0.0)

    return change


def _index(like: Tensor, numbers: Sequence[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.long, device=like.device)


def _one_after_another(changes: Sequence[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
    def change(value: Tensor) -> Tensor:
        for one in changes:
            value = one(value)
        return value

    return change
