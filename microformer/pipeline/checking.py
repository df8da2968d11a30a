"""A user's own component, held to the contracts and to what stands in its place by default."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from microformer import contracts, own_code
from microformer.contracts import cost
from microformer.contracts.verdict import Verdict
from microformer.errors import CodeError, MicroformerError, SettingsError
from microformer.models import grammar
from microformer.models.grammar import Own
from microformer.models.model import Microformer
from microformer.models.spec import ModelSpec
from microformer.own_code import Code
from microformer.pipeline import components
from microformer.settings import Settings, model_spec
from microformer.training import schedules
from microformer.training.optimizers import Optimizer, Recipe

LENGTHS = (128, 512, 2048)

# The models in which a part is tried: small ones, each with something that a part may not have thought of.
_SMALL = {"embed_dim": 32, "num_heads": 4, "ff_dim": 48, "max_seq_len": 12}
_MODELS: dict[str, dict[str, Any]] = {
    "the default": {},
    "a longer text, one layer": {"max_seq_len": 100, "num_layers": 1},
    "two heads a key": {"num_kv_heads": 2},
    "a bias on scores": {"positions": "alibi"},
    "capped, gated": {"score_cap": 2.0, "output_gate": True},
    "norms after, biases": {"norm_placement": "post", "norm": "layernorm", "bias": True},
    "in parallel, learned positions": {"parallel": True, "positions": "learned"},
    "a memory that is carried": {"memory": "xl(8)"},
}


@dataclass(frozen=True)
class Row:
    """What was seen of one contract in all models.

    Args:
        contract: its sentence.
        kept: whether it holds in each.
        detail: where it does not; "" if it holds.
    """

    contract: str
    kept: bool
    detail: str


@dataclass(frozen=True)
class Report:
    """What a check found.

    Args:
        component: as it was named.
        slot: what it is for.
        rows: the contracts.
        models: in what it was tried.
        refused: the models that were refused, and why.
        beside: what it is compared with.
        costs: for each length (of optimizers None) the milliseconds and megabytes of both.
        shares: of a schedule, at each tenth of the run.
    """

    component: str
    slot: str
    rows: tuple[Row, ...]
    models: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    beside: str = ""
    costs: tuple[dict[str, Any], ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether every contract holds."""
        return all(row.kept for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {**asdict(self), "kept": self.kept}


def check(component: str, lengths: Sequence[int] = LENGTHS) -> Report:
    """Holds a component to the contracts of its slot.

    Args:
        component: `FILE:Class`, with arguments if wanted: `my_attention.py:MyAttention(width=3)`.
        lengths: contexts at which its cost is measured, in tokens; none for no such measurement.

    Raises:
        CodeError: the file can't be run, or what is named is a component of no slot.
    """
    own = grammar.own(component, "the component")
    if own is None:
        raise SettingsError(f"{component!r} names no class in a file.", "write it as my_attention.py:MyAttention.")
    code = own_code.read([own])
    slot, own = _slot(own, code)
    match slot:
        case "optimizer":
            return _of_optimizer(component, own, code, lengths)
        case "schedule":
            return _of_schedule(component, own, code)
    return _of_model(component, slot, own, code, lengths)


def _slot(own: Own, code: Code) -> tuple[str, Own]:
    bases = {**own_code.model_bases(), **components.BASES}
    loaded = code.loaded(own, object)
    for slot, base in bases.items():
        if issubclass(loaded.loaded, base):
            return slot, code.loaded(own, base)
    known = ", ".join(f"{base.__name__} ({slot})" for slot, base in bases.items())
    raise CodeError(f"{code.where(loaded.loaded)}: {own.name} is of no slot.", f"it is a subclass of one of: {known}.")


def _of_model(component: str, slot: str, own: Own, code: Code, lengths: Sequence[int]) -> Report:
    found: dict[str, list[str]] = {}
    models, refused = [], []
    for name, changes in _MODELS.items():
        if slot in changes or (slot == "norm" and "norm" in changes):
            continue
        try:
            spec = _spec(component, slot, {**_SMALL, **changes}, code)
            with code.explained([own.loaded]):
                Microformer(spec)
        except (SettingsError, CodeError) as error:
            if isinstance(error.__cause__, SettingsError) or isinstance(error, SettingsError):
                refused.append((name, error.sentence))
                continue
            raise
        models.append(name)
        for contract in contracts.CONTRACTS:
            try:
                with code.explained([own.loaded]):
                    verdict = contract(spec, 0)
            except CodeError as error:
                if not models[1:] and contract is contracts.CONTRACTS[0]:
                    raise  # it can't be run at all
                verdict = Verdict((contract.__doc__ or "").strip(), False, error.sentence.rstrip("."))
            broken = found.setdefault(verdict.contract, [])
            if not verdict.kept:
                broken.append(f"{verdict.detail} [{name}]")
                if contract is contracts.CONTRACTS[0]:
                    break  # what can't be used at all would break the others too
    rows = _rows(found)
    default = "xl" if slot == "memory" and own.says("carries", False) else str(getattr(Settings().model, slot))
    costs: list[dict[str, Any]] = []
    if lengths and all(row.kept for row in rows):
        for length, both in _costs(component, slot, default, code, lengths).items():
            costs.append({"length": length, **both})
    return Report(component, slot, rows, tuple(models), tuple(refused), default, tuple(costs))


def _spec(component: str, slot: str, changes: dict[str, Any], code: Code) -> ModelSpec:
    chosen = Settings().changed({**changes, slot: component})
    return own_code.bound(model_spec(chosen, vocab_size=11), code)


def _costs(component: str, slot: str, default: str, code: Code, lengths: Sequence[int]) -> dict[int, dict[str, float]]:
    def of(kind: str) -> Callable[[int], ModelSpec]:
        return lambda length: own_code.bound(
            model_spec(Settings().changed({slot: kind, "max_seq_len": length}), vocab_size=65), code
        )

    measured = cost.of_step({"own": of(component), "default": of(default)}, lengths)
    return {
        length: {
            "ms": 1000 * both["own"].seconds,
            "ms_default": 1000 * both["default"].seconds,
            "mb": both["own"].peak_bytes / 1e6,
            "mb_default": both["default"].peak_bytes / 1e6,
        }
        for length, both in measured.items()
    }


def _of_optimizer(component: str, own: Own, code: Code, lengths: Sequence[int]) -> Report:
    recipe = Recipe(own, 0.01, 0.1, 0.95, (0.9, 0.95))

    def made(model: Microformer, rate: float) -> Optimizer:
        return Optimizer(model, replace(recipe, rate=rate))

    rows = _tried(code, own, [partial(one, made) for one in contracts.OPTIMIZER_CONTRACTS])
    costs: list[dict[str, Any]] = []
    if lengths and all(row.kept for row in rows):
        steps = {"ms": made, "ms_default": lambda model, _: Optimizer(model, replace(recipe, kind="muon"))}
        costs.append({name: 1000 * seconds for name, seconds in _seconds_a_move(steps).items()})
    return Report(component, "optimizer", rows, beside="muon", costs=tuple(costs))


def _of_schedule(component: str, own: Own, code: Code) -> Report:
    rows = _tried(code, own, [partial(one, own.build) for one in contracts.SCHEDULE_CONTRACTS])
    shares: tuple[float, ...] = ()
    if all(row.kept for row in rows):
        schedule: schedules.Schedule = own.build(0.02)
        shares = tuple(schedule.rate(tenth / 10) for tenth in range(11))
    return Report(component, "schedule", rows, shares=shares)


def _tried(code: Code, own: Own, asked: Sequence[partial[Verdict]]) -> tuple[Row, ...]:
    found: dict[str, list[str]] = {}
    for contract in asked:
        sentence = (contract.func.__doc__ or "").strip()
        try:
            with code.explained([own.loaded]):
                found[sentence] = [] if (seen := contract()).kept else [seen.detail]
        except MicroformerError as error:
            found[sentence] = [error.sentence.rstrip(".")]
    return _rows(found)


def _rows(found: dict[str, list[str]]) -> tuple[Row, ...]:
    return tuple(
        Row(contract, not broken, broken[0] + (f" and {len(broken) - 1} more" if broken[1:] else "") if broken else "")
        for contract, broken in found.items()
    )


def _seconds_a_move(make: dict[str, Callable[[Microformer, float], Optimizer]]) -> dict[str, float]:
    """The median seconds of a step of each on the default model, gradients aside, in turns."""
    models = {name: Microformer(model_spec(Settings(), vocab_size=65), seed=1) for name in make}
    optimizers = {name: make[name](model, 0.001) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in make}
    for _ in range(8):
        for name, model in models.items():
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            began = time.perf_counter()
            optimizers[name].step()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(each[1:]) for name, each in seconds.items()}
