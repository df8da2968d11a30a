"""A model's activations, kept or changed while it runs.

    logits, cache = run_with_cache(model, ids)               cache["blocks.0.attn.hook_pattern"], or cache["pattern", 0]
    logits = run_with_hooks(model, ids, [("blocks.0.hook_mlp_out", lambda value, hook: 0 * value)])

Names and shapes are those of TransformerLens (Nanda and Bloom 2022), whose calls these are. A model whose memory
carries reads a long text in segments; here it looks as if it had been read at once: vectors of the stream are laid end
to end, without those of memory tokens, and a pattern's columns are the text's positions, after the columns of what is
remembered and is no token of the text. Knows models and ids, no runs and no text.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Union, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microformer.errors import MicroformerError
from microformer.models.model import Block, Microformer
from microformer.models.spec import Compressive
from microformer.models.taps import Edit, Record, Tap, check_names

Names = Union[str, Iterable[str], Callable[[str], bool], None]  # noqa: UP007  (the checker of types reads it)

PATTERNS = ("hook_attn_scores", "hook_pattern")
_OF_ATTENTION = ("q", "k", "v", "rot_q", "rot_k", "attn_scores", "pattern", "z")
_OF_MLP = {"pre": "pre", "post": "post", "mlp_pre": "pre", "mlp_post": "post", "gates": "gates"}
_OTHERWISE = {"attn": "pattern", "attn_logits": "attn_scores", "key": "k", "query": "q", "value": "v"}


class TraceError(MicroformerError):
    """Something to be looked at that this model or this text does not have."""


class Activations(dict[str, Tensor]):
    """Activations by name, the batch first; `cache["pattern", 0]` is TransformerLens's short form.

    Args:
        kept: activations by their names.
        remembered: what the columns before the text's own stand for in `hook_attn_scores` and `hook_pattern`.
        before: of memory tokens, each segment's values by the name of `hook_v`. [batch token kv_head d_head]
    """

    def __init__(
        self,
        kept: Mapping[str, Tensor],
        remembered: Sequence[str] = (),
        before: Mapping[str, list[Tensor]] | None = None,
    ):
        super().__init__(kept)
        self.remembered = tuple(remembered)
        self.before = dict(before or {})

    def __missing__(self, key: object) -> Tensor:
        if isinstance(key, tuple) and len(key) in (1, 2):
            if (full := act_name(*key, depth=self._depth())) in self:
                return self[full]
        elif isinstance(key, str) and (full := act_name(key)) in self:
            return self[full]
        raise TraceError(f"the activation {key!r} was not kept.", f"there are: {', '.join(list(self)[:6])} …")

    def _depth(self) -> int:
        layers = [int(name.split(".")[1]) for name in self if name.startswith("blocks.")]
        return max(layers, default=-1) + 1


def act_name(name: str, layer: int | None = None, depth: int = 0) -> str:
    """The whole name of what TransformerLens's `get_act_name` shortens: ("z", 0) is blocks.0.attn.hook_z.

    Args:
        layer: from 0; below 0 it counts from `depth` back; None for what is of no layer.
    """
    if name.startswith(("hook_", "blocks.", "ln_final.")):
        return name
    if layer is None:
        return "ln_final.hook_normalized" if name == "normalized" else f"hook_{name}"
    block = f"blocks.{layer + depth if layer < 0 else layer}"
    name = _OTHERWISE.get(name, name)
    if name in _OF_ATTENTION:
        return f"{block}.attn.hook_{name}"
    return f"{block}.mlp.hook_{_OF_MLP[name]}" if name in _OF_MLP else f"{block}.hook_{name}"


def run_with_cache(
    model: Microformer, ids: Int[Tensor, "*batch pos"], names: Names = None, tap: Tap | None = None
) -> tuple[Float[Tensor, "batch pos vocab"], Activations]:
    """Reads a text and keeps what comes by.

    Args:
        model: in eval mode; whether gradients are kept is the caller's (`torch.no_grad()`).
        ids: the text, from its beginning; more than a context only where the model's memory carries.
        names: which activations: a name, several, or a function that says of each name whether; None: all.
        tap: changes activations before they are kept.

    Returns:
        the logits, and the activations; those of patterns [batch head query key], the others [batch pos …].

    Raises:
        TapError: the model has no such activation.
        TraceError: a text without tokens.
        MicroformerError: more tokens than the context holds.
    """
    ids = ids if ids.dim() == 2 else ids.unsqueeze(0)
    if not ids.shape[1]:
        raise TraceError("there is no token to read.", "give a text of one token at least.")
    wanted = chosen(model, names)
    state = model.empty_state() if model.spec.carries else None
    pieces = ids.split(model.spec.max_seq_len, dim=1) if model.spec.carries else [ids]
    logits, segments, read = [], [], 0
    for piece in pieces:
        record = Record(wanted)
        past = None if state is None else state.past
        output = model(piece, state, in_turn(tap, record))
        slots = [] if past is None else past.tolist()
        pooled = slots[: 0 if state is None else state.pooled]
        segments.append(
            _Segment(read, piece.shape[1], model.memory.tokens, pooled, slots[len(pooled) :], record.activations)
        )
        read, state = read + piece.shape[1], output.state
        logits.append(output.logits)
    return torch.cat(logits, dim=1), _joined(model, segments)


def block_of(model: Microformer, layer: int) -> Block:
    """The block of a layer; those that are gone through again are as many layers more.

    Raises:
        TraceError: there is no such layer.
    """
    if not 0 <= layer < model.spec.depth:
        raise TraceError(f"the model has no layer {layer}.", f"its layers are 0 to {model.spec.depth - 1}.")
    return cast(Block, model.blocks[layer % len(model.blocks)])


@dataclass(frozen=True)
class HookPoint:
    """Where a hook is called, as TransformerLens hands it to one."""

    name: str

    def layer(self) -> int:
        """The layer that it is in, from 0."""
        return int(self.name.split(".")[1])


Hook = Callable[..., Union[Tensor, None]]  # noqa: UP007


def run_with_hooks(
    model: Microformer, ids: Int[Tensor, "*batch pos"], hooks: Iterable[tuple[Names, Hook]]
) -> Float[Tensor, "batch pos vocab"]:
    """The logits of a text with activations changed on the way.

    Args:
        model, ids: as for `run_with_cache`.
        hooks: (names, function): `function(value, hook=HookPoint)` gives what takes the value's place, of its shape,
            or None where it leaves it or has changed it in place. Where the text has several segments it is called once
            for each, and what it is given has the memory tokens before the text's, where there are such.

    Raises:
        TapError: the model has no such activation, a changed one has another shape, or a hook was never reached.
    """
    ids = ids if ids.dim() == 2 else ids.unsqueeze(0)
    calls: dict[str, list[Hook]] = {}
    for names, hook in hooks:
        for name in model.tap_names() if names is None else _selected(model, names):
            calls.setdefault(name, []).append(hook)
    edit = Edit({name: _applied(name, functions) for name, functions in calls.items()})
    logits = model(ids, tap=edit).logits
    edit.check_all_fired()
    return logits


def _applied(name: str, functions: Sequence[Hook]) -> Callable[[Tensor], Tensor]:
    def apply(value: Tensor) -> Tensor:
        value = value.clone()  # a hook may write into what it is given, which may be a part of something else
        for function in functions:
            changed = function(value, hook=HookPoint(name))
            value = value if changed is None else changed
        return value

    return apply


def chosen(model: Microformer, names: Names) -> list[str] | None:
    """The names of the activations that are meant; None: all.

    Raises:
        TapError: the model has no such activation.
    """
    return None if names is None else _selected(model, names)


def _selected(model: Microformer, names: Names) -> list[str]:
    known = model.tap_names()
    if callable(names):
        found = [name for name in known if names(name)]
        check_names(found or ["(none that was asked for)"], known)
        return found
    listed = [names] if isinstance(names, str) else list(names or ())
    check_names(listed, known)
    return listed


class _InTurn:
    """Several taps as one: each is shown what the one before it made."""

    def __init__(self, taps: Sequence[Tap]):
        self.taps = taps

    def wants(self, name: str) -> bool:
        return any(tap.wants(name) for tap in self.taps)

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        for tap in self.taps:
            if tap.wants(name):
                tensor = tap(name, tensor)
        return tensor


def in_turn(*taps: Tap | None) -> Tap:
    """Several taps as one: each is shown what the one before it made. None is nobody."""
    return _InTurn([tap for tap in taps if tap is not None])


@dataclass(frozen=True)
class _Segment:
    """A stretch of a text that was read at once.

    Args:
        start, length: its tokens.
        tokens: how many memory tokens stand before them.
        pooled: of the keys from earlier segments, the first tokens of the groups that became one key.
        past: the positions of the others.
        kept: its activations.
    """

    start: int
    length: int
    tokens: int
    pooled: list[int]
    past: list[int]
    kept: dict[str, Tensor]

    def rows(self, tensor: Tensor, axis: int) -> Tensor:
        """The rows of the text's own tokens."""
        begin = self.tokens if tensor.shape[axis] > self.length else 0
        return tensor.narrow(axis, begin, self.length)

    def columns(self, keys: int, groups: Sequence[int]) -> list[int]:
        """In which column each of the last `keys` keys belongs; -1 for those that no token of the text sees."""
        remembered = self.tokens + len(groups)
        pooled = [self.tokens + groups.index(first) for first in self.pooled]
        own = range(self.start, self.start + self.length)
        columns = [*range(self.tokens), *pooled, *(remembered + slot for slot in (*self.past, *own))]
        if self.tokens:  # those after the segment come last
            return columns + [-1] * (keys - len(columns))
        return columns[len(columns) - keys :]  # a window leaves out the keys that no query sees


def _joined(model: Microformer, segments: Sequence[_Segment]) -> Activations:
    """The activations of a text from those of its segments."""
    groups = sorted({first for segment in segments for first in segment.pooled})
    tokens = model.memory.tokens
    remembered = [f"memory {i}" for i in range(tokens)] + [_pooled(model, first) for first in groups]
    total, joined, before = sum(segment.length for segment in segments), {}, {}
    for name in segments[0].kept:
        pieces = [segment.kept[name] for segment in segments]
        if name.endswith(PATTERNS) and pieces[0].dim() == 4:
            whole = len(segments) == 1 and not tokens and pieces[0].shape[-2] == pieces[0].shape[-1]
            joined[name] = pieces[0] if whole else _placed(model, name, segments, groups, len(remembered) + total)
            continue
        if name.endswith("hook_v") and tokens:
            before[name] = [piece[:, :tokens] for piece in pieces]
        rows = [segment.rows(piece, 1) for segment, piece in zip(segments, pieces, strict=True)]
        joined[name] = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
    return Activations(joined, remembered, before)


def _placed(
    model: Microformer, name: str, segments: Sequence[_Segment], groups: Sequence[int], width: int
) -> Float[Tensor, "batch head query key"]:
    """A pattern of the whole text: 0 (scores: −inf) where a query sees no key."""
    scored = name.endswith("scores") and block_of(model, int(name.split(".")[1])).attention.kernel.scores
    never = float("-inf") if scored else 0.0
    rows = []
    for segment in segments:
        piece = segment.rows(segment.kept[name], 2)
        columns = torch.tensor(segment.columns(piece.shape[-1], groups), device=piece.device)
        out = piece.new_full((*piece.shape[:-1], width), never)
        rows.append(out.index_copy(-1, columns[columns >= 0], piece[..., columns >= 0]))
    return torch.cat(rows, dim=2)


def _pooled(model: Microformer, first: int) -> str:
    """What a key is called that stands for several tokens."""
    memory = model.spec.memory
    return f"{first}–{first + memory.rate - 1}" if isinstance(memory, Compressive) else f"from {first}"
