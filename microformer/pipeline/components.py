"""Components of the user's own on their way into a training: read, tried out, built."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from microformer import contracts, files, own_code, settings
from microformer.errors import CodeError, notice
from microformer.models.grammar import Own
from microformer.own_code import Code
from microformer.runs import Run
from microformer.settings import Settings
from microformer.training import schedules
from microformer.training.optimizers import Optimizer, Recipe
from microformer.training.rule import Rule
from microformer.training.schedules import Schedule

# What a component of the slots beside the model's is a subclass of.
BASES: dict[str, type] = {"optimizer": Rule, "schedule": Schedule}


def read(chosen: Settings, config: str | Path | None, given: Mapping[str, Any], trust_code: bool) -> Code:
    """The files that the settings name; where these are another run's, its copies.

    Args:
        config, given: where the settings are from, as in `train`.
        trust_code: whether another run's copies may be run whatever they are.
    """
    own = settings.own_components(chosen)
    repeated = config is not None and Path(config).suffix == ".json"
    here = [one for slot, found in own.items() if slot in given or not repeated for one in found]
    there = [one for slot, found in own.items() if slot not in given and repeated for one in found]
    code = own_code.read(here)
    if not there:
        return code
    first = Run(Path(str(config)).parent, trust_code=trust_code)
    return code.joined(first.code, {one.file_name for one in there})


def notice_changes(run: Run) -> None:
    """Says where a file of the user's is not any more what a run goes on with: its own copy."""
    for own in [one for found in settings.own_components(run.settings).values() for one in found]:
        here, name = Path(own.file), own.file_name
        if here.is_file() and files.sha256(here) != run.code.hashes.get(name):
            notice(f"{here} has changed, and the run {run.name!r} goes on with its own copy; a new run takes yours.")


def try_out(chosen: Settings, code: Code) -> None:
    """Runs the files and, on a few tokens, what is in them, before time goes into data and training.

    Raises:
        CodeError: a component can't be used, or what it does is no part of a language model.
    """
    if not code.sources:
        return
    spec = own_code.bound(settings.model_spec(chosen, vocab_size=11), code)
    settings.check_model(chosen, spec)
    if made := [own.loaded for _, own in spec.own]:
        with code.explained(made):
            broken = contracts.trial(spec)
        if broken is not None:
            raise _broken(code, made, broken)
    if optimizer := in_slot(chosen, "optimizer", code):
        recipe = Recipe(optimizer, 0.01, 0.1, 0.95, (0.9, 0.95))
        asked = [one for one in contracts.OPTIMIZER_CONTRACTS if one.__name__ != "learns"]  # that takes seconds
        with code.explained([optimizer.loaded]):
            verdicts = [one(lambda model, rate: Optimizer(model, replace(recipe, rate=rate))) for one in asked]
        if broken := next((one for one in verdicts if not one.kept), None):
            raise _broken(code, [optimizer.loaded], broken)
    if schedule := in_slot(chosen, "schedule", code):
        with code.explained([schedule.loaded]):
            broken = next((one for one in contracts.check_schedule(schedule.build) if not one.kept), None)
        if broken is not None:
            raise _broken(code, [schedule.loaded], broken)


def in_slot(chosen: Settings, slot: str, code: Code) -> Own | None:
    """The own component in the slot `optimizer` or `schedule`; None where a word stands there."""
    found = settings.own_components(chosen).get(slot)
    return code.loaded(found[0], BASES[slot]) if found else None


def schedule_of(chosen: Settings, code: Code, steps: int | None) -> Schedule:
    """The schedule that the settings name, of a run that has so many steps; None where the clock ends it."""
    training = chosen.training
    warmup = training.warmup
    if warmup >= 1 and steps is not None:
        if warmup > steps:
            notice(f"WARMUP takes {warmup:,.0f} steps, and this training has {steps:,}: the rate rises until its end.")
        warmup = min(1.0, warmup / steps)
    own = in_slot(chosen, "schedule", code)
    made = own.build(warmup) if own else schedules.build(training.schedule, warmup, training.decay)
    made.floor = training.final_rate
    return made


def _broken(code: Code, made: list[type], broken: contracts.Verdict) -> CodeError:
    return CodeError(
        f"{code.blamed(made)} breaks a contract: {broken.contract.rstrip('.')}; but {broken.detail}.",
        "`microformer check FILE:Class` looks at all of them.",
    )
