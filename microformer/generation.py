"""Generation: from logits to the next id, again and again. Ids in, ids out; knows no text.

    p = softmax(logits / temperature), cut by top-k, top-p and min-p; the id is where the running sum of p passes u

Each row draws its u from a generator of its own, so that a text does not depend on what is generated beside it. With
the cache, a step computes one token a row. When the context is full, the last half of it is kept and read anew, and
generation goes on: which tokens are seen depends on their number alone (`window_start`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microformer import playback
from microformer.errors import GenerationError
from microformer.models.model import Microformer
from microformer.models.state import FixedState, State
from microformer.models.taps import Tap


@dataclass(frozen=True)
class Sampler:
    """How an id is chosen from its distribution.

    Args:
        temperature: below 1 the likely becomes likelier; 0 always takes the likeliest.
        top_k: keep this many of the likeliest; 0 for all.
        top_p: keep the likeliest that together reach this probability (Holtzman et al. 2020).
        min_p: keep what has at least this share of the likeliest's probability (Nguyen et al. 2024).

    Raises:
        GenerationError: a value out of range.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise GenerationError(f"temperature {self.temperature} can't be: it is 0 or more.", "0.8 is a usual one.")
        if self.top_k < 0:
            raise GenerationError(f"top-k {self.top_k} can't be: it is 0 (for all) or more.", "40 is a usual one.")
        if not 0 < self.top_p <= 1:
            raise GenerationError(f"top-p {self.top_p} can't be: it is above 0 and at most 1.", "0.95 is a usual one.")
        if not 0 <= self.min_p <= 1:
            raise GenerationError(f"min-p {self.min_p} can't be: it is between 0 and 1.", "0.05 is a usual one.")

    def distribution(self, logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch vocab"]:
        """The probabilities that are drawn from; each row sums to 1."""
        logits = logits.float()
        if self.temperature == 0:
            return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
        # The largest logit is taken off first, and float32 knows no 1/temperature below: 0/0 must not come up.
        scaled = (logits - logits.amax(dim=-1, keepdim=True)) / max(self.temperature, 1e-30)
        if 0 < self.top_k < scaled.shape[-1]:
            # By rank, not by value: among equals the first ones are kept, as temperature 0 takes the first.
            likeliest = scaled.argsort(dim=-1, descending=True, stable=True)[:, : self.top_k]
            kept = torch.zeros_like(scaled, dtype=torch.bool).scatter_(1, likeliest, True)
            scaled = scaled.masked_fill(~kept, float("-inf"))
        p = torch.softmax(scaled, dim=-1)
        if self.min_p > 0:
            p = p * (p >= self.min_p * p.amax(dim=-1, keepdim=True))
        if self.top_p < 1:
            ordered, order = p.sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(dim=-1) - ordered
            p = p * torch.zeros_like(p).scatter_(1, order, (before < self.top_p * p.sum(-1, keepdim=True)).to(p.dtype))
        return p / p.sum(dim=-1, keepdim=True)

    def choose(self, logits: Float[Tensor, "batch vocab"], u: Float[Tensor, "batch"]) -> Int[Tensor, "batch"]:
        """One id a row. u: where each row draws, 0 ≤ u < 1."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        passed = self.distribution(logits).double().cumsum(dim=-1)
        # Scaled by the sum as computed, so that rounding can't push a draw past the end.
        chosen = torch.searchsorted(passed, (u.double() * passed[:, -1])[:, None], right=True).squeeze(1)
        return chosen.clamp_max(logits.shape[-1] - 1)


def window_start(seen: int, context: int) -> int:
    """The first of `seen` tokens that the model still reads: 0 until the context is full, then in jumps of a half."""
    jump = max(1, context - context // 2)
    return 0 if seen <= context else -(-(seen - context) // jump) * jump


# Each row's draws are made for so many steps at once: a call of torch for each would take longer than all of them.
_STEPS = 64
Step = Callable[[Tensor, State, Tensor], tuple[Tensor, State]]


def next_ids(
    model: Microformer, sampler: Sampler, ids: Tensor, state: State, u: Tensor, tap: Tap | None = None
) -> tuple[Tensor, State]:
    """Reads more tokens of each row and chooses the one after them: a step of `stream`.

    Args:
        ids: the tokens. [batch pos]
        state: what was read before them.
        u: where each row draws; what is beyond the first is for a step that chooses several tokens. [batch most]
        tap: reads or edits activations (models/taps.py).

    Returns:
        the ids [batch 1], or up to as many as `u` has, and the next state.
    """
    output = model(ids, state=state, tap=tap)
    assert output.state is not None
    logits = output.logits[:, -1]
    if logits.device.type == "mps":
        logits = logits.cpu()  # Apple's GPUs have no doubles, and the running sum of p wants them
    return sampler.choose(logits, u[:, 0].to(logits.device))[:, None], output.state


Record = Callable[[Callable[[], Sequence[Tensor]], Sequence[Tensor]], Callable[[], object]]


class Recorded:
    """`next_ids` without the Python between its operations: the same ids in half the time or less, where a model is
    small. The first step of each size, and of each number of rows, takes as long as some twenty others.

    What is played back reads all of a memory whose tensors keep their sizes (a FixedState), so that this one has room
    for some tokens at first, then for twice as many, up to the context.

    Args:
        step: `next_ids` of a model, whose weights must not change any more, and a sampler.
        context: the model's.
        most: how many tokens a call chooses; a reader gets so many at a time.
        record: what makes a recording, such as `devices.compiled_work`.
        room: how many tokens there is room for at first.
    """

    def __init__(self, step: Step, context: int, most: int = 8, record: Record = playback.recorded, room: int = 32):
        self.step, self.context, self.record, self.room, self.most = step, context, record, min(room, context), most
        self.possible, self.seen = True, 0
        self.recordings: dict[tuple[int, int], _Recording] = {}

    def __call__(self, ids: Tensor, state: State, u: Tensor) -> tuple[Tensor, State]:
        if not self.possible:
            return self.step(ids, state, u)
        if not isinstance(state, FixedState):
            self.seen = state.length
        room = self.room
        while room <= self.seen:
            room *= 2
        room = min(room, self.context)
        size = len(ids), room
        if size not in self.recordings:
            state = state.fixed(room, ids.device)
            try:
                self.recordings[size] = _Recording(self.step, ids, state, u[:, :1], self.most, self.record)
            except playback.NotTheSame:
                self.possible = False
                return self.step(ids, state.fixed(self.context, ids.device), u)
        steps = min(u.shape[1], self.most, room - self.seen)
        self.seen += steps
        return self.recordings[size](ids, state, u[:, :steps])


class _Recording:
    """A step of one size, which goes on from its own choice. It reads and writes its own tensors: `state` is its
    memory, `made` are its choices since it was handed something, `u` where it drew them.

    Raises:
        NotTheSame: it can't be played back.
    """

    def __init__(self, step: Step, ids: Tensor, state: FixedState, u: Tensor, most: int, record: Record):
        self.ids, self.state = ids.clone(), state
        self.u, self.made = u.repeat(1, most), ids.repeat(1, most)
        self.at = torch.zeros(1, dtype=torch.long, device=ids.device)

        def work() -> Sequence[Tensor]:
            chosen, after = step(self.ids, state, self.u.index_select(1, self.at))
            assert isinstance(after, FixedState)
            if [one.shape for one in after.tensors()] != [one.shape for one in state.tensors()]:
                raise playback.NotTheSame("what it remembers grows.")
            state.take(after)
            self.ids.copy_(chosen)
            self.made.index_copy_(1, self.at, chosen)
            self.at.add_(1)
            return []

        self.play = record(work, [self.ids, self.u, self.made, self.at, *state.tensors()])

    def __call__(self, ids: Tensor, state: State, u: Tensor) -> tuple[Tensor, State]:
        steps = u.shape[1]
        self.ids.copy_(ids)
        self.u[:, :steps] = u
        self.at.zero_()
        if state is not self.state:
            self.state.take(state)
        for _ in range(steps):
            self.play()
        return self.made[:, :steps].clone(), self.state


def stream(
    model: Microformer,
    prompts: Sequence[Sequence[int]],
    sampler: Sampler,
    max_new_tokens: int,
    *,
    seed: int = 0,
    use_cache: bool = True,
    step: Step | None = None,
    tap: Tap | None = None,
    drawn: int = 0,
) -> Iterator[list[int | None]]:
    """Continues prompts of any lengths together, a token each at a time.

    A model whose memory carries goes on without end; another reads anew from the middle of its context where that is
    full.

    A row whose prompt is longer than another's is fed its own next token where the other is already given a new one,
    so that all rows stand at the same position, and each gets what it would get alone.

    Args:
        model: in eval mode, on its device.
        prompts: ids, at least one each.
        sampler: how the next id is chosen.
        max_new_tokens: how many each row gets.
        seed: row i draws as row 0 would with seed + i.
        use_cache: False computes every step from the whole window: the oracle, and slow.
        step: what to call in place of `next_ids`, with this model and sampler, where one token a row is read (mostly):
            a `Recorded`, which chooses several tokens before the first of them is yielded. The rounding of compiled
            code differs, so that a draw may fall on the other side of a border once in many thousand tokens. Left aside
            where there is a tap, which it would not call.
        tap: reads or edits the activations of every step.
        drawn: how many numbers of its generator each row has used already. A prompt with the first n tokens of what
            followed it goes on as it did with drawn = n.

    Yields:
        For each row its new id, or None where it has none at this step.

    Raises:
        GenerationError: a prompt without tokens.
    """
    if not all(len(prompt) for prompt in prompts):
        raise GenerationError("the prompt is empty.", "give at least one character to begin with.")
    device = next(model.parameters()).device
    context = model.spec.max_seq_len
    generators = [torch.Generator().manual_seed((seed + row) % 2**63) for row in range(len(prompts))]
    for generator in generators:
        torch.rand(drawn, generator=generator)
    texts = [list(prompt) for prompt in prompts]
    lengths = [len(prompt) for prompt in prompts]
    seen, longest = min(lengths), max(lengths)
    end = longest + max_new_tokens
    plain: Step = partial(next_ids, model, sampler, tap=tap)
    read, state, chosen = 0, model.empty_state(), None
    held = 0  # how many tokens the state remembers: those before `read`
    first, u = seen, torch.empty(len(prompts), 0)  # what each row draws, from the step `first` on

    while seen < end:
        start = 0 if model.spec.carries else window_start(seen, context)
        if start > read - held or not use_cache:
            read, held, state = start, 0, model.empty_state()
        if chosen is not None and held and seen > longest:  # each row is fed what it was just given
            ids = chosen[:, -1:].to(device)
        else:
            ids = torch.tensor([text[read:seen] for text in texts], device=device)
        if (place := seen - first) >= u.shape[1]:
            first, place, u = seen, 0, torch.zeros(len(prompts), _STEPS)
            for draws, length, generator in zip(u, lengths, generators, strict=True):
                # A row's n-th new token has the n-th number of the row's own generator.
                if (before := max(0, length - seen)) < _STEPS:
                    torch.rand(_STEPS - before, generator=generator, out=draws[before:])
        single = step is not None and tap is None and held > 0 and seen - read == 1
        most = min(u.shape[1] - place, end - seen) if seen >= longest else 1
        with torch.inference_mode():
            chosen, state = (step if single else plain)(ids, state, u[:, place : place + most])  # type: ignore[misc]
        last = seen + chosen.shape[1] - 1  # the last of these was chosen by those before this place
        read, held = last, held + last - read
        for ones in chosen.T.tolist():
            fresh = [length <= seen < length + max_new_tokens for length in lengths]
            given: list[int | None] = []
            for text, length, new, one in zip(texts, lengths, fresh, ones, strict=True):
                if seen >= length:  # past its prompt; a row that has all its tokens goes along until the last has its
                    text.append(one)
                given.append(one if new else None)
            seen += 1
            if any(fresh):
                yield given
