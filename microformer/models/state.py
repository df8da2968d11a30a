"""What a model remembers between calls, and where tokens stand in their text. Knows nothing of how either is used.

The caller owns a State: it hands one in and gets the next one back, and nothing in it ever changes, so a state can be
kept, gone back to or shared. A part per layer (here: the keys and values seen so far) and a part for the whole model
(how many tokens were seen, and where each row's text began).

Compiled code wants tensors that keep their sizes: a FixedState is the same memory with room for the whole context from
the start, and a tensor that says which slot is next.

A token's slot is its place in the row, counted over all texts; its position is counted from the start of its own text:
position = slot − start, and they differ once a row was reset. Slots before the start get negative positions, and no
query sees them.

A model with a memory (models/memory) reads a long text in segments. Its caches hold the keys that came over from
earlier segments, at slots of which the state keeps a list, before those of the segment itself; memory tokens stand
before both, and every text begins after them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microformer.errors import MicroformerError


class LayerState(ABC):
    """What one layer remembers; nothing of it ever changes."""

    @abstractmethod
    def map(self, change: Callable[[Tensor], Tensor]) -> "LayerState":
        """The same with `change` applied to every tensor; the rows are their first axis."""

    def reset(self, rows: Bool[Tensor, "batch"]) -> "LayerState":
        """The same for rows some of which begin anew. Where positions tell that, there is nothing to do."""
        return self

    def fixed(self, length: int, context: int, slot: Int[Tensor, "1"]) -> "LayerState":
        """The same in tensors that keep their sizes for a whole context, `length` of it filled and `slot` next."""
        return self

    def at(self, slot: Int[Tensor, "1"]) -> "LayerState":
        """A fixed one whose next token goes to `slot`."""
        return self


@dataclass(frozen=True)
class KVCache(LayerState):
    """One layer's keys and values, from the first slot on.

    Args:
        keys, values: what was seen.
        room: the larger tensors that they are the beginning of, where there are such.
    """

    keys: Float[Tensor, "batch head key d_head"]
    values: Float[Tensor, "batch head key d_head"]
    room: "_Room | None" = None

    def extend(self, keys: Tensor, values: Tensor) -> "KVCache":
        """The cache with more keys and values at its end. [batch head pos d_head] each."""
        if torch.is_grad_enabled():  # what a gradient goes back through must not be written over
            return KVCache(torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2))
        seen = self.keys.shape[2]
        room = self.room
        if room is None or not room.takes(seen, keys.shape[2]) or room.closed:
            room = _Room(self.keys, self.values, capacity=2 * (seen + keys.shape[2]))
        return KVCache(*room.append(keys, values), room)

    def map(self, change: Callable[[Tensor], Tensor]) -> "KVCache":
        return KVCache(change(self.keys), change(self.values))

    def last(self, count: int) -> "KVCache":
        """The newest keys and values alone."""
        return self.map(lambda tensor: tensor[:, :, tensor.shape[2] - count :])

    def fixed(self, length: int, context: int, slot: Int[Tensor, "1"]) -> "FixedKVCache":
        keys, values = (one.new_zeros((*one.shape[:2], context, one.shape[3])) for one in (self.keys, self.values))
        keys[:, :, :length], values[:, :, :length] = self.keys, self.values
        return FixedKVCache(keys, values, slot=slot)


class _Room:
    """Keys and values with free slots behind them, so that a token more costs no copy of those before it.

    Only the newest cache may fill a free slot: one that was gone back to finds them taken and gets a room of its own.
    So a cache never changes, and yet many share one memory.
    """

    def __init__(self, keys: Tensor, values: Tensor, capacity: int):
        batch, heads, self.filled, _ = keys.shape
        self.keys, self.values = (
            torch.empty((batch, heads, capacity, one.shape[3]), dtype=one.dtype, device=one.device)
            for one in (keys, values)
        )
        self.keys[:, :, : self.filled] = keys
        self.values[:, :, : self.filled] = values

    def takes(self, seen: int, new: int) -> bool:
        """Whether `new` slots are free behind the first `seen`."""
        return self.filled == seen and seen + new <= self.keys.shape[2]

    @property
    def closed(self) -> bool:
        """Whether it was made in inference mode, outside which nothing may be written to it."""
        return self.keys.is_inference() and not torch.is_inference_mode_enabled()

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Fills the next free slots; gives all that are filled."""
        before, self.filled = self.filled, self.filled + keys.shape[2]
        self.keys[:, :, before : self.filled] = keys
        self.values[:, :, before : self.filled] = values
        return self.keys[:, :, : self.filled], self.values[:, :, : self.filled]


@dataclass(frozen=True)
class FixedKVCache(KVCache):
    """One layer's keys and values in tensors of the whole context's size, written over as they fill.

    Args:
        keys, values: what was seen, and zeros behind it.
        slot: where the next token's go. [1]
    """

    slot: Int[Tensor, "1"] = field(kw_only=True)

    def extend(self, keys: Tensor, values: Tensor) -> "FixedKVCache":
        """The cache with one more key and value. [batch head 1 d_head] each"""
        self.keys.index_copy_(2, self.slot, keys)
        self.values.index_copy_(2, self.slot, values)
        return self

    def map(self, change: Callable[[Tensor], Tensor]) -> "FixedKVCache":
        return replace(self, keys=change(self.keys), values=change(self.values))

    def at(self, slot: Int[Tensor, "1"]) -> "FixedKVCache":
        return replace(self, slot=slot)


@dataclass(frozen=True)
class RunningSum(LayerState):
    """What a layer remembers that adds its keys and values up instead of keeping them.

    Args:
        sums: of the products of key and value, over all tokens seen.
    """

    sums: Float[Tensor, "batch head d_key d_value"]

    def map(self, change: Callable[[Tensor], Tensor]) -> "RunningSum":
        return RunningSum(change(self.sums))

    def reset(self, rows: Bool[Tensor, "batch"]) -> "RunningSum":
        return RunningSum(self.sums.masked_fill(rows[:, None, None, None], 0.0))


@dataclass(frozen=True)
class Retrieved(LayerState):
    """What a layer remembers that looks up similar keys of earlier segments. Keys are kept as they were before they
    were turned: where they stood is forgotten.

    Args:
        keys, values: this segment's, to be stored at its end.
        stored_keys, stored_values: those of earlier segments, the last one's at the end.
        local: what the layer remembers of this segment besides; None where it begins.
    """

    keys: Float[Tensor, "batch head pos d_head"]
    values: Float[Tensor, "batch head pos d_head"]
    stored_keys: Float[Tensor, "batch head stored d_head"]
    stored_values: Float[Tensor, "batch head stored d_head"]
    local: LayerState | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Retrieved":
        mine = {name: change(getattr(self, name)) for name in ("keys", "values", "stored_keys", "stored_values")}
        return Retrieved(**mine, local=self.local and self.local.map(change))

    def reset(self, rows: Bool[Tensor, "batch"]) -> "Retrieved":
        return replace(self, local=self.local and self.local.reset(rows))


@dataclass(frozen=True)
class State:
    """The memory of a whole model.

    Args:
        layers: one part a layer; None where nothing was seen yet.
        length: tokens seen so far, the same for all rows.
        starts: for each row the slot at which its text begins; None means slot 0 for all. [batch]
        recent: the last tokens, as many as the model's n-grams reach back; None where nothing was seen yet.
        segment: the slot at which the segment that is being read began.
        past: slots of the keys in the caches that came over from earlier segments; None where none do.
        pooled: how many of these, from the first on, stand for several tokens each.
        tokens: the memory tokens that this segment reads; None for those that were learned.
    """

    layers: tuple[LayerState | None, ...]
    length: int = 0
    starts: Int[Tensor, "batch"] | None = None
    recent: Int[Tensor, "batch recent"] | None = None
    segment: int = 0
    past: Int[Tensor, "past"] | None = None
    pooled: int = 0
    tokens: Float[Tensor, "batch token d_model"] | None = None

    @classmethod
    def empty(cls, num_layers: int) -> "State":
        """The state of a model that has seen nothing."""
        return cls((None,) * num_layers)

    def positions(self, new: int, device: torch.device, tokens: int = 0, after: int = 0) -> "Positions":
        """Where the next `new` tokens stand, and the keys that they may look at: those seen and themselves.

        Args:
            tokens: memory tokens before the text; where its segment begins now, they are among the queries.
            after: memory tokens that come after the new ones.
        """
        slots = torch.arange(self.segment, self.length + new + after, device=device)
        queries = new + after + (tokens if self.length == self.segment else 0)
        begin = self.starts
        if self.past is not None:
            slots = torch.cat([self.past, slots])
        elif self.segment:  # nothing came over, and positions begin anew with each segment
            begin = slots[:1] if begin is None else begin.clamp_min(self.segment)
        keys = slots if begin is None else (slots - begin[:, None] if self.starts is not None else slots - begin)
        if tokens:
            keys = torch.where(keys < 0, keys, keys + tokens)
            first = torch.arange(tokens, device=device).expand(*keys.shape[:-1], -1)
            keys = torch.cat([first, keys], dim=-1)
        query = keys[..., keys.shape[-1] - queries :]
        return Positions(query, keys, tokens=tokens, segment=self.segment, starts=self.starts)

    def since_start(self, new: int, device: torch.device) -> Int[Tensor, "*batch pos"]:
        """How many tokens of its text come before each of the next `new`."""
        slots = torch.arange(self.length, self.length + new, device=device)
        return slots if self.starts is None else slots - self.starts[:, None]

    def check_room(self, new: int, context: int) -> None:
        """Raises MicroformerError if `new` more tokens are more than a context holds."""
        if self.length + new > context:
            raise MicroformerError(
                f"{self.length + new} tokens are more than the model's context of {context}.",
                "keep the last ones only, or train with a larger MAX_SEQ_LEN.",
            )

    def fixed(self, context: int, device: torch.device) -> "FixedState":
        """The same memory with room for so many tokens, for code that reads one at a time and wants tensors that keep
        their sizes."""
        assert self.starts is None
        slot = torch.tensor([self.length], device=device)
        parts = tuple(part.fixed(self.length, context, slot) for part in self.layers if part is not None)
        return FixedState(parts, recent=self.recent, slot=slot, context=context)

    def last(self, count: int, ids: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch recent"]:
        """The last `count` tokens before `ids`; zeros where nothing was seen, for positions tell that."""
        return ids.new_zeros((ids.shape[0], count)) if self.recent is None else self.recent

    def advanced(self, layers: tuple[LayerState | None, ...], ids: Tensor, recent: Tensor | None) -> "State":
        """The state after more tokens, with the layers' new parts; recent: what `last` gave, if it was asked."""
        seen = None if recent is None else torch.cat([recent, ids], dim=1)[:, ids.shape[1] :].contiguous()
        return replace(self, layers=layers, length=self.length + ids.shape[1], recent=seen)

    def next_segment(self, layers: tuple[LayerState | None, ...], **changes: Any) -> "State":
        """The state with which the segment after this one begins."""
        return replace(self, layers=layers, segment=self.length, **changes)

    def detach(self) -> "State":
        """The same memory, cut from the graph that made it."""
        return self._map(Tensor.detach)

    def to(self, device: torch.device | str) -> "State":
        """The same memory on another device."""
        moved = self._with_rows(self._map(lambda tensor: tensor.to(device)), lambda tensor: tensor.to(device))
        return replace(moved, past=None if self.past is None else self.past.to(device))

    def reorder(self, rows: Int[Tensor, "new_batch"]) -> "State":
        """The memory of the chosen rows, in that order; a row may be taken more than once."""
        return self._with_rows(self._map(lambda tensor: tensor.index_select(0, rows)), lambda tensor: tensor[rows])

    def reset(self, rows: Bool[Tensor, "batch"]) -> "State":
        """The memory with some rows as if they had seen nothing: their next token stands at position 0.

        Raises:
            MicroformerError: within a segment that reads what the one before it wrote into memory tokens: what the
                rows' own tokens took from it can't be taken back.
        """
        if not bool(rows.any()):
            return self
        if self.tokens is not None and self.length > self.segment:
            raise MicroformerError(
                f"rows can't be reset {self.length - self.segment} tokens into a segment that reads a memory.",
                "reset them where a segment begins.",
            )
        starts = torch.zeros(len(rows), dtype=torch.long, device=rows.device) if self.starts is None else self.starts
        layers = tuple(None if part is None else part.reset(rows) for part in self.layers)
        return replace(self, layers=layers, starts=torch.where(rows, self.length, starts))

    def _with_rows(self, state: "State", change) -> "State":
        """`state` with this one's rows' own numbers, changed."""
        starts, recent = (None if one is None else change(one) for one in (self.starts, self.recent))
        return replace(state, starts=starts, recent=recent)

    def _map(self, change) -> "State":
        layers = tuple(None if part is None else part.map(change) for part in self.layers)
        return replace(self, layers=layers, tokens=None if self.tokens is None else change(self.tokens))

    def remembered(self) -> list[Tensor]:
        """The tensors of its layers and the last tokens, in the same order for each state of a model."""
        found: list[Tensor] = [] if self.recent is None else [self.recent]
        self._map(lambda tensor: found.append(tensor) or tensor)
        return found

    def to_tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors; `from_tensors` gives it back."""
        return _tensors(replace(self, layers=()), "") | {
            name: tensor
            for number, part in enumerate(self.layers)
            for name, tensor in _tensors(part, f"layers.{number}.").items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], num_layers: int) -> "State":
        """The state that `to_tensors` took apart.

        Raises:
            KeyError, TypeError: they are no state's.
        """
        layers = tuple(_layer(tensors, f"layers.{number}.") for number in range(num_layers))
        own: dict[str, Any] = {name: value for name, value in tensors.items() if "." not in name}
        own |= {name: int(own[name]) for name in ("length", "segment", "pooled")}
        return cls(layers, **own)


@dataclass(frozen=True)
class FixedState(State):
    """A memory whose tensors keep their sizes, so that the same compiled code serves every token. One token a call;
    its owner counts them, for the model can't: `length` stays 0. Unlike other states it is used up by a call, and its
    rows can't be reset.

    Args:
        slot: where the next token goes. [1]
        context: how many tokens there is room for.
    """

    layers: tuple[LayerState, ...]  # type: ignore[assignment]
    slot: Int[Tensor, "1"] = field(kw_only=True)
    context: int = field(kw_only=True)

    def take(self, other: State) -> None:
        """Writes what another one of no more tokens remembers over what this one does. What lies behind it stays, and
        nobody looks there."""
        if isinstance(other, FixedState):
            self.slot.copy_(other.slot)
        else:
            self.slot.fill_(other.length)
        for mine, theirs in zip(self.remembered(), other.remembered(), strict=True):
            if mine is not theirs:
                mine[tuple(slice(size) for size in theirs.shape)] = theirs

    def tensors(self) -> list[Tensor]:
        """All that changes in it from token to token."""
        return [self.slot, *self.remembered()]

    def fixed(self, context: int, device: torch.device) -> "FixedState":
        """The same with room for so many tokens, not fewer than now; what was seen stays where it is."""
        if context == self.context:
            return self
        slot = self.slot.clone()
        parts = tuple(part.fixed(self.context, context, slot) for part in self.layers)
        return replace(self, layers=parts, slot=slot, context=context)

    def positions(self, new: int, device: torch.device, tokens: int = 0, after: int = 0) -> "Positions":
        return Positions(query=self.slot, key=torch.arange(self.context, device=device), filled=False)

    def since_start(self, new: int, device: torch.device) -> Int[Tensor, "pos"]:
        return self.slot

    def reset(self, rows: Bool[Tensor, "batch"]) -> "State":
        raise NotImplementedError("the rows of a state of fixed size can't be reset")

    def to(self, device: torch.device | str) -> "FixedState":
        moved, slot = super().to(device), self.slot.to(device)
        return replace(self, layers=tuple(one.at(slot) for one in moved.layers if one), recent=moved.recent, slot=slot)

    def advanced(self, layers: tuple, ids: Tensor, recent: Tensor | None) -> "FixedState":
        slot = self.slot + 1
        seen = super().advanced(layers, ids, recent).recent
        return replace(self, layers=tuple(one.at(slot) for one in layers), recent=seen, slot=slot)


@dataclass(frozen=True)
class Positions:
    """Where queries and keys stand in their text, in tokens; a batch axis only where rows differ.

    Args:
        query, key: their positions.
        filled: whether the keys are those seen, and not also some to come.
        tokens: how many of the keys, from the first on, are memory tokens: every query sees them.
        segment, starts: as the State's.
    """

    query: Int[Tensor, "*batch query"]
    key: Int[Tensor, "*batch key"]
    filled: bool = True
    tokens: int = 0
    segment: int = 0
    starts: Int[Tensor, "batch"] | None = None

    def stored(self, count: int) -> Bool[Tensor, "batch stored"] | None:
        """Which of the last `count` tokens before this segment are of each row's own text; None for all."""
        if self.starts is None:
            return None
        return torch.arange(self.segment - count, self.segment, device=self.starts.device) >= self.starts[:, None]

    @property
    def fresh(self) -> bool:
        """Whether queries and keys are the same tokens, all rows from position 0: the plain causal triangle."""
        return self.filled and self.key.dim() == 1 and self.query.shape == self.key.shape

    @property
    def mask(self) -> Float[Tensor, "*batch query key"] | None:
        """0 where a query may look and −inf where not, to be added to scores; None where every query sees every key.

        Made once a forward pass and shared by its layers.
        """
        # functools' cache takes a lock, which code can't be compiled with; compiled, equal sums are made once anyway.
        return self._made() if torch.compiler.is_compiling() else self._kept

    @cached_property
    def _kept(self) -> Tensor | None:
        return self._made()

    def _made(self) -> Tensor | None:
        if self.filled and self.key.dim() == 1 and self.query.shape[-1] == 1:
            return None
        key, query = self.key[..., None, :], self.query[..., :, None]
        visible = (key <= query) & (key >= 0)
        return torch.where(visible, 0.0, float("-inf"))


# What a layer's memory may be, by the names under which it is kept.
_KINDS: dict[str, type[LayerState]] = {kind.__name__: kind for kind in (KVCache, RunningSum, Retrieved)}


def _tensors(part: Any, prefix: str) -> dict[str, Tensor]:
    """The tensors and whole numbers of a state or a part of one, by name; a part's kind is in its names."""
    if not is_dataclass(part):
        return {}
    if isinstance(part, LayerState):
        prefix += f"{type(part).__name__}."
    found: dict[str, Tensor] = {}
    for one in fields(part):
        match getattr(part, one.name):
            case Tensor() as tensor:
                found[prefix + one.name] = tensor
            case int() as number:
                found[prefix + one.name] = torch.tensor(number)
            case LayerState() as inner:
                found |= _tensors(inner, f"{prefix}{one.name}.")
    return found


def _layer(tensors: Mapping[str, Tensor], prefix: str) -> LayerState | None:
    """The part of a state that was kept under a prefix."""
    mine = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not mine:
        return None
    kind = next(iter(mine)).partition(".")[0]
    arguments: dict[str, Any] = {}
    for name, tensor in mine.items():
        first, _, inner = name.removeprefix(f"{kind}.").partition(".")
        arguments[first] = _layer(mine, f"{kind}.{first}.") if inner else tensor
    return _KINDS[kind](**arguments)
