"""A search for better settings: candidates from Optuna, each trained as a cell, and one file of all that is known.

What was tried lies in a SQLite file that Optuna and its tools read. A trial that a process works at is locked by it;
one that is unlocked and not at its end was left behind by a process that was killed, and is taken up again. So a sweep
can be killed at any time and gone on with, and the same command twice shares one sweep.

What is proposed depends on the sweep's seed, the trial's number and the trials that ended before it, and not on what a
process remembers: a sweep that was killed and gone on with is the one that was not. A training that lags behind is
stopped from outside, by its metrics.jsonl, and the verdict depends on these alone.

Akiba et al. 2019, "Optuna"; Bergstra et al. 2011 (TPE); Li et al. 2020, "A System for Massively Parallel Hyperparameter
Tuning" (halving); Watanabe et al. 2023, "PED-ANOVA" (importance). Knows nothing of how a training goes.
"""

import hashlib
import json
import math
import shutil
import sqlite3
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from microformer import files
from microformer.errors import FileError, MicroformerError, SettingsError, TrainingError, notice
from microformer.experiments.arms import Arm
from microformer.experiments.cells import Cell, check_room, code_hash, own_hashes, share_of_cores, train_one
from microformer.experiments.comparison import EXPERIMENTS
from microformer.experiments.extra import needed
from microformer.experiments.found import Sweep, Trial
from microformer.experiments.space import Between, Plan, Value
from microformer.pipeline.preparing import prepared_apart
from microformer.runs import Run
from microformer.settings import Settings

if TYPE_CHECKING:
    import optuna

STORAGE = "sweep.db"
# Parts of a training's budget after which it is held against the others'.
_PARTS = 16
# Candidates in a row that can't be, or are known, before the search gives up.
_DRAWS = 100
# Trainings in a row that fail for no fault of their settings: the next would, too.
_FAILURES = 3
# Those of which it is known how good they are.
_JUDGED = ("ended", "pruned", "diverged")


def sweep(
    plan: Plan,
    folder: str | Path = ".",
    output: str | Path | None = None,
    tell: Callable[[Trial, Sweep], None] = lambda trial, sweep: None,
) -> Sweep:
    """Tries candidates until there are as many as the plan says, and gives all that were.

    Args:
        plan: from `read_plan`.
        folder: where data/ and runs/ are.
        output: where the sweep is kept; None: experiments/ and the plan's name, in the folder.
        tell: called with each trial that has come to an end, and all there are.

    Raises:
        SettingsError: another sweep is kept there; a text or a file that the settings name is not there; more trainings
            at once than the machine can take.
        TrainingError: one training after the other fails.
        FileError: the storage can't be written, or is damaged.
    """
    optuna = needed("optuna")
    folder = Path(folder)
    output = folder / EXPERIMENTS / plan.name if output is None else Path(output)
    share_of_cores(plan.parallel)
    verbosity = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's, of what is experimental, and of ranges that it rounds
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with _explained(output / STORAGE):
                return _Search(plan, folder, output, tell).run()
        finally:
            optuna.logging.set_verbosity(verbosity)


@dataclass
class _Search:
    """A sweep at work in this process."""

    plan: Plan
    folder: Path
    output: Path
    tell: Callable[[Trial, Sweep], None]
    stop: threading.Event = field(default_factory=threading.Event)
    given_up: set[int] = field(default_factory=set)  # trials that failed here: not tried again before the next call
    failures: list[str] = field(default_factory=list)  # in a row
    exhausted: bool = False
    code: str = ""

    def run(self) -> Sweep:
        plan, self.code = self.plan, code_hash()
        with files.explained(self.output):
            self.output.mkdir(parents=True, exist_ok=True)
        what = self._what()
        with self._lock():
            self.storage = _storage(self.output / STORAGE)
            study = self._study()
            known = study.user_attrs.get("what")
            if known is None:
                study.set_user_attr("what", what)
            elif known != what:
                raise SettingsError(
                    f"{files.shown(self.output)} holds another sweep's trials: {_difference(known, what)}.",
                    "give this one a folder of its own, --output FOLDER; or delete that one.",
                )
        with ThreadPoolExecutor(plan.parallel, "trial") as pool:
            futures = [pool.submit(self._work) for _ in range(plan.parallel)]
            try:
                for done in as_completed(futures):
                    done.result()
            except BaseException:
                self.stop.set()  # those at work save; leaving the pool waits for them
                raise
        found = self._found(study)
        found = replace(found, importance=_importance(study, found))
        if not found.ended:
            reason = next((trial.reason for trial in reversed(found.trials) if trial.reason), "none was trained")
            raise TrainingError(f"no trial of this sweep has a loss: {reason.removesuffix('.')}.", "mend that first.")
        with self._lock():
            if not any(trial.how == "running" for trial in self._found(study).trials):
                shutil.rmtree(self.output / ".trials", ignore_errors=True)
        if others := sum(trial.how == "running" for trial in found.trials):
            notice(f"another process is still at {others} of the trials; they are not in this table.")
        return found

    def _what(self) -> dict[str, Any]:
        """What makes losses of one sweep comparable, and is the same in all of its calls."""
        plan = self.plan
        own: dict[str, str] = {}
        for chosen in (plan.base, *self._own_choices()):
            own |= own_hashes(chosen, self.folder)
        data = prepared_apart(plan.base, self.folder)
        if data.val is None:
            raise SettingsError(
                "there is no validation split, and candidates would be ranked by nothing.",
                "set VAL_FRACTION above 0 in the base.",
            )
        if plan.parallel > 1:
            check_room([(one, data) for one in (plan.base, *self._largest())], plan.parallel)
        base = plan.base.flat()
        del base["seed"]
        space = {
            name: {**vars(values)} if isinstance(values, Between) else list(values)
            for name, values in plan.space.items()
        }
        way = "grid" if plan.method == "grid" else "drawn"
        what = {
            "space": space, "base": base, "seeds": plan.seeds, "way": way,
            "code": self.code, "own": own, "data": data.fingerprint,
        }  # fmt: skip
        return json.loads(json.dumps(what))

    def _largest(self) -> list[Settings]:
        """The base with the largest of the sizes that are tried, if it can be."""
        sizes = ("embed_dim", "num_layers", "ff_dim", "max_seq_len", "batch_size")
        found = {
            name: values.high if isinstance(values, Between) else max(values)
            for name, values in self.plan.space.items()
            if name in sizes
        }
        with suppress(SettingsError):
            return [self.plan.base.changed(found)]
        return []

    def _own_choices(self) -> list[Settings]:
        """The base with each choice that names a file of the user's own."""
        found = []
        for name, values in self.plan.space.items():
            for value in () if isinstance(values, Between) else values:
                if isinstance(value, str) and ".py" in value:
                    with suppress(SettingsError):  # not beside the base's others; it is told where it is tried
                        found.append(self.plan.base.changed({name: value}))
        return found

    # --------------------------------------------------------------------------------------------------- what is next

    def _work(self) -> None:
        """Takes trials and tries them until there are enough."""
        study = self._study()
        while not self.stop.is_set():
            with self._lock():
                found = self._next(study)
            if found is None:
                return
            trial, candidate, held = found
            try:
                outcome = self._tried(trial, candidate)
                if outcome is None:
                    return  # asked to stop
                with self._lock():
                    self._written(study, trial, outcome)
            finally:
                held.release()

    def _next(self, study: "optuna.Study") -> "tuple[optuna.Trial, dict[str, Value], FileLock] | None":
        """The next trial, its candidate and the lock on it; None where nothing is left to begin. To be called alone."""
        refused, known = "", False
        for _ in range(_DRAWS):
            tried = [_trial(one) for one in study.get_trials(deepcopy=False)]
            found = self._left_behind(study) or self._asked(study, tried)
            if found is None:
                return None
            trial, held = found
            with _released_if_it_fails(held):
                candidate = self._candidate(trial)
                reason, twin = self._refused(candidate), _twin(candidate, tried[: trial.number])
                if reason is None and twin is None:
                    return trial, candidate, held
                if reason is not None:
                    refused = reason
                    self._written(study, trial, {"how": "refused", "reason": reason})
                elif twin is not None:
                    known = True
                    self._written(study, trial, {"how": "same", "of": twin.number, "loss": twin.loss})
            held.release()
        if not known:
            raise SettingsError(f"{_DRAWS} candidates in a row can't be: {refused}", "narrow the space.")
        notice("the search finds no candidate that was not tried yet; it ends here.")
        self.exhausted = True
        return None

    def _left_behind(self, study: "optuna.Study") -> "tuple[optuna.Trial, FileLock] | None":
        """A trial that a process began and no process is at, and the lock on it."""
        from optuna.trial import Trial as OptunaTrial
        from optuna.trial import TrialState

        for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if left.number not in self.given_up and (held := self._held(left.number)) is not None:
                with _released_if_it_fails(held):
                    # The constructor is what Optuna itself goes on with a trial by.
                    return OptunaTrial(study, left._trial_id), held
        return None

    def _asked(self, study: "optuna.Study", tried: Sequence[Trial]) -> "tuple[optuna.Trial, FileLock] | None":
        """A new trial and the lock on it; None where there are enough."""
        if sum(self._counts(one) for one in tried) >= self.plan.trials or self.exhausted:
            return None
        if self.plan.method == "grid":
            from optuna.trial import TrialState

            keys = {_key(one.settings) for one in tried}
            cell = next((cell for cell in self.plan.cells() if _key(cell) not in keys), None)
            if cell is None:
                return None
            # Else one was put there by a process that was killed then.
            if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                study.enqueue_trial(cell)
        trial = study.ask()
        held = self._held(trial.number)
        assert held is not None
        return trial, held

    def _counts(self, trial: Trial) -> bool:
        """Whether a trial is one of those that were asked for: in a grid all are, else those that could be."""
        return trial.how not in ("same", "waiting") and (trial.how != "refused" or self.plan.method == "grid")

    def _held(self, number: int) -> FileLock | None:
        """The lock on a trial; None where another holds it. It is released by the system when its holder is killed."""
        lock = FileLock(self.output / ".trials" / f"{number}.lock", timeout=0, thread_local=False)
        with files.explained(self.output):
            Path(lock.lock_file).parent.mkdir(exist_ok=True)
            with suppress(Timeout):
                lock.acquire()
                return lock
        return None

    def _sampler(self, number: int, setting: str) -> Any:
        """What proposes a setting of a trial: for each one of its own, so that a trial whose proposing was cut short is
        gone on with to the same candidate."""
        samplers = needed("optuna").samplers
        said = f"{self.plan.seed} {number} {setting}"
        seed = int.from_bytes(hashlib.sha256(said.encode()).digest()[:4], "big")
        if self.plan.method == "tpe":
            # Trials that others are at count as bad, so that two don't try the same.
            return samplers.TPESampler(seed=seed, constant_liar=True, multivariate=False)
        return samplers.RandomSampler(seed=seed)

    def _candidate(self, trial: "optuna.Trial") -> dict[str, Value]:
        """The settings of a trial, by the names in the space."""
        plan, found = self.plan, {}
        for name in plan.in_order():
            if name not in plan.read(found):
                continue
            values = plan.space[name]
            trial.study.sampler = self._sampler(trial.number, name)
            if not isinstance(values, Between):
                found[name] = trial.suggest_categorical(name, list(values))
            elif plan.method == "grid":
                found[name] = trial.suggest_categorical(name, values.cells() or [])
            elif values.whole:
                value = trial.suggest_int(
                    name, int(values.low), int(values.high), step=int(values.step or 1), log=values.log
                )
                found[name] = values.taken(value)
            else:
                found[name] = values.taken(
                    trial.suggest_float(name, values.low, values.high, step=values.step, log=values.log)
                )
        candidate = {name: found[name] for name in plan.space if name in found}
        trial.set_user_attr("candidate", candidate)
        return candidate

    def _refused(self, candidate: Mapping[str, Value]) -> str | None:
        """Why a candidate can't be trained, where its settings show it."""
        try:
            own_hashes(self.plan.settings(candidate, 1), self.folder)
        except MicroformerError as error:
            return error.sentence
        return None

    # ------------------------------------------------------------------------------------------------ what came of it

    def _tried(self, trial: "optuna.Trial", candidate: Mapping[str, Value]) -> dict[str, Any] | None:
        """Trains a candidate with every seed. Gives what is to be known of it; None where it was asked to stop."""
        plan, cells, about = self.plan, [], {}
        threads = share_of_cores(plan.parallel)
        judge = _Judge(trial) if plan.pruner != "none" else None
        began = time.monotonic()
        for seed in range(1, plan.seeds + 1):
            watch = judge.lags if judge and seed == 1 else None
            arm = Arm(f"{plan.name}-{trial.number}")
            how = {"threads": threads, "watch": watch, "stop": self.stop}
            cell = train_one(arm, seed, plan.settings(candidate, seed), self.folder, self.code, **how)
            cells.append(cell)
            about = {
                "runs": [one.run.name for one in cells], "parameters": cell.parameters,
                "steps": cell.steps, "seconds": sum(one.seconds for one in cells), "wall": time.monotonic() - began,
                "reused": all(one.reused for one in cells),
            }  # fmt: skip
            if cell.failed:
                diverged = cell.failed.startswith("it diverged")
                return {"how": "diverged" if diverged else "failed", "reason": cell.failed, **about}
            if judge and seed == 1 and judge.lags(Run(cell.run)):  # it may have ended between two looks
                return {"how": "pruned", "loss": self._loss(cell, judge.best), **about, "steps": judge.step}
            if cell.stopped:
                return None
        losses = [self._loss(cell) for cell in cells]
        return {"how": "ended", "loss": statistics.fmean(losses), "losses": losses, **about}

    @property
    def _per_byte(self) -> bool:
        """Whether the candidates' tokens differ, so that only bits a byte can be compared."""
        return bool({"tokenizer", "vocab_size"} & set(self.plan.space))

    def _loss(self, cell: Cell, loss: float | None = None) -> float:
        """What is compared of a cell; loss: in nats a token, in the place of its best."""
        loss = cell.loss if loss is None else loss
        return cell.bits_per_byte * loss / cell.loss if self._per_byte else loss

    def _written(self, study: "optuna.Study", trial: "optuna.Trial", outcome: dict[str, Any]) -> None:
        """Writes down what came of a trial, and tells it. The sweep is locked."""
        from optuna.trial import TrialState

        how, loss = outcome["how"], outcome.get("loss")
        trial.set_user_attr("outcome", outcome)
        if how == "failed":
            # For no fault of its settings: it stays open, and the next call tries it again.
            self.given_up.add(trial.number)
            self.failures.append(outcome["reason"])
        elif how == "ended" or (how == "same" and loss is not None and math.isfinite(loss)):
            study.tell(trial, loss)
        else:
            # To the search, what can't be trained is worse than all that can.
            study.tell(trial, state=TrialState.PRUNED)
        if how in ("ended", "pruned", "diverged"):
            self.failures.clear()
        if how != "same":
            found = self._found(study)
            self.tell(found.trials[trial.number], found)
        if len(self.failures) >= _FAILURES:
            raise TrainingError(
                f"{_FAILURES} trainings in a row failed, the last: {self.failures[-1].removesuffix('.')}.",
                "mend that, and give the same command again: it goes on.",
            )

    def _found(self, study: "optuna.Study") -> Sweep:
        """All there is but importance, which takes its time."""
        tried = tuple(_trial(one) for one in study.get_trials(deepcopy=False))
        return Sweep(self.plan, tried, per_byte=self._per_byte)

    def _study(self) -> "optuna.Study":
        optuna = needed("optuna")
        return optuna.create_study(
            storage=self.storage, study_name="sweep", load_if_exists=True, direction="minimize",
            pruner=_pruner(self.plan.pruner),
        )  # fmt: skip

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Alone with the sweep, for a moment."""
        lock = FileLock(self.output / ".sweep.lock")
        with files.explained(self.output):
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


class _Judge:
    """Whether a training lags behind those that have ended, by its validations.

    Each is put in the sixteenth of the budget at which it was, where a run that is left to itself validates; the first
    of each counts. The last is the loss itself, and no reason to stop.
    """

    def __init__(self, trial: "optuna.Trial"):
        self.trial = trial
        self.best, self.step = math.inf, 0
        # What was reported before it was taken up again.
        self._known = set(trial.storage.get_trial(trial._trial_id).intermediate_values)
        self._done = 0
        self._share: Callable[[Mapping[str, float | int]], float] | None = None
        self._lags = False

    def lags(self, run: Run) -> bool:
        if self._lags:
            return True
        self._share = self._share or _share(run)
        best = math.inf
        for row in run.metrics:
            if "val_loss" not in row:
                continue
            best = min(best, row["val_loss"])
            part = math.floor(_PARTS * self._share(row) + 1e-6)
            if not self._done < part < _PARTS:
                continue
            self._done, self.best, self.step = part, best, int(row["step"])
            if part not in self._known:
                self.trial.report(best, part)
            elif part < max(self._known):
                continue  # judged then
            if self.trial.should_prune():
                self._lags = True
                return True
        return False


def _share(run: Run) -> Callable[[Mapping[str, float | int]], float]:
    """What gives the share of the run's budget that is used at a row of its metrics."""
    training, tokens = run.settings.training, run.info["data"]["train"]["tokens"]

    def share(row: Mapping[str, float | int]) -> float:
        shares = [
            row["step"] / training.max_steps if training.max_steps else 0.0,
            row["tokens"] / (training.epochs * tokens) if training.epochs else 0.0,
            row["seconds"] / (60 * training.max_minutes) if training.max_minutes else 0.0,
        ]
        return max(shares)

    return share


def _pruner(word: str) -> Any:
    pruners = needed("optuna").pruners
    match word:
        case "median":  # worse than half of the trials were, from a quarter of the budget on, where five have ended
            return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=_PARTS // 4)
        case "halving":  # worse than the better half at a quarter and at half of the budget
            return pruners.SuccessiveHalvingPruner(min_resource=_PARTS // 4, reduction_factor=2)
        case _:
            return pruners.NopPruner()


def _importance(study: "optuna.Study", found: Sweep) -> dict[str, float]:
    """How much each setting decides whether a trial is among the best, the shares' sum being 1; empty where too few
    have ended to say."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    optuna = needed("optuna")
    if len(found.ended) < 8:
        return {}
    # Those that were stopped or diverged belong in it: without them what made them bad would decide nothing.
    worst = found.ended[-1].loss
    losses = {one.number: one.loss if one.how == "ended" else worst + 1 for one in found.trials if one.how in _JUDGED}
    whole = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for one in study.get_trials(deepcopy=False):
        if one.number in losses:
            how = {"params": one.params, "distributions": one.distributions, "value": losses[one.number]}
            whole.add_trial(optuna.trial.create_trial(**how))
    # Of the best tenth, or of five where that is fewer: PED-ANOVA's authors found fewer to be unsteady.
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, min(0.5, 5 / len(losses))))
    try:
        shares = get_param_importances(whole, evaluator=evaluator)
    except (ValueError, RuntimeError):  # all losses the same, or no setting that differs
        return {}
    return {name: share for name, share in shares.items() if math.isfinite(share)}


def _trial(one: "optuna.trial.FrozenTrial") -> Trial:
    """A trial as the storage has it."""
    from optuna.trial import TrialState

    how = "waiting" if one.state == TrialState.WAITING else "running"
    outcome = one.user_attrs.get("outcome", {"how": how})
    losses = outcome.get("losses", ())
    return Trial(
        number=one.number,
        settings=one.user_attrs.get("candidate", {}),
        how=outcome["how"],
        reason=outcome.get("reason"),
        loss=outcome.get("loss", math.nan),
        losses=tuple(losses),
        steps=outcome.get("steps", 0),
        seconds=outcome.get("seconds", 0.0),
        wall=outcome.get("wall", 0.0),
        parameters=outcome.get("parameters", 0),
        runs=tuple(outcome.get("runs", ())),
        reused=outcome.get("reused", False),
    )


@contextmanager
def _released_if_it_fails(held: FileLock) -> Iterator[None]:
    """Lets a trial go if it can't be begun, for another process or the next call to take up."""
    try:
        yield
    except BaseException:
        held.release()
        raise


def _twin(candidate: Mapping[str, Value], tried: Sequence[Trial]) -> Trial | None:
    """A trial of the same candidate, if there is one."""
    return next((one for one in tried if one.how != "refused" and _key(one.settings) == _key(candidate)), None)


def _key(candidate: Mapping[str, Value]) -> str:
    return json.dumps(candidate, sort_keys=True)


def _difference(known: Mapping[str, Any], what: Mapping[str, Any]) -> str:
    """In which of its parts a sweep is another."""
    if known.get("code") != what["code"]:
        return "they were trained by another version of the code"
    if known.get("own") != what["own"]:
        return "a component of your own was another then"
    if known.get("data") != what["data"]:
        return "they were trained on other data"
    if known.get("way") != what["way"]:
        return f"its method is {'grid' if what['way'] == 'drawn' else 'random or tpe'}"
    for part, name in (("space", "its space"), ("base", "its base")):
        there, here = known.get(part, {}), what[part]
        for setting in (*here, *there):
            if there.get(setting) != here.get(setting):
                return f"{name} is another in {setting}"
    return f"it has {known.get('seeds')} seeds a trial"


def _storage(path: Path) -> Any:
    from optuna.storages import RDBStorage

    def connected() -> sqlite3.Connection:
        # Long enough for another process's writing; as a path, for an address has signs of its own.
        return sqlite3.connect(path, timeout=60, check_same_thread=False)

    return RDBStorage("sqlite:///sweep.db", engine_kwargs={"creator": connected})


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what the storage's libraries refuse into a FileError."""
    from optuna.exceptions import StorageInternalError

    sqlalchemy = needed("sqlalchemy")
    try:
        yield
    except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as error:
        cause: BaseException = error
        while not isinstance(cause, sqlite3.Error) and (inner := cause.__cause__ or cause.__context__) is not None:
            cause = inner
        said = str(cause).split("\n")[0]
        hint = "what was trained is kept; give the same command again when that is mended."
        if "full" in said:
            hint = "free some space on that disk; what was trained is kept, and the same command goes on."
        elif "not a database" in said or "malformed" in said:
            hint = "restore it, or delete it: what was trained is kept in runs/, and used again."
        raise FileError(f"can't use {files.shown(path)}: {said}.", hint) from error
