"""The training loop. It is handed what it needs and knows no files, no text and no terminal.

for each step:  loss of a batch → gradients → clip → optimizer;  now and then: log, validate, save
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from microformer.errors import DivergedError
from microformer.models.model import Microformer
from microformer.models.state import State
from microformer.training.averaging import Average
from microformer.training.batches import Batch, Shuffled, Streams
from microformer.training.budgets import Budget, Record
from microformer.training.observers import Observer, Row
from microformer.training.optimizers import Optimizer
from microformer.training.schedules import Schedule

# Of ids, targets, mask and state, as the model's `loss_and_state`.
LossAndState = Callable[[Tensor, Tensor, Tensor | None, State | None], tuple[Tensor, State | None]]

# How often a run validates when it is left to itself.
_VALIDATIONS = 16
# The share of its time that a run on the clock gives to them: every second there is a second not trained.
_VALIDATING = 0.05
_SNAPSHOTS = 20


@dataclass
class Position:
    """Where a run stands.

    Args:
        step: optimizer steps taken.
        samples: sequences taken from the data: its position, whatever the number of processes.
        tokens: targets learned from.
        seconds: wall time since training began, evaluations included, all parts of a resumed run.
        best: lowest validation loss so far, in nats a token; None before the first.
        best_step: the step it was measured at.
    """

    step: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int | None = None


@dataclass(frozen=True)
class Plan:
    """How often things happen, and how large a step is.

    Args:
        batch_size: sequences a step.
        accumulate: equal parts that a batch is computed in.
        grad_clip: largest norm of the whole gradient; 0 for no limit.
        eval_every, checkpoint_every: steps; auto for 16 times in a run (on the clock, fewer where they would take more
            than a twentieth of its time), and with each validation.
        checkpoint_minutes: the longest time between checkpoints; 0 for any.
        snapshots: whether weights are kept at steps 1, 2, 4, 8 …
        log_every: steps between logged rows.
    """

    batch_size: int
    accumulate: int = 1
    grad_clip: float = 1.0
    eval_every: int | Literal["auto"] = "auto"
    checkpoint_every: int | Literal["auto"] = "auto"
    checkpoint_minutes: float = 0.0
    snapshots: bool = True
    log_every: int = 10


@dataclass
class Loop:
    """A training that can be run, saved and gone on with.

    Args:
        model, optimizer, average, batches, schedule, budget, plan: what is trained, on what and how.
        device: where batches are computed.
        evaluate: gives what a validation of the model as it stands finds: `val_loss`, in nats a token, and what else is
            to be in the row; None: there is no validation.
        loss: what is made small, in the place of the model's `loss_and_state` where there is a faster road to it.
        save: called with `last`, `best` or `snapshot` when that checkpoint is due.
        observers: told of every step and row.
        asked_to_stop: asked after each step; true ends the run at once, saved.
    """

    model: Microformer
    optimizer: Optimizer
    average: Average
    batches: Shuffled | Streams
    schedule: Schedule
    budget: Budget
    plan: Plan
    device: str
    evaluate: Callable[[], Row] | None
    save: Callable[[Literal["last", "best", "snapshot"]], None]
    observers: Sequence[Observer] = ()
    asked_to_stop: Callable[[], bool] = lambda: False
    loss: LossAndState | None = None
    position: Position = field(default_factory=Position)
    record: Record = field(default_factory=Record)  # kept where the clock decides
    remembered: dict[int, State] = field(default_factory=dict)  # of each part of a batch that will be read on

    def run(self) -> str:
        """Trains until the budget is used, an observer asks for the end, or the user does.

        Returns:
            `finished`, `interrupted`, or the observer's reason.

        Raises:
            DivergedError: a loss or a gradient was not finite; nothing of it was saved.
        """
        self._resumed_at = time.perf_counter() - self.position.seconds
        self._saved_at = self.position.seconds
        self._last_validation = self._validating = 0.0
        self._began = self.position.seconds
        self._unchecked: list[Tensor] = []
        self._speed_from = (time.perf_counter(), self.position.tokens)
        self._weights = list(self.model.parameters())  # going through a model takes as long as two of its operations
        self.model.train()
        progress = self._progress()
        reason = self._wish()  # a run that was killed after its last checkpoint, and before its end, has one already
        while progress < 1 and not reason:
            self._step(progress)
            before, progress = progress, self._progress()
            for observer in self.observers:
                observer.on_step(self.position.step, progress, self.position.seconds)
            finished = progress >= 1
            due = self._due(before, progress, finished)
            reason = self._report(due)
            ending = finished or reason is not None or self.asked_to_stop()
            if ending and self.evaluate is None and self.average.decay:
                with self.average.in_place():  # nothing was validated: the last averages are the weights to use
                    self._save("best")
            if ending or "save" in due:
                # Nothing is measured because of an interruption, so that a resumed run is one never interrupted.
                self._save("last")
            if ending:
                return reason or ("finished" if finished else "interrupted")
        return reason or "finished"

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that must be kept to go on to the same result: tensors, and plain JSON values. The weights are apart."""
        tensors = {f"optimizer/{name}": value for name, value in self.optimizer.state_dict().items()}
        tensors |= {f"average/{name}": value for name, value in self.average.state_dict().items()}
        for part, state in self.remembered.items():
            tensors |= {f"memory/{part}.{name}": tensor for name, tensor in state.to_tensors().items()}
        tensors["rng/cpu"] = torch.get_rng_state()
        match torch.device(self.device).type:
            case "cuda":
                tensors["rng/cuda"] = torch.cuda.get_rng_state()
            case "mps":
                tensors["rng/mps"] = torch.mps.get_rng_state()
        tensors["schedule"] = torch.tensor(self.record.progress, dtype=torch.float64)
        tensors["validated"] = torch.tensor(self.record.validated, dtype=torch.int64)
        observers = {type(observer).__name__: observer.state_dict() for observer in self.observers}
        return tensors, {"position": asdict(self.position), "observers": observers}

    def load_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Goes on from what `state` gave; the model holds the weights already."""
        parts: dict[str, dict[str, Tensor]] = {"optimizer": {}, "average": {}, "rng": {}, "memory": {}}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            if name:
                parts[part][name] = value
        self.optimizer.load_state_dict(parts["optimizer"])
        self.average.load_state_dict(parts["average"])
        memories: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["memory"].items():
            part, _, inner = name.partition(".")
            memories.setdefault(int(part), {})[inner] = tensor
        depth = self.model.spec.depth
        self.remembered = {part: State.from_tensors(inner, depth).to(self.device) for part, inner in memories.items()}
        torch.set_rng_state(parts["rng"]["cpu"])
        kind = torch.device(self.device).type
        if kind in parts["rng"] and kind != "cpu":  # not in a start, nor in a run that was begun on a CPU
            {"cuda": torch.cuda.set_rng_state, "mps": torch.mps.set_rng_state}[kind](parts["rng"][kind])
        self.record = Record(tensors["schedule"].tolist(), tensors["validated"].tolist())
        self.position = Position(**plain["position"])
        for observer in self.observers:
            if (remembered := plain["observers"].get(type(observer).__name__)) is not None:
                observer.load_state_dict(remembered)

    def _progress(self) -> float:
        # The last validation is part of the budget's time: the next one is taken to last as long.
        self.position.seconds = time.perf_counter() - self._resumed_at
        return self.budget.progress(self.position.step, self.position.seconds + self._last_validation)

    def _step(self, progress: float) -> None:
        plan, position = self.plan, self.position
        if self.budget.on_the_clock:
            self.record.progress.append(progress)
        self._rate = self.schedule.rate(progress)
        self.optimizer.set_rate(self._rate)

        part = plan.batch_size // plan.accumulate
        parts = [self.batches.take(position.samples + i * part, part) for i in range(plan.accumulate)]
        tokens = sum(batch.tokens for batch in parts)
        loss_of = self.loss or self.model.loss_and_state
        loss = torch.zeros((), device=self.device)
        for i, batch in enumerate(parts):
            # A part counts by its tokens, so that the parts add up to one large batch.
            state, batch = self._memory(i, batch), batch.to(self.device)
            share, state = loss_of(batch.ids, batch.targets, batch.mask, state)
            share = share * (batch.tokens / max(1, tokens))
            share.backward()
            loss += share.detach()
            if state is not None:
                self.remembered[i] = state.detach()
        if self._logs(position.step + 1, finished=self.budget.progress(position.step + 1, position.seconds) >= 1):
            for observer in self.observers:
                observer.on_gradients(position.step + 1)
        norm = torch.nn.utils.clip_grad_norm_(self._weights, plan.grad_clip or float("inf"))
        self.optimizer.step()
        self.average.update()
        self._unchecked.append(torch.stack([loss, norm]))
        position.step += 1
        position.samples += plan.batch_size
        position.tokens += tokens

    def _memory(self, part: int, batch: Batch) -> State | None:
        """What the rows of a part of the batch remember; None where nothing is carried from batch to batch."""
        if not self.model.spec.carries:
            return None
        if part not in self.remembered or not bool(batch.continues.any()):
            return self.model.empty_state()
        if bool(batch.continues.all()):
            return self.remembered[part]
        return self.remembered[part].reset(~batch.continues.to(self.device))

    def _due(self, before: float, progress: float, finished: bool) -> set[str]:
        """What is to happen after this step: log, validate, save, snapshot."""
        plan, step = self.plan, self.position.step
        validate = (
            self._time_to_validate(before, progress) if plan.eval_every == "auto" else step % plan.eval_every == 0
        )
        validate = validate or finished
        save = validate if plan.checkpoint_every == "auto" else step % plan.checkpoint_every == 0
        waited = self.position.seconds - self._saved_at
        wishes = {
            "log": self._logs(step, finished),
            "validate": validate and self.evaluate is not None,
            "save": save or (0 < plan.checkpoint_minutes * 60 < waited),
            "snapshot": plan.snapshots and step.bit_count() == 1 and step < 2**_SNAPSHOTS,
        }
        return {what for what, wished in wishes.items() if wished}

    def _logs(self, step: int, finished: bool) -> bool:
        """Whether a step is logged; the last one always is."""
        return finished or step == 1 or step % self.plan.log_every == 0

    def _time_to_validate(self, before: float, progress: float) -> bool:
        """Whether a run that is left to itself validates after this step."""
        if self.budget.recorded is not None:
            return self.position.step in self.budget.recorded.validated
        if self.budget.on_the_clock and self._validating > _VALIDATING * (self.position.seconds - self._began):
            return False
        return int(progress * _VALIDATIONS) > int(before * _VALIDATIONS)

    def _report(self, due: set[str]) -> str | None:
        """Measures and tells what is due, keeps what is best; gives the reason to stop, if an observer has one."""
        if not due:
            return None
        last_loss, last_norm = self._checked()
        position = self.position
        row: Row = {}
        best = False
        if "log" in due:
            now, (since, tokens) = time.perf_counter(), self._speed_from
            speed = (position.tokens - tokens) / max(now - since, 1e-9)
            row = {"train_loss": last_loss, "lr": self.optimizer.highest * self._rate, "grad_norm": last_norm}
            row["tokens_per_second"] = round(speed, 1)
        if "validate" in due:
            row |= self._validated()
            if self.budget.on_the_clock:
                self.record.validated.append(position.step)
            best = position.best is None or row["val_loss"] < position.best
            if best:
                position.best, position.best_step = row["val_loss"], position.step
        reason = None
        if row:
            position.seconds = time.perf_counter() - self._resumed_at
            row = {"step": position.step, "tokens": position.tokens, "seconds": round(position.seconds, 3), **row}
            for observer in self.observers:
                observer.on_row(row)
            reason = self._wish()
        if best:
            with self.average.in_place():
                self._save("best")
        if "snapshot" in due:
            with self.average.in_place():
                self._save("snapshot")
        self._speed_from = (time.perf_counter(), position.tokens)
        return reason

    def _wish(self) -> str | None:
        """The first observer's reason to stop, if one has any."""
        return next((wish for wish in (one.wants_to_stop() for one in self.observers) if wish), None)

    def _checked(self) -> tuple[float, float]:
        """The last step's loss and gradient norm, once every one since the last look was found finite."""
        values = torch.stack(self._unchecked).cpu()  # here, and nowhere else between two steps, a GPU is waited for
        self._unchecked.clear()
        finite = torch.isfinite(values).all(dim=1)
        if not bool(finite.all()):
            first = int((~finite).nonzero()[0])
            step = self.position.step - len(values) + 1 + first
            what = "loss" if not torch.isfinite(values[first, 0]) else "gradient"
            raise _not_finite(what, step)
        loss, norm = values[-1].tolist()
        return loss, norm

    def _validated(self) -> Row:
        assert self.evaluate is not None
        started = time.perf_counter()
        self.model.eval()
        with self.average.in_place():
            found = self.evaluate()
        self.model.train()
        self._last_validation = time.perf_counter() - started
        self._validating += self._last_validation
        if not math.isfinite(found["val_loss"]):
            raise _not_finite("validation loss", self.position.step)
        return found

    def _save(self, which: Literal["last", "best", "snapshot"]) -> None:
        if self._unchecked:
            self._checked()
        self.save(which)
        if which == "last":
            self._saved_at = self.position.seconds
        self._speed_from = (time.perf_counter(), self.position.tokens)


def start_state(
    position: Position, seed: int, optimizer: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a `Loop.state` would be of a training that begins at weights that are there.

    Args:
        position: where it stands.
        seed: of dropout.
        optimizer: what is remembered of each parameter, as an `Optimizer` has it; empty for nothing.
    """
    tensors = {f"optimizer/{name}": value for name, value in optimizer.items()}
    tensors["rng/cpu"] = torch.Generator().manual_seed(seed).get_state()
    tensors["schedule"] = torch.zeros(0, dtype=torch.float64)
    tensors["validated"] = torch.zeros(0, dtype=torch.int64)
    return tensors, {"position": asdict(position), "observers": {}}


def _not_finite(what: str, step: int) -> DivergedError:
    return DivergedError(
        f"the {what} of step {step} is not a finite number; training stops before it reaches a checkpoint.",
        "start a new run with a lower --learning-rate, or --grad-clip above 0; what was good of this one is kept.",
    )
