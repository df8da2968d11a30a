"""Ablation and activation patching: what changes if a part says nothing, or what it said elsewhere.

    ablate(run, text, "L0H2 zero").logits            patch(corrupted, clean, heads=["L0H2"], positions=[5]).logits

Activation patching, also called causal tracing or interchange intervention (Meng et al. 2022, "ROME"; Wang et al. 2022,
"Interpretability in the Wild"): a run on one text gets activations of a run on another, and what comes back of the
other's answer is what they carry.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from microformer.inspection.activations import PATTERNS, Names, TraceError, chosen
from microformer.inspection.edits import Edit, parse
from microformer.inspection.trace import Text, Trace, trace
from microformer.models.model import Microformer
from microformer.models.taps import Edit as Editing
from microformer.runs import Run


def ablate(run: Run | Microformer, text: Text, *edits: str | Edit) -> Trace:
    """`trace` with edits, such as "L0H2 zero", "L1.mlp mean" or "L1 x0.5" (edits.py); arguments and errors are its."""
    return trace(run, text, edits)


def patch(
    to: Trace,
    source: Trace,
    names: Names = (),
    *,
    heads: Iterable[str] = (),
    positions: Sequence[int] | None = None,
) -> Trace:
    """A trace of `to`'s text in which some activations are those of `source`.

    Args:
        to: the trace whose text and edits are kept (often the corrupted run).
        source: the trace whose activations are put in (often the clean run).
        names: which activations, as for `run_with_cache`.
        heads: which heads' z besides, as edits spell them: "L0H2".
        positions: at which positions, the same in both texts; None: at all, and the texts are of one length.

    Raises:
        TraceError: nothing is named, or the two differ in what is named.
        TapError: the model has no such activation.
        EditError: it has no such head.
    """
    spec = to.model.spec
    of_heads: dict[str, list[int]] = {}
    for head in heads:
        edit = parse(f"{head} x1", spec)
        if edit.head is None:
            raise TraceError(f"{head!r} is no head.", "write one such as L0H2, or name the activations.")
        of_heads.setdefault(edit.names[0], []).append(edit.head)
    listed = to.model.tap_names() if names is None else chosen(to.model, names) or []
    if not listed and not of_heads:
        raise TraceError("nothing is named that could be patched.", "give names or heads.")
    length = len(to.ids)
    if positions is None and len(source.ids) != length:
        raise TraceError(
            f"the texts have {length} and {len(source.ids)} tokens.", "take texts of one length, or give positions."
        )
    least = min(length, len(source.ids))
    at = list(range(length)) if positions is None else [int(one) for one in positions]
    if wrong := [one for one in at if not 0 <= one < least]:
        raise TraceError(f"there is no position {wrong[0]} in both texts.", f"they share 0 to {least - 1}.")
    values: dict[str, Tensor] = {}
    for name in [*of_heads, *listed]:
        if name.endswith(PATTERNS) and (to.remembered or spec.carries or len(source.ids) != length):
            raise TraceError(f"{name} can't be patched here: its keys are not the other's.", "patch its z.")
        if source.cache[name].shape[2:] != to.cache[name].shape[2:]:
            raise TraceError(f"{name} has another shape in the other trace.", "patch between runs of one model.")
        values[name] = source.cache[name]

    def tap() -> Editing:  # made anew for each pass, for it counts what was read
        made = to.patched().edits if to.patched else {}
        for name, value in values.items():
            which = None if name in listed else of_heads[name]
            put, earlier = _put_in(to, name, value, which, at), made.get(name)
            made[name] = put if earlier is None else _both(earlier, put)
        return Editing(made)

    return replace(to, patched=tap)


def _put_in(to: Trace, name: str, values: Tensor, heads: list[int] | None, at: list[int]) -> Callable[[Tensor], Tensor]:
    """An edit that writes `values` over some positions; called once a segment, memory tokens before its own."""
    axis, context, read = (2 if name.endswith(PATTERNS) else 1), to.model.spec.max_seq_len, 0

    def change(whole: Tensor) -> Tensor:
        nonlocal read
        length = min(context, len(to.ids) - read)
        before = to.model.memory.tokens if whole.shape[axis] > length else 0
        here = [one for one in at if read <= one < read + length]
        rows = torch.tensor([one - read + before for one in here], dtype=torch.long, device=whole.device)
        new = values.index_select(axis, torch.tensor(here, dtype=torch.long, device=whole.device))
        new = new.expand(whole.shape[0], *new.shape[1:])
        read += length
        if heads is None:
            return whole.index_copy(axis, rows, new)
        changed = whole.clone()
        for head in heads:
            changed[:, rows, head] = new[:, :, head]
        return changed

    return change


def _both(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda value: second(first(value))
