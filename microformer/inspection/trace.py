"""One text through one model, with everything that happened on the way.

    seen = trace(load_run("hamlet"), "To be, or not to be")
    seen.tokens, seen.losses, seen.pattern(0), seen.cache["blocks.0.hook_resid_mid"]
    without = trace(load_run("hamlet"), "To be, or not to be", ["L0H2 zero"])

A trace is what the other functions here look at. It is made on the CPU, in float32 and without gradients, when it is
first asked for something, and never changes. In a notebook it draws itself.
"""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Union, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from microformer.inspection.activations import Activations, Names, TraceError, block_of, in_turn, run_with_cache
from microformer.inspection.edits import Edit, parse, tap_of
from microformer.models.kernels import Differential
from microformer.models.model import Microformer, token_losses
from microformer.models.spec import Compressive
from microformer.models.taps import Edit as Editing
from microformer.runs import Run
from microformer.tokenization import Tokenizer, Unknown

# The most segments that a text is traced in where a memory carries.
SEGMENTS = 4

Text = Union[str, Int[Tensor, "pos"], Sequence[int]]  # noqa: UP007


@dataclass(frozen=True)
class Trace:
    """One forward pass.

    Args:
        model: that made it; on the CPU, in eval mode.
        ids: what it read. [pos]
        edits: what was changed on the way.
        run: whose checkpoint the model is; None where a model was handed in.
        text: what was asked for; None where it was ids.
        left_out: how many tokens of it are past what can be read and were not.
        unedited: the trace of the same text without edits; None where there are none.
        patched: the tap that puts another's activations in (patch.py), made anew for each pass.
    """

    model: Microformer
    ids: Int[Tensor, "pos"]
    edits: tuple[Edit, ...] = ()
    run: Run | None = None
    text: str | None = None
    left_out: int = 0
    unedited: "Trace | None" = field(default=None, repr=False)
    patched: Any = field(default=None, repr=False, compare=False)

    @cached_property
    def tokens(self) -> list[str]:
        """Each token as text, decoded alone; the vocabulary's own spelling where it is no text alone."""
        return spelled(None if self.run is None else self.run.tokenizer, self.ids.tolist())

    @property
    def logits(self) -> Float[Tensor, "pos vocab"]:
        """The scores of each next token."""
        return self._read[0]

    @property
    def cache(self) -> Activations:
        """All activations, after the edits, by TransformerLens's names and in its shapes, with a batch of 1."""
        return self._read[1]

    @cached_property
    def losses(self) -> Float[Tensor, "next"]:
        """−log p of each token but the first, given those before it, in nats."""
        return token_losses(self.logits[None, :-1], self.ids[None, 1:])[0]

    @property
    def remembered(self) -> tuple[str, ...]:
        """What the columns before the text's own stand for in patterns and scores: memory tokens, or the positions
        whose keys became one. Empty for a model without such a memory."""
        return self.cache.remembered

    def pattern(self, layer: int) -> Float[Tensor, "head query key"]:
        """How much of each key's value a query takes: `hook_pattern`. The keys are those of `remembered`, then the
        text's.

        Raises:
            TraceError: the layer's attention makes none.
        """
        return self._of_pairs(layer, "pattern")

    def scores(self, layer: int) -> Float[Tensor, "head query key"]:
        """What the pattern is made of: `hook_attn_scores`, −inf where a query may not look.

        Raises:
            TraceError: the layer's attention compares no pairs, or does so twice.
        """
        kernel = block_of(self.model, layer).attention.kernel
        if not kernel.scores:
            raise TraceError(
                f"layer {layer} has no scores: {type(kernel).__name__} sums keys and values up.",
                "its pattern shows what they amount to.",
            )
        if isinstance(kernel, Differential):
            raise TraceError(
                f"layer {layer} has two sets of scores, of which differential attention takes the difference.",
                f"cache['blocks.{layer}.attn.hook_attn_scores'] has both, one set of heads after the other.",
            )
        return self._of_pairs(layer, "attn_scores")

    def weighted(self, layer: int) -> Float[Tensor, "head query key"]:
        """pattern · ‖v‖ of each key: how much is taken, and not how large a share (Kobayashi et al. 2020, "Attention
        is Not Only a Weight").

        Raises:
            TraceError: as for `pattern`.
        """
        pattern, name = self.pattern(layer), f"blocks.{layer}.attn.hook_v"
        values = self.cache[name][0]
        lengths = [self._norms(values)]
        if self.cache.before:  # memory tokens, whose values are each segment's own
            context = self.model.spec.max_seq_len
            each = torch.stack([self._norms(one[0]) for one in self.cache.before[name]])
            tokens = each[torch.arange(len(self.ids)) // context].transpose(0, 1)
            text = lengths[0].unsqueeze(1).expand(-1, len(self.ids), -1)
            return pattern * torch.cat([tokens, text], dim=-1)
        if self.remembered and isinstance(memory := self.model.spec.memory, Compressive):
            first = torch.tensor([int(label.split("–")[0]) for label in self.remembered])
            groups = values[first[:, None] + torch.arange(memory.rate)].mean(1)
            lengths.insert(0, self._norms(groups))
        elif self.remembered:
            raise TraceError("what this memory keeps of values is not known.", "pattern shows the shares alone.")
        return pattern * torch.cat(lengths, dim=-1).unsqueeze(1)

    def _norms(self, values: Float[Tensor, "key kv_head d_head"]) -> Float[Tensor, "head key"]:
        groups = self.model.spec.num_heads // self.model.spec.kv_heads
        return values.norm(dim=-1).repeat_interleave(groups, dim=-1).T

    def _of_pairs(self, layer: int, what: str) -> Float[Tensor, "head query key"]:
        kernel, name = block_of(self.model, layer).attention.kernel, f"blocks.{layer}.attn.hook_{what}"
        if name not in self.cache or self.cache[name].dim() != 4:
            raise TraceError(
                f"layer {layer} shows no pattern: {type(kernel).__name__} has no hook_{what}.",
                "a kernel of your own shows one by handing it to its tap.",
            )
        return self.cache[name][0]

    def tap(self) -> Editing | None:
        """The tap that makes the edits, as `generation.stream` takes it; None where there are none."""
        if not self.edits:
            return None
        means = any(edit.how == "mean" for edit in self.edits)
        return tap_of(self.edits, self.unedited.cache if means and self.unedited else None)

    @property
    def changed(self) -> frozenset[str]:
        """The activations that edits or a patch replaced."""
        patched = self.patched().edits if self.patched else ()
        return frozenset([*(name for edit in self.edits for name in edit.names), *patched])

    @cached_property
    def _read(self) -> tuple[Float[Tensor, "pos vocab"], Activations]:
        logits, cache = self.run_with_cache(None)
        return logits[0], cache

    def run_with_cache(self, names: Names) -> tuple[Float[Tensor, "1 pos vocab"], Activations]:
        """As the function of that name, of this text with its edits: for who wants a few activations alone.

        Raises:
            TapError: the model has no such activation, or an edit was never reached.
        """
        edit, patch = self.tap(), self.patched and self.patched()
        explained = self.run.explained if self.run else nullcontext
        with torch.no_grad(), explained():
            logits, cache = run_with_cache(self.model, self.ids, names, in_turn(edit, patch))
        for made in (edit, patch):
            if made is not None:
                made.check_all_fired()
        return logits, cache

    def _repr_html_(self) -> str:
        from microformer.inspection.notebook import drawn

        return drawn(self)


def trace(run: Run | Microformer, text: Text, edits: Sequence[str | Edit] | str = ()) -> Trace:
    """One text through a run's model.

    Args:
        run: from `load_run`, which chooses the checkpoint; or a model, on the CPU and in eval mode.
        text: what to read. The tokens with which the model expects a text to begin are put before it. Or ids, as they
            are. Of a text longer than the context its beginning is read (where a memory carries: of one longer than
            four contexts); `left_out` says what is not.
        edits: what to change on the way, such as "L0H2 zero" (edits.py).

    Raises:
        TraceError: an empty text, or no ids but a text for a model without a run.
        DataError: the text has characters that the vocabulary lacks, and the run's UNKNOWN refuses them.
        EditError: an edit that can't be read, or of what the model does not have.
        RunError, CodeError: the run has no such checkpoint, or its code must not be run.
    """
    model, of = (run, None) if isinstance(run, Microformer) else (run.model, run)
    ids = _ids(of, text)
    if not len(ids):
        raise TraceError("there is no token to look at.", "give a text of one token at least.")
    if (least := int(ids.min())) < 0 or int(ids.max()) >= model.spec.vocab_size:
        wrong = least if least < 0 else int(ids.max())
        raise TraceError(f"there is no token {wrong}.", f"ids are 0 to {model.spec.vocab_size - 1}.")
    most = model.spec.max_seq_len * (SEGMENTS if model.spec.carries else 1)
    written = text if isinstance(text, str) else None
    plain = Trace(model, ids[:most], (), of, written, max(0, len(ids) - most))
    return edited(plain, edits)


def edited(unedited: Trace, edits: Iterable[str | Edit] | str) -> Trace:
    """The same text with other edits; those of `unedited` are left out.

    Raises:
        EditError: as for `trace`.
    """
    plain = unedited.unedited or unedited
    listed = [edits] if isinstance(edits, str) else list(edits)
    made = tuple(parse(one, plain.model.spec) if isinstance(one, str) else one for one in listed)
    if not made:
        return plain
    return Trace(plain.model, plain.ids, made, plain.run, plain.text, plain.left_out, plain, plain.patched)


def _ids(run: Run | None, text: Text) -> Int[Tensor, "pos"]:
    if not isinstance(text, str):
        return torch.as_tensor(text, dtype=torch.long)
    if run is None:
        raise TraceError("a model alone knows no text.", "give its ids, or a run.")
    if not text:
        raise TraceError("the text is empty.", "give one character at least of what the model learned from.")
    encoded = run.tokenizer.encode(text, cast(Unknown, run.settings.data.unknown))
    if not len(encoded):
        raise TraceError("the text has no character that the model knows.", "give one of the text it learned from.")
    return torch.from_numpy(np.concatenate([np.array(run.tokenizer.beginning, np.int64), encoded.astype(np.int64)]))


def spelled(tokenizer: Tokenizer | None, ids: Iterable[int]) -> list[str]:
    """Tokens as text, each decoded alone; where that is no text, as the vocabulary writes them, else as a number."""
    if tokenizer is None:
        return [str(one) for one in ids]
    library, shown = None, {}
    for one in (ids := list(ids)):
        if one in shown:
            continue
        shown[one] = tokenizer.decode([one])
        if not shown[one] or "\ufffd" in shown[one]:
            library = library or tokenizer.to_library()
            shown[one] = library.id_to_token(one) or f"<{one}>"
    return [shown[one] for one in ids]
