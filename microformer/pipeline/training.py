"""From settings to a trained run: prepare if needed, build, train, write down how it ended; or resume."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from microformer import baselines, corpora, devices, evaluation, files, own_code, runs, settings, tokenization
from microformer.errors import DivergedError, MicroformerError, RunError, SettingsError, TrainingError, notice
from microformer.models.model import Microformer
from microformer.models.spec import ModelSpec
from microformer.pipeline import beside, components, report, starting
from microformer.pipeline.beside import Beside
from microformer.pipeline.describing import budgets, data_described, described, now
from microformer.pipeline.fast_loss import fast_loss
from microformer.pipeline.preparing import apart_of, check_same, check_tokenizer, data_of, prepared_data
from microformer.pipeline.text import generate, held_out_question
from microformer.runs import Run
from microformer.settings import BUDGETS, FREQUENCIES, DataSettings, Settings
from microformer.trackers import Tracker
from microformer.training.averaging import Average
from microformer.training.batches import Shuffled, Streams
from microformer.training.budgets import Budget, Record, steps_for
from microformer.training.loop import Loop, Plan
from microformer.training.observers import EarlyStopping, Observer, Row
from microformer.training.optimizers import Optimizer, Recipe
from microformer.training.progress import Progress

# What a step's memory depends on.
_LOWER = "BATCH_SIZE (or raise ACCUMULATE), MAX_SEQ_LEN or EMBED_DIM"


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Turns every way of running out of memory into one TrainingError."""
    try:
        yield
    except Exception as error:
        if not devices.out_of_memory(error):
            raise
        raise TrainingError(
            "memory ran out while training.", f"lower {_LOWER}; what was saved before is kept in the run's folder."
        ) from error


@_enough_memory()
def train(
    config: str | Path | None = None,
    *,
    run: str | None = None,
    resume: bool = False,
    start: str | None = None,
    show: bool = True,
    trust_code: bool = False,
    begun: Callable[[Run], None] | None = None,
    track: Sequence[Tracker] = (),
    prepared: str | None = None,
    **given: Any,
) -> Run:
    """Trains a model, from text to a run folder.

    Args:
        config: a config file, a run's run.json, or the name of a ready config; None: `config.py` here, or the defaults.
        run: the run's name; None for one made from the corpus's, or, to resume, the latest.
        resume: continue the run where it was last saved. Only budgets and how often things happen may change.
        start: a run whose model and tokenizer a new training begins with, at its best weights.
        show: whether to print how it goes.
        trust_code: whether the own components of the run that is resumed, repeated or begun with are run even if
            nothing was trained with them on this machine.
        begun: called with the run when its folder is there and the first step is about to be taken.
        track: trackers of your own, beside those that TRACKERS names.
        prepared: the fingerprint of data in data/.prepared/ to train on, whatever lies in data/; see `prepared_apart`.
        given: settings by name, such as `embed_dim=64`; they win over the config.

    Returns:
        The run, with its model, tokenizer, settings and metrics.

    Raises:
        MicroformerError: something the user can mend; see its sentence and hint.
    """
    if resume:
        found = runs.find(run, trust_code=trust_code)
        with found.lock():
            found.code.trust()
            components.notice_changes(found)
            return _resume(found, given, show, begun, track)
    chosen = settings.resolve(config, given)
    source = None if start is None else starting.source(start, trust_code)
    if source is not None:
        chosen = starting.from_run(source, chosen, given)
    _check_budget(chosen)
    beside.check(chosen.training.trackers)
    if run is not None:
        runs.check_free(run)  # before time goes into the data
    code = components.read(chosen, config if source is None else source.folder / "run.json", given, trust_code)
    components.try_out(chosen, code)
    data = prepared_data(chosen) if prepared is None else apart_of(prepared)
    if source is not None:
        check_tokenizer(data, source)
    if chosen.training.stop_on == "exact_match" and data.example == 1:
        raise SettingsError(
            f"STOP_ON is exact_match, and {data.corpus} is no task: it has no examples to be right or wrong.",
            "leave STOP_ON at loss, or take a task: `microformer corpora` lists them.",
        )
    replayed = _replayed(config, data, given)
    spec = own_code.bound(settings.model_spec(chosen, data.tokenizer.vocab_size, _context(chosen, data)), code)
    _check_memory(spec, chosen)
    compute = devices.choose(
        chosen.machine.device,
        chosen.machine.precision,
        0 if chosen.machine.threads == "auto" else int(chosen.machine.threads),
        width=spec.embed_dim,
        tokens=chosen.training.batch_size * spec.max_seq_len,
    )
    chosen = chosen.changed({name: getattr(compute, name) for name in ("device", "precision", "threads")})
    new = runs.create(run, data.corpus)
    with new.lock():
        code.copy(new.folder / "code")
        code.trust()
        tokenization.save(data.tokenizer, new.folder / "tokenizer.json")
        if replayed:
            files.write_json(new.folder / "schedule.json", asdict(replayed))
        if source is not None:
            starting.write_start(new, starting.weights_of(source, spec), chosen)
        new.write_info(
            described(
                chosen,
                spec,
                Microformer(spec).num_parameters(),
                data_described(data),
                code=code.hashes,
                compute=compute.reason,
                replays_schedule=bool(replayed),
                **({} if source is None else {"from": {"run": source.name, "checkpoint": source.chosen}}),
            )
        )
        return _train(Run(new.folder), data, show, begun, track)


def _resume(
    run: Run, given: Mapping[str, Any], show: bool, begun: Callable[[Run], None] | None, track: Sequence[Tracker]
) -> Run:
    before = run.settings
    after = before.changed(given)
    for name in given:
        if name not in (*BUDGETS, *FREQUENCIES) and after.flat()[name] != before.flat()[name]:
            raise SettingsError(
                f"--resume goes on with the run's own settings, and its {name.upper()} is {before.flat()[name]!r}.",
                f"only these may change: {', '.join((*BUDGETS, *FREQUENCIES))}. For others start a new run.",
            )
    beside.check(after.training.trackers)
    if any(name in given for name in BUDGETS):
        after = after.changed({name: 0 for name in BUDGETS if name not in given})
    _check_budget(after)
    first = run.info["data"]["fingerprint"] is None  # imported, and trained on nothing here yet
    data = prepared_data(Settings().changed({"tokenizer": before.data.tokenizer})) if first else data_of(run)
    check_tokenizer(data, run)
    leg, ended = run.info["legs"][-1], run.info["ended"]
    if ended and ended["how"] == "diverged":
        raise RunError(
            f"the run {run.name!r} diverged at step {ended['step']:,}, and would again.",
            "start a new one with a lower --learning-rate; this one's last good checkpoint can be used.",
        )
    more = budgets(after) != budgets(before)
    goes_on = (
        ended and ended["how"] == "imported" and not _budget(before, run.spec, data, leg).used_up(ended["step"], 0.0)
    )
    if ended and ended["how"] != "interrupted" and not goes_on:
        # A run that stopped early has budget left: more patience is enough to go on.
        more = more or after.training.patience != before.training.patience
        if more:
            leg = {"from_step": ended["step"], "from_seconds": ended["seconds"]}
        if not more or _budget(after, run.spec, data, leg).used_up(ended["step"], ended["seconds"]):
            notice(
                f"the run {run.name!r} has ended after {ended['step']:,} steps ({ended['how']}); "
                f"a larger budget goes on, such as --max-steps {2 * ended['step']}."
            )
            return run
    elif run.index["last"] is None:
        notice(f"the run {run.name!r} was stopped before its first checkpoint; it starts again from step 0.")
    # A budget that changes on the way is a leg too, one that begins where the leg before it began.
    legs = [*run.info["legs"], {**leg, **budgets(after)}] if more else run.info["legs"]
    memory = (ended or run.info).get("memory")
    changed = {
        **run.info, "settings": after.flat(), "data": data_described(data), "legs": legs, "ended": None,
        "memory": memory,
    }  # fmt: skip
    return _train(Run(run.folder), data, show, begun, track, changed)


def _train(
    run: Run,
    data: corpora.Prepared,
    show: bool,
    begun: Callable[[Run], None] | None = None,
    track: Sequence[Tracker] = (),
    changed: Mapping[str, Any] | None = None,
) -> Run:
    """Trains the run as its folder describes it, from its last checkpoint on if there is one.

    Args:
        begun: called when the first step is about to be taken.
        track: trackers beside those of the settings.
        changed: what run.json is to say from now on. It is put back as it was where the run can't be gone on with.
    """
    before = run.info
    machine = run.settings.machine
    compute = devices.choose(machine.device, machine.precision, int(machine.threads))
    devices.use(compute)
    if changed is not None:
        run.write_info(changed)
        run = Run(run.folder)
    training = run.settings.training
    model = Microformer(run.spec, training.seed).to(compute.device)
    model.compute_dtype = compute.torch_dtype
    legs = run.info["legs"]
    replays = run.info["replays_schedule"] and len(legs) == 1  # not where another budget was asked for since
    recorded = _record(run) if replays else None
    budget = _budget(run.settings, run.spec, data, legs[-1], recorded)

    stopping = EarlyStopping(training.patience, training.stop_on == "exact_match")
    looking = Beside(run, model, data, lambda: loop.average.in_place(), track)
    observers: list[Observer] = [stopping, _MetricsWriter(run), *looking.observers]
    progress = None
    if show:
        progress = Progress(None if budget.on_the_clock else budget.steps, report.bits_per_nat(data))
        observers.append(progress)
    # Dropout draws from torch's own generator; everything else that is random has one of its own.
    random = torch.random.fork_rng(_generators(compute.device))
    with run.code.explained(), _interruption() as asked_to_stop, random, looking:
        torch.manual_seed(training.seed)
        loop = Loop(
            model=model,
            optimizer=Optimizer(model, _recipe(run, compute)),
            average=Average(model, training.averaging),
            batches=_batches(run, data),
            schedule=components.schedule_of(run.settings, run.code, budget.leg_steps),
            budget=budget,
            plan=Plan(**{name: getattr(training, name) for name in Plan.__dataclass_fields__}),
            device=compute.device,
            evaluate=_validation(model, data),
            save=lambda which: _save(run, loop, which),
            observers=observers,
            asked_to_stop=asked_to_stop,
            loss=fast_loss(
                run.settings,
                model,
                compute,
                masked=data.counted(data.train) is not None,
                own=bool(run.code.hashes),
            ),
        )
        try:
            _restore(run, loop, stopping)
        except MicroformerError:
            run.write_info(before)
            raise
        if show:
            report.say_sizes(run, data, budget)
        if begun is not None:
            begun(run)
        looking.begin(loop.position.step)
        try:
            with progress or nullcontext():
                how = loop.run()
        except DivergedError:
            run.write_info({**run.info, "ended": _ended(run, loop, "diverged")})
            raise
        if how != "interrupted":  # nothing is measured because of an interruption
            looking.probing.at_end(loop.position.step)
    try:
        return _finish(run, loop, data, how, show)
    finally:
        looking.end(how)


def _restore(run: Run, loop: Loop, stopping: EarlyStopping) -> None:
    """Puts the loop where the last checkpoint left it, and forgets what came after."""
    if run.index["last"] is None:
        run.cut_back(0)
        return
    folder = run.checkpoint("last")
    runs.load_weights(loop.model, folder / "model.safetensors")
    tensors, plain = runs.load_tensors(folder / "training.safetensors"), files.read_json(folder / "training.json")
    try:
        loop.load_state(tensors, plain)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(
            f"{folder} can't be resumed from: {type(error).__name__} {error}.",
            "its files don't belong together; restore them, or start a new run.",
        ) from error
    run.cut_back(loop.position.step)
    if run.info["legs"][-1]["from_step"] == loop.position.step > 0:
        # The rate rises again, and the loss with it: a leg is judged by its own validations.
        stopping.load_state_dict(EarlyStopping(0).state_dict())


def _save(run: Run, loop: Loop, which: Literal["last", "best", "snapshot"]) -> None:
    def fill(folder: Path) -> None:
        runs.save_weights(loop.model, folder / "model.safetensors")
        if which == "last":
            tensors, plain = loop.state()
            runs.save_tensors(tensors, folder / "training.safetensors")
            files.write_json(folder / "training.json", plain)

    run.write_checkpoint(which, loop.position.step, fill)


def _finish(run: Run, loop: Loop, data: corpora.Prepared, how: str, show: bool) -> Run:
    """Writes down how the run ended, with figures, picture and sample, and says it."""
    position, ended = loop.position, _ended(run, loop, how)
    if loop.record.progress:
        files.write_json(run.folder / "schedule.json", asdict(loop.record))
    learned, measured = (
        ids if (counted := data.counted(ids)) is None else ids[counted]
        for ids in (data.train, data.train if data.val is None else data.val)
    )
    held_against = {
        "uniform": baselines.uniform(run.spec.vocab_size),
        "unigram": baselines.unigram(learned, measured, run.spec.vocab_size),
    }
    if data.entropy:  # where answers are certain it is 0, and no line to draw
        held_against["the task's entropy"] = data.entropy
    figures = report.figures(run, position, held_against, data)
    if use := report.expert_use(run.model, data.train if data.val is None else data.val):
        figures["expert_use"] = use
    report.draw(run, held_against)
    sample = ""
    if how != "interrupted":
        sample = _sample(run, data)
        files.write_text(run.folder / "samples.txt", f"step {position.step:,}, {sample}\n")
    run.write_info({**run.info, "ended": ended, "figures": figures})
    if show:
        report.say_end(run, sample)
    return Run(run.folder)


def _ended(run: Run, loop: Loop, how: str) -> dict[str, Any]:
    """How it ended, when, where, and the most memory that it took, in bytes: of a resumed run its largest part's."""
    taken = [devices.peak_memory(loop.device), run.info.get("memory")]
    memory = max((one for one in taken if one is not None), default=None)
    seconds = round(loop.position.seconds, 3)
    return {"how": how, "at": now(), "step": loop.position.step, "seconds": seconds, "memory": memory}


def _sample(run: Run, data: corpora.Prepared) -> str:
    """What the run writes, and how it was asked: a text at will, or a task's answer."""
    asked = held_out_question(run, data)
    if asked is None:
        return f"temperature 0.8:\n\n{generate(run, report.first_words(run), max_new_tokens=300)}"
    question, answer, length = asked
    made = generate(run, question, max_new_tokens=length, temperature=0.0)
    return f"a question held out:\n\n{made}\n\nand its answer:\n\n{question}{answer}"


class _MetricsWriter(Observer):
    """Keeps every row in the run folder."""

    def __init__(self, run: Run):
        self.run = run

    def on_row(self, row: Row) -> None:
        self.run.append_metrics(row)


def _validation(model: Microformer, data: corpora.Prepared) -> Callable[[], Row] | None:
    val = data.val
    if val is None:
        notice("there is no validation split: nothing is validated, and the last weights are the ones kept.")
        return None
    prime, counted = int(data.train[-1]), data.counted(val)

    def validated() -> Row:
        loss = evaluation.evaluate(model, val, prime, counted=counted, example=data.example)
        exact = {} if loss.exact_match is None else {"val_exact_match": loss.exact_match}
        return {"val_loss": loss.nats_per_token, **exact}

    return validated


def _batches(run: Run, data: corpora.Prepared) -> Shuffled | Streams:
    spec, training, order = run.spec, run.settings.training, run.settings.data.data_order
    sample, counted = spec.max_seq_len * spec.segments, data.counted(data.train)
    if order == "streams" or (order == "auto" and spec.carries):
        return Streams(data.train, sample, training.seed, training.batch_size, counted, data.example)
    return Shuffled(data.train, sample, training.seed, counted, data.example)


def _recipe(run: Run, compute: devices.Compute) -> Recipe:
    training = run.settings.training
    return Recipe(
        kind=components.in_slot(run.settings, "optimizer", run.code) or training.optimizer,
        rate=training.learning_rate,
        weight_decay=training.weight_decay,
        momentum=training.momentum,
        betas=(training.beta_1, training.beta_2),
        dtype=compute.torch_dtype,
    )


def _generators(device: str) -> list[int]:
    """The GPUs whose generator a training on `device` draws from; the CPU's is always among those forked."""
    return [torch.cuda.current_device()] if device == "cuda" else []


def _check_budget(chosen: Settings) -> None:
    if not any(budgets(chosen).values()):
        raise SettingsError(
            "EPOCHS, MAX_STEPS and MAX_MINUTES are all 0: training would never end.",
            "set one of them, such as --epochs 12.",
        )


def _budget(
    chosen: Settings, spec: ModelSpec, data: corpora.Prepared, leg: Mapping[str, Any], recorded: Record | None = None
) -> Budget:
    training, sample = chosen.training, spec.max_seq_len * spec.segments
    return Budget(
        steps=steps_for(training.epochs, training.max_steps, (len(data.train) - 1) / sample, training.batch_size),
        seconds=training.max_minutes * 60 or None,
        from_step=leg["from_step"],
        from_seconds=leg["from_seconds"],
        recorded=recorded,
    )


def _context(chosen: Settings, data: corpora.Prepared) -> int:
    """MAX_SEQ_LEN, or what a shorter text allows."""
    return min(chosen.model.max_seq_len, len(data.train) - 1)


def _replayed(config: str | Path | None, data: corpora.Prepared, given: Mapping[str, Any]) -> Record | None:
    """The schedule to follow, where a run is repeated by its own run.json and the clock decided its schedule."""
    if config is None or Path(config).suffix != ".json":
        return None
    if any(name in given for name in (*BUDGETS, *DataSettings.__dataclass_fields__)):
        return None  # another run, with that one's other settings
    first = Run(Path(config).parent)
    if first.info["data"]["fingerprint"] is None:
        return None  # imported: it was not trained here
    check_same(data, first.info["data"]["fingerprint"], f"the run {first.name!r}")
    if len(first.info["legs"]) > 1:
        notice(f"the budget of the run {first.name!r} was changed on its way; this one runs in one go.")
        return None
    return _record(first)


def _record(run: Run) -> Record | None:
    """What a run on the clock did at which step; None for a run by steps."""
    path = run.folder / "schedule.json"
    if not path.is_file():
        return None
    try:
        return Record(**files.read_json(path))
    except TypeError as error:
        raise RunError(f"{path} is damaged: {error}.", "restore it, or start a new run.") from error


def _check_memory(spec: ModelSpec, chosen: Settings) -> None:
    """Raises TrainingError where even the least that a step can take is more than there is.

    Where memory is promised freely, as on Linux, a program that takes too much is killed without a word.
    """
    there = devices.memory_available()
    if there is None:
        return
    weights, activations = report.least_memory(spec, chosen)
    if chosen.machine.device != "cpu" and devices.Machine().accelerators():
        activations = 0  # they are the accelerator's, which says itself when it has no room
    if weights + activations > there:
        raise TrainingError(
            f"this training takes at least {(weights + activations) / 1e9:,.1f} GB, "
            f"and {there / 1e9:,.1f} GB of memory are free.",
            "lower EMBED_DIM, NUM_LAYERS or FF_DIM." if weights > activations else f"lower {_LOWER}.",
        )


@contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """While inside, Ctrl-C (and a termination signal) asks to stop after the step; a second Ctrl-C stops at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may take signals
        return

    def take(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)  # what another program can send there
    before = {number: signal.signal(number, take) for number in numbers}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
