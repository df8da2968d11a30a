"""From settings to a trained run: prepare if needed, build, train, write down how it ended; or resume."""

import platform
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from microformer import corpora, devices, evaluation, files, runs, settings, tokenization
from microformer.errors import SettingsError, TrainingError, notice
from microformer.models.model import Microformer
from microformer.models.spec import ModelSpec
from microformer.pipeline import report
from microformer.pipeline.preparing import check_same, data_of, prepared_data
from microformer.pipeline.text import generate
from microformer.runs import Run
from microformer.settings import BUDGETS, FREQUENCIES, Settings
from microformer.training.averaging import Average
from microformer.training.batches import Shuffled
from microformer.training.budgets import Budget, steps_for
from microformer.training.loop import Loop, Plan
from microformer.training.observers import EarlyStopping, Observer, Row
from microformer.training.optimizers import Optimizer, Recipe
from microformer.training.progress import Progress
from microformer.training.schedules import Schedule


def train(
    config: str | Path | None = None,
    *,
    run: str | None = None,
    resume: bool = False,
    show: bool = True,
    **given: Any,
) -> Run:
    """Trains a model, from text to a run folder.

    Args:
        config: a config file, a run's run.json, or the name of a ready config; None: `config.py` here, or the defaults.
        run: the run's name; None for one made from the corpus's, or, to resume, the latest.
        resume: continue the run where it was last saved. Only budgets and how often things happen may change.
        show: whether to print how it goes.
        given: settings by name, such as `embed_dim=64`; they win over the config.

    Returns:
        The run, with its model, tokenizer, settings and metrics.

    Raises:
        MicroformerError: something the user can mend; see its sentence and hint.
    """
    if resume:
        found = runs.find(run)
        with found.lock():
            return _resume(found, given, show)
    chosen = settings.resolve(config, given)
    if run is not None:
        runs.check_free(run)  # before time goes into the data
    data = prepared_data(chosen)
    replayed = _replayed(config, data, given)
    spec = settings.model_spec(chosen, data.tokenizer.vocab_size, _context(chosen, data))
    _check_memory(spec)
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
        tokenization.save(data.tokenizer, new.folder / "tokenizer.json")
        if replayed:
            files.write_json(new.folder / "schedule.json", {"progress": replayed})
        new.write_info(
            {
                "created": _now(),
                "settings": chosen.flat(),
                "model": spec.to_json(),
                "parameters": Microformer(spec).num_parameters(),
                "data": {"fingerprint": data.fingerprint, "corpus": data.corpus, "split": data.manifest["train"]},
                "compute": compute.reason,
                "versions": _versions(),
                "replays_schedule": bool(replayed),
                "legs": [{"from_step": 0, "from_seconds": 0.0, **_budgets(chosen)}],
                "ended": None,
            }
        )
        return _train(Run(new.folder), data, show)


def _resume(run: Run, given: Mapping[str, Any], show: bool) -> Run:
    before = run.settings
    changes = Settings().changed(given).flat()
    for name in given:
        if name not in (*BUDGETS, *FREQUENCIES) and changes[name] != before.flat()[name]:
            raise SettingsError(
                f"--resume goes on with the run's own settings, and its {name.upper()} is {before.flat()[name]!r}.",
                f"only these may change: {', '.join((*BUDGETS, *FREQUENCIES))}. For others start a new run.",
            )
    wanted = {name: changes[name] for name in given}
    if any(name in wanted for name in BUDGETS):
        wanted = {**dict.fromkeys(BUDGETS, 0), **wanted}
    after = before.changed(wanted)
    data = data_of(run)
    legs = [dict(leg) for leg in run.info["legs"]]
    ended = run.info["ended"]
    if ended and ended["how"] != "interrupted":
        budget = _budget(after, data, legs[-1] | {"from_step": ended["step"], "from_seconds": ended["seconds"]})
        if _budgets(after) == _budgets(before) or budget.used_up(ended["step"], ended["seconds"]):
            notice(
                f"the run {run.name!r} has ended after {ended['step']:,} steps ({ended['how']}); "
                f"a larger budget goes on, such as --max-steps {2 * ended['step']}."
            )
            return run
        legs.append({"from_step": ended["step"], "from_seconds": ended["seconds"]})
    legs[-1] |= _budgets(after)
    run.write_info({**run.info, "settings": after.flat(), "legs": legs, "ended": None})
    return _train(Run(run.folder), data, show)


def _train(run: Run, data: corpora.Prepared, show: bool) -> Run:
    """Trains the run as its folder describes it, from its last checkpoint on if there is one."""
    training, machine = run.settings.training, run.settings.machine
    compute = devices.choose(machine.device, machine.precision, int(machine.threads))
    devices.use(compute)
    model = Microformer(run.spec, training.seed).to(compute.device)
    model.compute_dtype = compute.torch_dtype
    recorded = files.read_json(run.folder / "schedule.json")["progress"] if run.info["replays_schedule"] else None
    budget = _budget(run.settings, data, run.info["legs"][-1], recorded)

    stopping = EarlyStopping(training.patience)
    observers: list[Observer] = [stopping, _MetricsWriter(run)]
    progress = None
    if show:
        progress = Progress(None if budget.on_the_clock else budget.steps, report.bits_per_nat(data))
        observers.append(progress)
    # Dropout draws from torch's own generator; everything else that is random has one of its own.
    with _interruption() as asked_to_stop, torch.random.fork_rng():
        torch.manual_seed(training.seed)
        loop = Loop(
            model=model,
            optimizer=Optimizer(model, _recipe(training, compute)),
            average=Average(model, training.averaging),
            batches=Shuffled(data.train, run.spec.max_seq_len, training.seed),
            schedule=Schedule(training.schedule, training.warmup, training.decay),
            budget=budget,
            plan=Plan(**{name: getattr(training, name) for name in Plan.__dataclass_fields__}),
            device=compute.device,
            evaluate=_validation(model, data),
            save=lambda which: _save(run, loop, which),
            observers=observers,
            asked_to_stop=asked_to_stop,
        )
        _restore(run, loop, stopping)
        if show:
            report.say_sizes(run, data, compute, budget)
        try:
            with progress or nullcontext():
                how = loop.run()
        except Exception as error:
            if devices.out_of_memory(error):
                raise TrainingError(
                    f"memory ran out at step {loop.position.step + 1}.",
                    "lower BATCH_SIZE (or raise ACCUMULATE), MAX_SEQ_LEN or EMBED_DIM; what was saved can be resumed.",
                ) from error
            raise
    return _finish(run, loop, data, how, show)


def _restore(run: Run, loop: Loop, stopping: EarlyStopping) -> None:
    """Puts the loop where the last checkpoint left it, and forgets what came after."""
    if run.index["last"] is None:
        if run.metrics:
            notice(f"the run {run.name!r} was stopped before its first checkpoint; it starts again from step 0.")
        run.cut_back(0)
        return
    folder = run.checkpoint("last")
    runs.load_weights(loop.model, folder / "model.safetensors")
    loop.load_state(runs.load_tensors(folder / "training.safetensors"), files.read_json(folder / "training.json"))
    run.cut_back(loop.position.step)
    if run.info["legs"][-1]["from_step"] == loop.position.step > 0:
        stopping.without = 0  # a new leg may wait for a better validation as long as the first did


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
    position = loop.position
    if loop.taken:
        files.write_json(run.folder / "schedule.json", {"progress": loop.taken})
    baselines = {"uniform": evaluation.uniform(run.spec.vocab_size)}
    if data.val is not None:
        baselines["unigram"] = evaluation.unigram(data.train, data.val, run.spec.vocab_size)
    figures = report.figures(run, position, baselines, data)
    report.draw(run, baselines)
    sample = ""
    if how != "interrupted":
        sample = generate(run, report.first_words(run))
        files.write_text(run.folder / "samples.txt", f"step {position.step:,}, temperature 0.8\n\n{sample}\n")
    ended = {"how": how, "at": _now(), "step": position.step, "seconds": round(position.seconds, 3)}
    run.write_info({**run.info, "ended": ended, "figures": figures})
    if show:
        report.say_end(run, sample)
    return Run(run.folder)


class _MetricsWriter(Observer):
    """Keeps every row in the run folder."""

    def __init__(self, run: Run):
        self.run = run

    def on_row(self, row: Row) -> None:
        self.run.append_metrics(row)


def _validation(model: Microformer, data: corpora.Prepared) -> Callable[[], float] | None:
    val = data.val
    if val is None:
        notice("there is no validation split: nothing is validated, and the last weights are the ones kept.")
        return None
    prime = int(data.train[-1])
    return lambda: evaluation.evaluate(model, val, prime).nats_per_token


def _recipe(training: settings.TrainingSettings, compute: devices.Compute) -> Recipe:
    return Recipe(
        kind=training.optimizer,
        rate=training.learning_rate,
        weight_decay=training.weight_decay,
        momentum=training.momentum,
        betas=(training.beta_1, training.beta_2),
        dtype=compute.torch_dtype,
    )


def _budgets(chosen: Settings) -> dict[str, float]:
    return {name: getattr(chosen.training, name) for name in BUDGETS}


def _budget(
    chosen: Settings, data: corpora.Prepared, leg: Mapping[str, Any], recorded: list[float] | None = None
) -> Budget:
    training = chosen.training
    if not any(_budgets(chosen).values()):
        raise SettingsError(
            "EPOCHS, MAX_STEPS and MAX_MINUTES are all 0: training would never end.",
            "set one of them, such as --epochs 12.",
        )
    return Budget(
        steps=steps_for(
            training.epochs, training.max_steps, (len(data.train) - 1) / _context(chosen, data), training.batch_size
        ),
        seconds=training.max_minutes * 60 or None,
        from_step=leg["from_step"],
        from_seconds=leg["from_seconds"],
        recorded=recorded,
    )


def _context(chosen: Settings, data: corpora.Prepared) -> int:
    """MAX_SEQ_LEN, or what a shorter text allows."""
    return min(chosen.model.max_seq_len, len(data.train) - 1)


def _replayed(config: str | Path | None, data: corpora.Prepared, given: Mapping[str, Any]) -> list[float] | None:
    """The schedule to follow, where a run is repeated by its own run.json and the clock decided its schedule."""
    if config is None or Path(config).suffix != ".json":
        return None
    first = Run(Path(config).parent)
    check_same(data, first.info["data"]["fingerprint"], f"the run {first.name!r}")
    if len(first.info["legs"]) > 1:
        notice(
            f"the run {first.name!r} went on after its end {len(first.info['legs']) - 1} times; "
            "this one runs in one go."
        )
    schedule = first.folder / "schedule.json"
    if not schedule.is_file() or any(name in given for name in BUDGETS):
        return None
    return files.read_json(schedule)["progress"]


def _check_memory(spec: ModelSpec) -> None:
    """Raises TrainingError where weights, gradients and the optimizer's two moments alone are more than there is."""
    matrices = sum(4 * spec.embed_dim**2 + 2 * spec.embed_dim * spec.ff_dim for _ in spec.layers)
    needed = 16 * (matrices + 2 * spec.vocab_size * spec.embed_dim)
    there = devices.memory_available()
    if there is not None and needed > there:
        raise TrainingError(
            f"this model takes {needed / 1e9:,.0f} GB for its weights alone, and {there / 1e9:,.0f} GB are free.",
            "lower EMBED_DIM, NUM_LAYERS or FF_DIM.",
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

    before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _versions() -> dict[str, str]:
    try:
        own = version("microformer")
    except PackageNotFoundError:  # run from a folder, not installed
        own = "unknown"
    return {
        "microformer": own,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
