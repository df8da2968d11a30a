"""The loop: what it computes, when it saves, how it ends, and that going on is as if it had never stopped."""

import io
import json
import math

import pytest
import torch
from torch.testing import assert_close

from microformer.errors import TrainingError
from microformer.evaluation import evaluate
from microformer.models import grammar
from microformer.models import spec as parts_of
from microformer.models.model import Microformer
from microformer.models.spec import Gelu, LayerSpec, ModelSpec, RMSNorm, Rope, Softmax
from microformer.training import loop as loop_module
from microformer.training.averaging import Average
from microformer.training.batches import Shuffled, Streams
from microformer.training.budgets import Budget, Record
from microformer.training.loop import Loop, Plan
from microformer.training.observers import EarlyStopping, Observer
from microformer.training.optimizers import Optimizer, Recipe
from microformer.training.schedules import Linear

VOCAB, CONTEXT = 11, 8
TEXT = torch.cumsum(torch.randint(3, (700,), generator=torch.Generator().manual_seed(1)), 0).remainder(VOCAB).byte()
TRAIN, VAL = TEXT[:600], TEXT[600:]


@pytest.fixture(autouse=True)
def dropouts_own_generator():
    """Dropout draws from torch's own generator; each test begins with the same one."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        yield


class Rows(Observer):
    """Remembers what it was told."""

    def __init__(self):
        self.rows = []
        self.steps = []

    def on_row(self, row):
        self.rows.append(row)

    def on_step(self, step, progress, seconds):
        self.steps.append((step, progress))

    def losses(self):
        return [(row["step"], row.get("train_loss"), row.get("val_loss"), row.get("lr")) for row in self.rows]


class Trial:
    """A small training and all that it saved."""

    def __init__(
        self, steps=24, dropout=0.0, averaging=0.0, kind="muon", rate="auto", warmup=0.1, budget=None, validate=True,
        observers=None, stop_at=None, memory="none", **plan,
    ):  # fmt: skip
        layers = (LayerSpec(Softmax(), Gelu()),)
        spec = ModelSpec(
            VOCAB,
            16,
            2,
            24,
            CONTEXT,
            layers,
            Rope(),
            RMSNorm(),
            dropout=dropout,
            memory=grammar.one(memory, parts_of.MEMORY, "MEMORY"),
        )
        self.model = Microformer(spec, 1)
        rows, sample = plan.get("batch_size", 4), CONTEXT * spec.segments
        self.saves: list[tuple[str, int]] = []
        self.kept: dict[str, bytes] = {}
        self.rows = Rows()
        self.loop = Loop(
            model=self.model,
            optimizer=Optimizer(self.model, Recipe(kind, rate, 0.01, 0.95, (0.9, 0.95))),
            average=Average(self.model, averaging),
            batches=Streams(TRAIN, sample, 1, rows) if spec.memory.carries else Shuffled(TRAIN, sample, 1),
            schedule=Linear(warmup),
            budget=budget or Budget(steps),
            plan=Plan(**{"batch_size": 4, "snapshots": False, "log_every": 5, **plan}),
            device="cpu",
            evaluate=self.validated if validate else None,
            save=self.save,
            observers=[self.rows, *(observers or [])],
            asked_to_stop=lambda: stop_at is not None and self.loop.position.step >= stop_at,
        )

    def validated(self) -> dict[str, float]:
        return {"val_loss": evaluate(self.model, VAL, int(TRAIN[-1])).nats_per_token}

    def save(self, which) -> None:
        self.saves.append((which, self.loop.position.step))
        tensors, plain = self.loop.state()
        kept = io.BytesIO()
        torch.save((self.model.state_dict(), tensors, json.dumps(plain, allow_nan=False)), kept)
        self.kept[which] = kept.getvalue()

    def weights_of(self, which) -> dict[str, torch.Tensor]:
        return torch.load(io.BytesIO(self.kept[which]), weights_only=True)[0]

    def resume_from(self, other: "Trial") -> "Trial":
        weights, tensors, plain = torch.load(io.BytesIO(other.kept["last"]), weights_only=True)
        self.model.load_state_dict(weights)
        self.loop.load_state(tensors, json.loads(plain))
        return self

    def run(self) -> str:
        return self.loop.run()


def same_weights(one: Trial, other: Trial) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


def poison(trial: Trial, step: int, what: str) -> None:
    """Makes the loss, or a gradient alone, of one step not finite."""
    loss, steps = trial.model.loss_and_state, iter(range(1, 10**6))

    def poisoned(*arguments):
        value, state = loss(*arguments)
        if next(steps) == step:
            if what == "loss":
                return value * math.nan, state
            value.register_hook(lambda gradient: gradient * math.inf)
        return value, state

    trial.model.loss_and_state = poisoned


# ---------------------------------------------------------------------------------------------- what is learned


@pytest.mark.parametrize(("kind", "rate"), [("muon", "auto"), ("adamw", 0.02)])
def test_training_learns(kind, rate):
    trial = Trial(steps=80, kind=kind, rate=rate)

    assert trial.run() == "finished"
    losses = [row["val_loss"] for row in trial.rows.rows if "val_loss" in row]
    assert losses[0] > 1.5
    assert losses[-1] < 1.3  # three steps are equally likely: log 3 is 1.1
    assert trial.loop.position.step == 80
    assert trial.loop.position.samples == 320
    assert trial.loop.position.best == min(losses)


def test_a_batch_in_parts_gives_the_step_of_one_large_batch():
    # AdamW divides by what rounding is made of where gradients are zero, so few steps are compared.
    whole, parts = (
        Trial(steps=4, batch_size=48, log_every=1, validate=False, **how) for how in ({}, {"accumulate": 4})
    )
    whole.run()
    parts.run()

    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-4)
    losses = [[row["train_loss"] for row in trial.rows.rows] for trial in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert whole.loop.position.tokens == parts.loop.position.tokens


def test_the_loss_of_a_step_is_the_mean_over_its_targets_that_count():
    trial = Trial(steps=1, batch_size=80, accumulate=4)  # more than an epoch: some targets don't count
    batch = trial.loop.batches.take(0, 80)
    assert batch.mask is not None
    expected = trial.model.loss(batch.ids, batch.targets, batch.mask).item()
    trial.run()

    assert trial.rows.rows[0]["train_loss"] == pytest.approx(expected, rel=1e-6)
    assert trial.loop.position.tokens == batch.tokens


def test_gradients_are_clipped_by_their_whole_norm(monkeypatch):
    norms = []
    for limit in (0.05, 0.0):
        trial = Trial(steps=3, grad_clip=limit)
        step = trial.loop.optimizer.step

        def watched(trial=trial, step=step):
            grads = [parameter.grad for parameter in trial.model.parameters()]
            norms.append(torch.cat([grad.flatten() for grad in grads]).norm().item())
            step()

        monkeypatch.setattr(trial.loop.optimizer, "step", watched)
        trial.run()

    assert norms[:3] == pytest.approx([0.05] * 3, rel=1e-3)
    assert min(norms[3:]) > 0.1


def test_dropout_acts_in_every_step_and_in_no_validation():
    trial = Trial(steps=6, dropout=0.2, eval_every=2)
    now, modes, validated = ["step"], [], trial.validated
    trial.model.blocks[0].register_forward_pre_hook(lambda block, _: modes.append((now[-1], block.training)))

    def watched():
        now.append("validation")
        loss = validated()
        now.append("step")
        return loss

    trial.loop.evaluate = watched
    trial.model.eval()
    trial.run()

    assert set(modes) == {("step", True), ("validation", False)}
    assert modes.count(("step", True)) == 6


def test_the_rate_follows_the_schedule_and_is_logged():
    trial = Trial(steps=20, log_every=1, warmup=0.25, rate=0.02)
    trial.run()
    rates = [row["lr"] / 0.02 for row in trial.rows.rows]

    assert rates == pytest.approx([trial.loop.schedule.rate(step / 20) for step in range(20)])


# ------------------------------------------------------------------------------------------------ what is told


def test_a_row_has_what_was_measured_at_its_step():
    trial = Trial(steps=20, eval_every=8, log_every=5)
    trial.run()
    measured = {row["step"]: set(row) - {"step", "tokens", "seconds"} for row in trial.rows.rows}
    log, val = {"train_loss", "lr", "grad_norm", "tokens_per_second"}, {"val_loss"}

    assert measured == {1: log, 5: log, 8: val, 10: log, 15: log, 16: val, 20: log | val}
    assert trial.rows.rows[1]["tokens"] == 5 * 4 * CONTEXT
    seconds = [row["seconds"] for row in trial.rows.rows]
    assert seconds == sorted(seconds)


def test_every_step_is_told_with_its_progress():
    trial = Trial(steps=4)
    trial.run()

    assert trial.rows.steps == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]


def test_left_to_itself_a_run_validates_sixteen_times():
    for steps in (16, 33, 100):
        trial = Trial(steps=steps)
        trial.run()
        assert sum("val_loss" in row for row in trial.rows.rows) == 16


def test_without_a_validation_split_there_is_none_and_the_last_weights_are_kept():
    trial = Trial(validate=False)

    assert trial.run() == "finished"
    assert not any("val_loss" in row for row in trial.rows.rows)
    assert {which for which, _ in trial.saves} == {"last"}
    assert trial.loop.position.best is None


# ----------------------------------------------------------------------------------------------- what is saved


def test_the_best_the_snapshots_and_the_last_are_saved_in_this_order_when_they_are_due():
    trial = Trial(steps=10, eval_every=4, checkpoint_every=3, snapshots=True)
    losses = iter([2.0, 3.0, 1.0])
    trial.loop.evaluate = lambda: {"val_loss": next(losses)}
    trial.run()

    assert trial.saves == [
        ("snapshot", 1), ("snapshot", 2), ("last", 3), ("best", 4), ("snapshot", 4), ("last", 6), ("snapshot", 8),
        ("last", 9), ("best", 10), ("last", 10),
    ]  # fmt: skip
    assert (trial.loop.position.best, trial.loop.position.best_step) == (1.0, 10)


def test_left_to_itself_a_checkpoint_comes_with_each_validation():
    trial = Trial(steps=32)
    trial.run()

    assert [step for which, step in trial.saves if which == "last"] == list(range(2, 33, 2))


def test_a_checkpoint_never_waits_longer_than_it_may(monkeypatch):
    clock = Clock(monkeypatch, seconds_a_step=20)
    trial = Trial(steps=12, eval_every=12, checkpoint_every=10**6, checkpoint_minutes=1.0)
    clock.drive(trial)
    trial.run()

    assert [step for which, step in trial.saves if which == "last"] == [4, 8, 12]


def test_validation_the_best_and_the_snapshots_use_the_averaged_weights_and_the_last_has_both():
    trial = Trial(steps=8, averaging=0.9, snapshots=True, eval_every=8)
    trial.run()
    averaged = trial.loop.average.averaged

    for which in ("best", "snapshot"):
        assert all(torch.equal(trial.weights_of(which)[name], averaged[name]) for name in averaged)
    assert not torch.equal(trial.weights_of("last")["embed.weight"], averaged["embed.weight"])
    with trial.loop.average.in_place():
        trial.model.eval()
        assert trial.validated()["val_loss"] == trial.loop.position.best
    tensors = torch.load(io.BytesIO(trial.kept["last"]), weights_only=True)[1]
    assert all(torch.equal(tensors[f"average/{name}"], averaged[name]) for name in averaged)


@pytest.mark.parametrize(("what", "named"), [("loss", "loss"), ("gradient", "gradient")])
@pytest.mark.parametrize("step", [1, 7, 12])
def test_what_is_not_finite_names_its_step_and_nothing_of_it_is_saved(what, named, step):
    trial = Trial(steps=12, eval_every=6, snapshots=True)
    poison(trial, step, what)

    with pytest.raises(TrainingError, match=f"the {named} of step {step} is not a finite number"):
        trial.run()
    assert all(saved < step for _, saved in trial.saves)
    for which in trial.kept:
        assert all(torch.isfinite(weight).all() for weight in trial.weights_of(which).values())


def test_an_interruption_saves_nothing_that_is_not_finite_either():
    trial = Trial(steps=100, eval_every=100, log_every=100, stop_at=7)
    poison(trial, 5, "loss")

    with pytest.raises(TrainingError, match="the loss of step 5 "):
        trial.run()
    assert trial.saves == []


def test_a_validation_that_is_not_finite_is_no_best():
    trial = Trial(steps=8, eval_every=4)
    trial.loop.evaluate = lambda: {"val_loss": math.nan}

    with pytest.raises(TrainingError, match="the validation loss of step 4 is not a finite number"):
        trial.run()
    assert trial.saves == []


# ------------------------------------------------------------------------------------------------ how it ends


def test_an_observer_may_end_it_and_its_reason_is_the_answer():
    trial = Trial(steps=50, eval_every=2, observers=[EarlyStopping(patience=3)])
    losses = iter([2.0, 1.0, *[1.5] * 30])
    trial.loop.evaluate = lambda: {"val_loss": next(losses)}

    assert trial.run() == "validation has not improved 3 times in a row"
    assert trial.loop.position.step == 10
    assert trial.saves[-1] == ("last", 10)


def test_who_asks_it_to_stop_finds_it_saved():
    trial = Trial(steps=50, stop_at=7)

    assert trial.run() == "interrupted"
    assert trial.saves[-1] == ("last", 7)
    assert trial.loop.position.step == 7


def test_a_budget_that_is_used_up_trains_nothing():
    trial = Trial(budget=Budget(steps=0))
    weights = [parameter.detach().clone() for parameter in trial.model.parameters()]

    assert trial.run() == "finished"
    assert all(torch.equal(one, other) for one, other in zip(weights, trial.model.parameters(), strict=True))


@pytest.mark.parametrize("stop_at", [1, 7, 12])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"dropout": 0.2, "averaging": 0.9},
        {"kind": "adamw", "dropout": 0.2},
        {"batch_size": 6, "accumulate": 3, "averaging": 0.9, "eval_every": 5},
    ],
    ids=str,
)
def test_a_run_that_was_interrupted_and_resumed_is_one_that_never_was_to_the_bit(how, stop_at):
    whole = Trial(observers=[EarlyStopping(5)], **how)
    whole.run()
    torch.manual_seed(1)
    first = Trial(observers=[EarlyStopping(5)], stop_at=stop_at, **how)
    assert first.run() == "interrupted"
    torch.manual_seed(99)
    resumed = Trial(observers=[EarlyStopping(5)], **how).resume_from(first)
    resumed.run()

    assert same_weights(whole, resumed)
    assert first.rows.losses() + resumed.rows.losses() == whole.rows.losses()
    for which in ("best", "last"):
        kept = resumed.kept.get(which) or first.kept[which]
        one = torch.load(io.BytesIO(kept), weights_only=True)[0]
        assert all(torch.equal(one[name], weight) for name, weight in whole.weights_of(which).items())
    assert (resumed.loop.position.best, resumed.loop.position.best_step) == (
        whole.loop.position.best, whole.loop.position.best_step,
    )  # fmt: skip


def test_an_observer_that_the_first_part_did_not_have_begins_anew():
    first = Trial(stop_at=5)
    first.run()

    assert Trial(observers=[EarlyStopping(5)]).resume_from(first).run() == "finished"


def test_a_further_leg_has_a_schedule_of_its_own():
    first = Trial(steps=10, log_every=1, warmup=0.0)
    first.run()
    leg = Budget(steps=20, from_step=10)
    further = Trial(budget=leg, log_every=1, warmup=0.0).resume_from(first)
    further.run()

    assert further.loop.position.step == 20
    assert [row["lr"] for row in further.rows.rows] == pytest.approx([row["lr"] for row in first.rows.rows])


# ------------------------------------------------------------------------------------------------- the clock


class Clock:
    """A clock of our own: a step takes what we say."""

    def __init__(self, monkeypatch, seconds_a_step):
        self.now = 1000.0
        self.seconds_a_step = seconds_a_step
        monkeypatch.setattr(loop_module.time, "perf_counter", lambda: self.now)

    def drive(self, trial: Trial, seconds_a_validation=0.0) -> None:
        step, validated = trial.loop.optimizer.step, trial.loop.evaluate

        def timed_step():
            self.now += self.seconds_a_step
            step()

        def timed_validation():
            self.now += seconds_a_validation
            return validated()

        trial.loop.optimizer.step = timed_step
        trial.loop.evaluate = timed_validation


def test_a_run_by_the_clock_ends_in_time_with_its_schedule_complete(monkeypatch):
    clock = Clock(monkeypatch, seconds_a_step=2.0)
    trial = Trial(budget=Budget(steps=None, seconds=60.0), log_every=1, warmup=0.0)
    clock.drive(trial)

    assert trial.run() == "finished"
    assert trial.loop.position.step == 30
    assert trial.loop.record.progress == pytest.approx([step / 30 for step in range(30)])
    assert trial.rows.rows[-1]["seconds"] == pytest.approx(60)


def test_the_last_validation_is_part_of_the_time(monkeypatch):
    clock = Clock(monkeypatch, seconds_a_step=1.0)
    trial = Trial(budget=Budget(steps=None, seconds=100.0), eval_every=10)
    clock.drive(trial, seconds_a_validation=5.0)
    trial.run()

    assert 95 <= clock.now - 1000.0 <= 101


def test_a_run_by_the_clock_is_repeated_to_the_bit_by_the_schedule_it_recorded(monkeypatch):
    how = {"dropout": 0.2, "averaging": 0.9}
    clock = Clock(monkeypatch, seconds_a_step=2.0)
    first = Trial(budget=Budget(steps=None, seconds=60.0), **how)
    clock.drive(first, seconds_a_validation=3.3)
    first.run()
    torch.manual_seed(1)
    clock.seconds_a_step = 0.7  # a faster machine
    again = Trial(budget=Budget(steps=None, seconds=60.0, recorded=first.loop.record), **how)
    clock.drive(again)
    again.run()

    assert same_weights(first, again)
    assert again.rows.losses() == first.rows.losses()
    assert again.loop.record == Record()


def test_a_run_by_the_clock_that_is_resumed_keeps_its_time_and_its_record(monkeypatch):
    clock = Clock(monkeypatch, seconds_a_step=2.0)
    first = Trial(budget=Budget(steps=None, seconds=60.0), stop_at=10)
    clock.drive(first)
    first.run()
    clock.now += 10**6  # days later
    resumed = Trial(budget=Budget(steps=None, seconds=60.0)).resume_from(first)
    clock.drive(resumed)
    resumed.run()

    assert resumed.loop.position.step == 30
    assert resumed.loop.position.seconds == pytest.approx(60)
    assert resumed.loop.record.progress == pytest.approx([step / 30 for step in range(30)])


def test_on_the_clock_validations_take_a_twentieth_of_the_time_and_a_replay_repeats_them(monkeypatch):
    clock = Clock(monkeypatch, seconds_a_step=1.0)
    slow = Trial(budget=Budget(steps=None, seconds=320.0))
    clock.drive(slow, seconds_a_validation=8.0)
    slow.run()
    often = Trial(budget=Budget(steps=None, seconds=320.0))
    clock.drive(often, seconds_a_validation=0.5)
    often.run()
    again = Trial(budget=Budget(steps=None, seconds=320.0, recorded=slow.loop.record))
    again.run()

    validations = [sum("val_loss" in row for row in trial.rows.rows) for trial in (slow, often, again)]
    assert validations == [3, 16, 3]  # one before its cost is known, one that is affordable, one at the end
    assert again.rows.losses() == slow.rows.losses()


def test_the_speed_counts_neither_validations_nor_saving(monkeypatch):
    clock = Clock(monkeypatch, seconds_a_step=2.0)
    trial = Trial(steps=12, eval_every=2, log_every=3)
    clock.drive(trial, seconds_a_validation=50.0)
    trial.run()

    speeds = {row["tokens_per_second"] for row in trial.rows.rows if "tokens_per_second" in row}
    assert speeds == {4 * CONTEXT / 2.0}


# ---------------------------------------------------------------------------------------------------------- memory

CARRIED = ["xl(6)", "compressive(3, 4, 2)", "recurrent(2)", "knn(20, 3)"]


@pytest.mark.parametrize("memory", CARRIED)
@pytest.mark.parametrize("stop", [1, 7, 13])
def test_what_is_remembered_survives_a_resume(memory, stop):
    whole, first = Trial(memory=memory), Trial(memory=memory, stop_at=stop)
    whole.run()
    assert first.run() == "interrupted"

    second = Trial(memory=memory).resume_from(first)
    second.run()

    assert same_weights(second, whole)


@pytest.mark.parametrize("memory", CARRIED)
def test_parts_of_a_batch_have_memories_of_their_own(memory):
    whole, parts = Trial(memory=memory, steps=6), Trial(memory=memory, steps=6, accumulate=2)

    whole.run()
    parts.run()

    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert set(parts.loop.remembered) == {0, 1}


def test_a_memory_is_read_on_and_begins_anew_with_each_epoch():
    trial = Trial(memory="xl(6)", steps=40)  # an epoch is 19 steps of 4 rows
    starts = []
    real = trial.model.loss_and_state
    trial.model.loss_and_state = lambda ids, targets, mask, state: (
        starts.append(state.length) or real(ids, targets, mask, state)
    )

    trial.run()

    steps = trial.loop.batches.samples_per_epoch // 4
    assert starts == [CONTEXT * (i % steps) for i in range(40)]


def test_what_is_remembered_holds_no_graph():
    trial = Trial(memory="recurrent(2)", steps=3)

    trial.run()

    assert not any(tensor.requires_grad for tensor in trial.loop.remembered[0].to_tensors().values())
