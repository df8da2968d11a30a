"""The contracts of a model and, through it, of every component in it."""

import io
from collections.abc import Callable, Sequence
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
    """The first that a model of this spec breaks of five contracts, seen on one batch: quick enough to be asked before
    every training with a component that nobody knows; None where it keeps them."""
    model = _model(spec, seed)
    model.roles()
    generator = torch.Generator().manual_seed(seed)
    length = spec.max_seq_len * 5 // 2 if spec.carries else min(spec.max_seq_len, 512)
    text = torch.randint(spec.vocab_size, (2, length + 1), generator=generator)
    ids = text[:, :-1]
    if detail := _wrong_shape(model, ids):
        return verdict(shapes, detail)
    before = model(ids).logits
    for later in (length // 2, length - 1):
        if detail := _leak(model, ids, before, later):
            return verdict(causality, detail)
    pieces = (length - 2, 1, 1) if length > 2 else (1,) * length
    for found in (_training(model, ids), _in_pieces(model, ids, pieces), _gradients(model, text)):
        if not found.kept:
            return found
    return None


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


def training(spec: ModelSpec, seed: int) -> Verdict:
    """In training no later token and no other row changes anything either, and being used leaves no trace."""
    return _training(_model(spec, seed), _ids(spec, seed))


def _training(model: Microformer, ids: Tensor) -> Verdict:
    def logits(of: Tensor) -> Tensor:
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(0)  # what is left out by chance is the same then
            return model(of).logits

    in_use = logits(ids)
    model.train()
    before, detail = logits(ids), ""
    kept = "what it keeps besides parameters is in no checkpoint"
    if _difference(before, logits(ids)):
        detail = f"a training pass changed what the next one gives: {kept}"
    for later in (1, ids.shape[1] // 2, ids.shape[1] - 1):
        changed = ids.clone()
        changed[:, later] = (changed[:, later] + 1) % model.spec.vocab_size
        if _difference(before[:, :later], logits(changed)[:, :later]):
            detail = detail or f"token {later} leaks into earlier positions in training"
    other = ids.clone()
    other[1:] = (other[1:] + 1) % model.spec.vocab_size
    if _difference(before[:1], logits(other)[:1]):
        detail = detail or "another row changes a row's logits in training"
    model.eval()
    if not detail and not torch.equal(in_use, logits(ids)):
        detail = f"a training pass changed what the model gives: {kept}"
    return verdict(training, detail)


def _gradients(model: Microformer, ids: Tensor) -> Verdict:
    model.roles()
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
    """A position's bias, SCORE_CAP and ATTENTION_DROPOUT do something to every attention that has scores."""
    for layer in dict.fromkeys(spec.layers):
        plain = replace(spec, layers=(layer,), positions=NoPositions(), score_cap=0.0, loops=1)
        model, ids = _model(plain, seed), _ids(plain, seed)
        kernel = next(part for part in model.modules() if isinstance(part, Kernel))
        if not kernel.scores:
            continue
        dropped = _model(replace(plain, attention_dropout=0.5), seed).train()
        others = {
            "POSITIONS = 'alibi'": (_model(replace(plain, positions=Alibi()), seed), "self.added(order)"),
            "SCORE_CAP": (_model(replace(plain, score_cap=0.1), seed), "self.capped(scores)"),
            "ATTENTION_DROPOUT": (dropped, "self.dropped(pattern)"),
        }
        with torch.no_grad():
            without = model(ids).logits
            for setting, (other, how) in others.items():
                if not _difference(without, other(ids).logits):
                    detail = f"{type(kernel).__name__} does the same with {setting} and without"
                    return verdict(scores, f"{detail}: {how} is for it, or scores = False for an attention without")
    return verdict(scores, "")


def cache(spec: ModelSpec, seed: int) -> Verdict:
    """Token by token, and in pieces, with remembered state, the logits are those of the whole at once."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    for size in (1, 3):
        found = _in_pieces(model, ids, [min(size, ids.shape[1] - start) for start in range(0, ids.shape[1], size)])
        if not found.kept:
            return found
    return verdict(cache, "")


@torch.no_grad()
def _in_pieces(model: Microformer, ids: Tensor, sizes: Sequence[int]) -> Verdict:
    state: State | None = model.empty_state()
    parts = []
    for piece in ids.split(list(sizes), dim=1):
        output = model(piece, state=state)
        parts.append(output.logits)
        state = output.state
    difference = _difference(model(ids).logits, torch.cat(parts, dim=1))
    return verdict(cache, difference and f"in pieces of {', '.join(map(str, sizes[:3]))} …: {difference}")


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
    """In bfloat16 the loss is float32's to a fiftieth, and the same whether matrices are converted or kept in it."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    with torch.no_grad():
        exact = float(model.loss(ids[:, :-1], ids[:, 1:], None))
        model.compute_dtype = torch.bfloat16
        coarse = float(model.loss(ids[:, :-1], ids[:, 1:], None))
        kept = float(model.kept_in(torch.bfloat16).loss(ids[:, :-1], ids[:, 1:], None))
    if abs(exact - coarse) >= 0.02 * exact:
        return verdict(precision, f"{coarse:.4f} for {exact:.4f} nats")
    return verdict(precision, "" if kept == coarse else f"matrices kept in it: {kept:.6f} for {coarse:.6f} nats")


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
    shapes, causality, training, gradients, roads, scores, cache, reset_rows, batch_independence, determinism,
    round_trip, precision, taps,
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
    after = model(changed).logits
    touched = (
        ((before != after) & ~(before.isnan() & after.isnan())).flatten(2).any(-1).any(0).nonzero().flatten().tolist()
    )
    if early := [position for position in touched if position < later]:
        where = f"position {early[0]}" if len(early) == 1 else f"{len(early)} earlier positions, {early[0]} the first"
        return f"token {later} leaks into {where}"
    return "" if later in touched else f"token {later} does not even change its own logits"


class _WrongShape(Exception):
    """What a part gave that its slot can't use."""


def _wrong_shape(model: Microformer, ids: Tensor) -> str:
    """What a part of the model gives that is not what its slot asks for, in one forward pass; "" for nothing."""

    versions: dict[nn.Module, int] = {}

    def note(part: nn.Module, given: tuple) -> None:
        versions[part] = given[0]._version

    def watch(part: nn.Module, given: tuple, made: Any) -> None:
        name, like = type(part).__name__, given[0]
        if like._version != versions[part]:
            raise _WrongShape(f"{name} changes what it is given in place, and others read it too")
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
    hooks = [part.register_forward_pre_hook(note) for part in watched]
    hooks += [part.register_forward_hook(watch) for part in watched]
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
