"""The contracts of a model and, through it, of every component in it."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from microformer.models.model import Microformer
from microformer.models.spec import ModelSpec
from microformer.models.state import State

# Two roads to the same sum differ by the order of its terms: this much in float32, on logits of size 1.
_ROUNDING = 2e-5


@dataclass(frozen=True)
class Verdict:
    """What was seen of one contract.

    Args:
        contract: its name, a sentence.
        kept: whether it holds.
        detail: where it does not, and by how much; "" if it holds.
    """

    contract: str
    kept: bool
    detail: str = ""


def check(spec: ModelSpec, seed: int = 0) -> list[Verdict]:
    """Every contract on a model of this spec (best a small one: a context of 8 to 64 tokens)."""
    return [contract(spec, seed) for contract in CONTRACTS]


def shapes(spec: ModelSpec, seed: int) -> Verdict:
    """Logits have a row for every token, and are finite."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    logits = model(ids).logits
    wanted = (*ids.shape, spec.vocab_size)
    detail = "" if logits.shape == wanted else f"logits {tuple(logits.shape)} for {wanted}"
    if not detail and not torch.isfinite(logits).all():
        detail = "logits that are not finite"
    return _verdict(shapes, detail)


def causality(spec: ModelSpec, seed: int) -> Verdict:
    """Changing a later token never changes an earlier logit."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    before = model(ids).logits
    for later in range(1, ids.shape[1]):
        changed = ids.clone()
        changed[:, later] = (changed[:, later] + 1) % spec.vocab_size
        after = model(changed).logits
        leaked = (before != after).flatten(2).any(-1).any(0).nonzero().flatten()
        if len(leaked) and int(leaked[0]) < later:
            return _verdict(causality, f"token {later} changes the logits at {int(leaked[0])}")
        if later not in leaked:
            return _verdict(causality, f"token {later} does not even change its own logits")
    return _verdict(causality, "")


def gradients(spec: ModelSpec, seed: int) -> Verdict:
    """Every parameter gets a finite gradient that is not all zero."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    model.loss(ids[:, :-1], ids[:, 1:], None).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            return _verdict(gradients, f"none reaches {name}")
        if not torch.isfinite(parameter.grad).all():
            return _verdict(gradients, f"that of {name} is not finite")
    return _verdict(gradients, "")


def roads(spec: ModelSpec, seed: int) -> Verdict:
    """With and without gradients, and with a tap that looks at everything, the logits are the same."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    training = model(ids).logits.detach()
    with torch.no_grad():
        inference, looked_at = model(ids).logits, model(ids, tap=_Everything()).logits
    return _verdict(roads, _difference(training, inference) or _difference(training, looked_at))


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
                return _verdict(cache, f"in pieces of {pieces}: {difference}")
    return _verdict(cache, "")


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
    return _verdict(reset_rows, difference)


def batch_independence(spec: ModelSpec, seed: int) -> Verdict:
    """A row's logits don't depend on the other rows."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    with torch.no_grad():
        together = model(ids).logits
        alone = torch.cat([model(row[None]).logits for row in ids])
    return _verdict(batch_independence, _difference(together, alone))


def determinism(spec: ModelSpec, seed: int) -> Verdict:
    """The same seed gives the same weights and logits to the bit, another seed others."""
    ids = _ids(spec, seed)
    first, again, other = (_model(spec, s)(ids).logits for s in (seed, seed, seed + 1))
    detail = "" if torch.equal(first, again) else "the same seed gives two results"
    return _verdict(determinism, detail or ("two seeds give one result" if torch.equal(first, other) else ""))


def round_trip(spec: ModelSpec, seed: int) -> Verdict:
    """A model built again from its saved spec and weights gives the same logits to the bit."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    kept = io.BytesIO()
    torch.save(model.state_dict(), kept)
    kept.seek(0)
    again = Microformer(ModelSpec.from_json(spec.to_json()), seed + 1).eval()
    again.load_state_dict(torch.load(kept, weights_only=True))
    return _verdict(round_trip, "" if torch.equal(model(ids).logits, again(ids).logits) else "they differ")


def precision(spec: ModelSpec, seed: int) -> Verdict:
    """In bfloat16 the loss is that of float32 to within the format's three digits."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    with torch.no_grad():
        exact = float(model.loss(ids[:, :-1], ids[:, 1:], None))
        model.compute_dtype = torch.bfloat16
        coarse = float(model.loss(ids[:, :-1], ids[:, 1:], None))
    return _verdict(precision, "" if abs(exact - coarse) < 0.02 * exact else f"{coarse:.4f} for {exact:.4f} nats")


def taps(spec: ModelSpec, seed: int) -> Verdict:
    """Every activation that the model lists can be read, and no other is offered."""
    model, ids = _model(spec, seed), _ids(spec, seed)
    seen = _Everything()
    with torch.no_grad():
        model(ids[:, : spec.max_seq_len], tap=seen)
    listed = model.tap_names()
    missing, surplus = set(listed) - set(seen.names), set(seen.names) - set(listed)
    detail = f"never given: {sorted(missing)}" if missing else f"not listed: {sorted(surplus)}" if surplus else ""
    return _verdict(taps, detail or ("" if seen.names == listed else "listed in another order than they come in"))


CONTRACTS: tuple[Callable[[ModelSpec, int], Verdict], ...] = (
    shapes, causality, gradients, roads, cache, reset_rows, batch_independence, determinism, round_trip, precision,
    taps,
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
    length = spec.max_seq_len * 5 // 2 if spec.memory.carries else spec.max_seq_len
    return torch.randint(spec.vocab_size, (rows, length), generator=generator)


def _difference(one: Tensor, other: Tensor) -> str:
    apart = float((one - other).abs().max())
    return "" if apart <= _ROUNDING * max(1.0, float(one.abs().max())) else f"logits differ by {apart:.2e}"


def _verdict(contract: Callable[[ModelSpec, int], Verdict], detail: str) -> Verdict:
    return Verdict((contract.__doc__ or "").strip(), not detail, detail)
