"""The contracts of a model and, through it, of every component in it."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from microformer.contracts.verdict import Verdict, verdict
from microformer.models.feedforward import FeedForward
from microformer.models.kernels import Kernel
from microformer.models.model import Microformer
from microformer.models.norms import Norm
from microformer.models.spec import Alibi, ModelSpec, NoPositions
from microformer.models.state import LayerState, State

# Two roads to the same sum differ by the order of its terms: this much in float32, on logits of size 1.
_ROUNDING = 2e-5


def check(spec: ModelSpec, seed: int = 0) -> list[Verdict]:
    """Every contract on a model of this spec (best a small one: a context of 8 to 64 tokens)."""
    return [contract(spec, seed) for contract in CONTRACTS]


def trial(spec: ModelSpec, seed: int = 0) -> Verdict | None:
    """The first that a model of this spec breaks of three contracts, seen on a few tokens: quick enough to be asked
    before every training with a component that nobody knows; None where it keeps them."""
    model = _model(spec, seed)
    model.roles()
    generator = torch.Generator().manual_seed(seed)
    length = spec.max_seq_len * 5 // 2 if spec.carries else min(spec.max_seq_len, 24)
    ids = torch.randint(spec.vocab_size, (2, length), generator=generator)
    if detail := _wrong_shape(model, ids):
        return verdict(shapes, detail)
    before = model(ids).logits
    for later in (length // 2, length - 1):
        if detail := _leak(model, ids, before, later):
            return verdict(causality, detail)
    found = _gradients(model, ids)
    return None if found.kept else found


def shapes(spec: ModelSpec, seed: int) -> Verdict:
    """Every part gives what its slot asks for, and logits have a finite row for every token."""
    return verdict(shapes, _wrong_shape(_model(spec, seed), _ids(spec, seed)))


def causality(spec: ModelSpec, seed: int) -> Verdict:
    """Changing a later token never changes an earlier logit."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    before = model(ids).logits
    found = [leak for later in range(1, ids.shape[1]) if (leak := _leak(model, ids, before, later))]
    more = f" (and so on, {len(found)} of {ids.shape[1] - 1} tokens)" if len(found) > 1 else ""
    return verdict(causality, found[0] + more if found else "")


def gradients(spec: ModelSpec, seed: int) -> Verdict:
    """Every parameter gets a finite gradient that is not all zero."""
    return _gradients(_model(spec, seed), _ids(spec, seed))


def _gradients(model: Microformer, ids: Tensor) -> Verdict:
    model.loss(ids[:, :-1], ids[:, 1:], None).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            return verdict(gradients, f"none reaches {name}")
        if not torch.isfinite(parameter.grad).all():
            return verdict(gradients, f"that of {name} is not finite")
    return verdict(gradients, "")


def roads(spec: ModelSpec, seed: int) -> Verdict:
    """With and without gradients, and with a tap that looks at everything, the logits are the same."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    training = model(ids).logits.detach()
    with torch.no_grad():
        inference, looked_at = model(ids).logits, model(ids, tap=_Everything()).logits
    return verdict(roads, _difference(training, inference) or _difference(training, looked_at))


def scores(spec: ModelSpec, seed: int) -> Verdict:
    """A position's bias and SCORE_CAP reach the scores of every attention that has any."""
    for layer in dict.fromkeys(spec.layers):
        plain = replace(spec, layers=(layer,), positions=NoPositions(), score_cap=0.0, loops=1)
        model, ids = _model(plain, seed), _ids(plain, seed)
        kernel = next(part for part in model.modules() if isinstance(part, Kernel))
        if not kernel.scores:
            continue
        with torch.no_grad():
            without = model(ids).logits
            for setting, changes in (
                ("POSITIONS = 'alibi'", {"positions": Alibi()}),
                ("SCORE_CAP", {"score_cap": 0.1}),
            ):
                if not _difference(without, _model(replace(plain, **changes), seed)(ids).logits):
                    return verdict(scores, f"{type(kernel).__name__} does the same with {setting} and without")
    return verdict(scores, "")


def cache(spec: ModelSpec, seed: int) -> Verdict:
    """Token by token, and in pieces, with remembered state, the logits are those of the whole at once."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    with torch.no_grad():
        whole = model(ids).logits
        for pieces in (1, 3):
            state: State | None = model.empty_state()
            parts = []
            for start in range(0, ids.shape[1], pieces):
                output = model(ids[:, start : start + pieces], state=state)
                parts.append(output.logits)
                state = output.state
            if difference := _difference(whole, torch.cat(parts, dim=1)):
                return verdict(cache, f"in pieces of {pieces}: {difference}")
    return verdict(cache, "")


def reset_rows(spec: ModelSpec, seed: int) -> Verdict:
    """A row whose state was reset goes on as if it had seen nothing; the others don't notice; rows can be reordered."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    context, rows, order = spec.max_seq_len, torch.arange(len(ids)) == 1, torch.tensor([2, 0, 1])
    difference = ""
    with torch.no_grad():
        whole = model(ids).logits
        # Within a segment, and where the second one ends, if there is one.
        for begin, end in ((context // 2, context), (2 * context, ids.shape[1])):
            state = model(ids[:, :begin], state=model.empty_state()).state if begin < end else None
            if state is None:
                continue
            after = model(ids[:, begin:end], state=state.reset(rows)).logits
            fresh = model(ids[:, begin:end]).logits
            difference = difference or _difference(after[1], fresh[1]) or _difference(after[0], whole[0, begin:end])
            reordered = model(ids[order, begin:end], state=state.reset(rows).reorder(order)).logits
            difference = difference or _difference(reordered, after[order])
    return verdict(reset_rows, difference)


def batch_independence(spec: ModelSpec, seed: int) -> Verdict:
    """A row's logits don't depend on the other rows."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    with torch.no_grad():
        together = model(ids).logits
        alone = torch.cat([model(row[None]).logits for row in ids])
    return verdict(batch_independence, _difference(together, alone))


def determinism(spec: ModelSpec, seed: int) -> Verdict:
    """The same seed gives the same weights and logits to the bit, another seed others."""
    ids = _ids(spec, seed)
    first, again, other = (_model(spec, s)(ids).logits for s in (seed, seed, seed + 1))
    detail = "" if torch.equal(first, again) else "the same seed gives two results"
    return verdict(determinism, detail or ("two seeds give one result" if torch.equal(first, other) else ""))


def round_trip(spec: ModelSpec, seed: int) -> Verdict:
    """A model built again from its saved spec and weights gives the same logits to the bit."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    kept = io.BytesIO()
    torch.save(model.state_dict(), kept)
    kept.seek(0)
    own = {str(own): own for _, own in spec.own}
    read = ModelSpec.from_json(spec.to_json()).with_own(lambda _, one: own[str(one)])
    again = Microformer(read, seed + 1).eval()
    again.load_state_dict(torch.load(kept, weights_only=True))
    return verdict(round_trip, "" if torch.equal(model(ids).logits, again(ids).logits) else "they differ")


def precision(spec: ModelSpec, seed: int) -> Verdict:
    """In bfloat16 the loss is that of float32 to within the format's three digits."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    with torch.no_grad():
        exact = float(model.loss(ids[:, :-1], ids[:, 1:], None))
        model.compute_dtype = torch.bfloat16
        coarse = float(model.loss(ids[:, :-1], ids[:, 1:], None))
    return verdict(precision, "" if abs(exact - coarse) < 0.02 * exact else f"{coarse:.4f} for {exact:.4f} nats")


def taps(spec: ModelSpec, seed: int) -> Verdict:
    """Every activation that the model lists can be read, and no other is offered."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    seen = _Everything()
    with torch.no_grad():
        model(ids[:, : spec.max_seq_len], tap=seen)
    listed = model.tap_names()
    missing, surplus = set(listed) - set(seen.names), set(seen.names) - set(listed)
    detail = f"never given: {sorted(missing)}" if missing else f"not listed: {sorted(surplus)}" if surplus else ""
    return verdict(taps, detail or ("" if seen.names == listed else "listed in another order than they come in"))


CONTRACTS: tuple[Callable[[ModelSpec, int], Verdict], ...] = (
    shapes, causality, gradients, roads, scores, cache, reset_rows, batch_independence, determinism, round_trip,
    precision, taps,
)  # fmt: skip


class _Everything:
    """A tap that wants all and changes nothing."""

    def __init__(self):
        self.names: list[str] = []

    def wants(self, name: str) -> bool:
        return True

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        self.names.append(name)
        return tensor


def _model(spec: ModelSpec, seed: int) -> Microformer:
    """A model whose weights are all moved off their start, where zeros would hide what a part does."""
    model = Microformer(spec, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def _ids(spec: ModelSpec, seed: int, rows: int = 3) -> Tensor:
    """Tokens as many as the context holds; for a model whose memory carries, two segments and a half."""
    generator = torch.Generator().manual_seed(seed)
    length = spec.max_seq_len * 5 // 2 if spec.carries else spec.max_seq_len
    return torch.randint(spec.vocab_size, (rows, length), generator=generator)


def _leak(model: Microformer, ids: Tensor, before: Tensor, later: int) -> str:
    """What another token at `later` changes that it must not, or does not that it must.

    before: the logits of ids.
    """
    changed = ids.clone()
    changed[:, later] = (changed[:, later] + 1) % model.spec.vocab_size
    touched = (before != model(changed).logits).flatten(2).any(-1).any(0).nonzero().flatten().tolist()
    if early := [position for position in touched if position < later]:
        where = f"position {early[0]}" if len(early) == 1 else f"{len(early)} earlier positions, {early[0]} the first"
        return f"token {later} leaks into {where}"
    return "" if later in touched else f"token {later} does not even change its own logits"


class _WrongShape(Exception):
    """What a part gave that its slot can't use."""


def _wrong_shape(model: Microformer, ids: Tensor) -> str:
    """What a part of the model gives that is not what its slot asks for, in one forward pass; "" for nothing."""

    def watch(part: nn.Module, given: tuple, made: Any) -> None:
        name, like = type(part).__name__, given[0]
        if isinstance(part, Kernel | FeedForward):
            what = "(z, state)" if isinstance(part, Kernel) else "(y, aux_loss)"
            if not isinstance(made, tuple) or len(made) != 2:
                raise _WrongShape(f"{name} gives {_described(made)}, and not {what}")
            made, beside = made
            if isinstance(part, Kernel) and not isinstance(beside, LayerState):
                raise _WrongShape(f"{name} gives {_described(beside)} for its next memory, and not a LayerState")
        if not isinstance(made, Tensor) or made.shape != like.shape or made.dtype != like.dtype:
            raise _WrongShape(f"{name} gives {_described(made)} for {_described(like)}")

    watched = [part for part in model.modules() if isinstance(part, Kernel | FeedForward | Norm)]
    hooks = [part.register_forward_hook(watch) for part in watched]
    try:
        with torch.no_grad():
            logits = model(ids).logits
    except _WrongShape as wrong:
        return str(wrong)
    finally:
        for hook in hooks:
            hook.remove()
    wanted = (*ids.shape, model.spec.vocab_size)
    if logits.shape != wanted:
        return f"logits {tuple(logits.shape)} for {wanted}"
    return "" if torch.isfinite(logits).all() else "logits that are not finite"


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"


def _difference(one: Tensor, other: Tensor) -> str:
    apart = float((one - other).abs().max())
    return "" if apart <= _ROUNDING * max(1.0, float(one.abs().max())) else f"logits differ by {apart:.2e}"
