"""Scaling: how the time is divided and kept to, what is gone on with, and what is said of the losses. The trainings are
made up, by a law and a clock."""

import itertools
import json
import math
from pathlib import Path

import pytest
from small_runs import TINY, book, command

from microformer.errors import SettingsError, TrainingError
from microformer.experiments import laws
from microformer.experiments import scaling as measuring
from microformer.experiments.cells import Cell
from microformer.experiments.family import Measured, Scaling, Size
from microformer.experiments.scaling import read_sizes, scale
from microformer.runs import RUNS, Run
from microformer.settings import Settings, resolve

AROUND = 5.0  # seconds of a start and an end


class Machine:
    """A machine that is as fast as it is told, and a text of which it knows the law."""

    def __init__(self):
        self.now = 1000.0
        self.slower = 1.0
        self.trained: list[tuple[str, int, int]] = []
        self.broken: dict[int, str] = {}
        self.stops_at = 0

    def monotonic(self) -> float:
        return self.now

    def loss(self, parameters: float, tokens: float) -> float:
        return 1.2 + 12 / parameters**0.3 + 300 / tokens**0.42

    def train(self, arm, seed, chosen, folder, code, **how):
        model, training = chosen.model, chosen.training
        if training.max_steps:
            self.trained.append((f"{model.embed_dim}x{model.num_layers}", training.max_steps, seed))
            if len(self.trained) == self.stops_at:
                raise KeyboardInterrupt
        if model.embed_dim in self.broken:
            self.now += 1
            return Cell(arm.name, seed, Path("runs/x"), reused=False, failed=self.broken[model.embed_dim])
        parameters = 12 * model.embed_dim**2 * model.num_layers
        step = 1e-6 * parameters**0.7 * self.slower
        steps = training.max_steps or max(1, int(60 * training.max_minutes / step))
        run = Run(Path(folder) / RUNS / f"{arm.name}-{seed}")
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "metrics.jsonl").unlink(missing_ok=True)
        tokens = 512 * steps
        for at in (1, steps):
            run.append_metrics({"step": at, "tokens": 512 * at, "seconds": 0.5 + step * at, "train_loss": 1.0})
        loss = self.loss(parameters, tokens) * (1 + 0.002 * (seed - 1))
        run.append_metrics({"step": steps, "tokens": tokens, "seconds": 2 + step * steps, "val_loss": loss})
        self.now += AROUND + step * steps
        return Cell(
            arm.name, seed, run.folder, reused=False, loss=loss, steps=steps, tokens=tokens, seconds=2 + step * steps,
            parameters=parameters,
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(book(30), encoding="utf-8")
    lines = "".join(f"{name.upper()} = {value!r}\n" for name, value in TINY.items())
    Path("base.py").write_text('CORPUS = "book.txt"\n' + lines, encoding="utf-8")
    found = Machine()
    monkeypatch.setattr(measuring, "train_one", found.train)
    monkeypatch.setattr(measuring.time, "monotonic", found.monotonic)
    monkeypatch.setattr(laws, "_DRAWS", 30)
    return found


def scaled(machine, sizes="16x1,32x1,48x2,64x2", budget=600.0, **how):
    base = resolve("base.py")
    return scale(base, read_sizes(sizes, base), budget, **how)


def test_sizes_have_the_proportions_of_the_base():
    base = Settings().changed({"num_kv_heads": 2})

    assert [size.changes(base) for size in read_sizes("32x1, 192×3,100x2", base)] == [
        {"embed_dim": 32, "num_layers": 1, "num_heads": 1, "ff_dim": 64, "num_kv_heads": 1},
        {"embed_dim": 192, "num_layers": 3, "num_heads": 6, "ff_dim": 384, "num_kv_heads": 3},
        {"embed_dim": 100, "num_layers": 2, "num_heads": 4, "ff_dim": 200, "num_kv_heads": 2},
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("32x1,64", "--sizes '64' is no size."),
        ("32x1,64x0", "--sizes '64x0' is no size."),
        ("32x1,-64x2", "--sizes '-64x2' is no size."),
        ("32x1,32x1", "--sizes names 32x1 twice."),
        ("32x1", "names 1 size, and a law is about several"),
        ("", "names no size"),
        ("32x1,64x2000", "the size 64x2000 can't be: "),
    ],
)
def test_sizes_that_cannot_be_are_refused(text, said):
    with pytest.raises(SettingsError) as refused:
        read_sizes(text, Settings())

    assert said in refused.value.sentence
    assert refused.value.hint


def test_the_time_is_divided_evenly_among_sizes_and_kept_to(machine):
    began = machine.now

    found = scaled(machine)

    assert 0.9 * 600 < machine.now - began < 600
    assert found.used == pytest.approx(machine.now - began)
    levels = sorted({one.level for one in found.cells})
    for level in levels:
        seconds = [one.seconds for one in found.cells if one.level == level]
        assert max(seconds) < 1.1 * min(seconds)
    means = [min(one.seconds for one in found.cells if one.level == level) for level in levels]
    assert all(2.2 < after / before < 2.8 for before, after in itertools.pairwise(means))
    assert len(found.cells) == 4 * len(levels)
    # Each is a training of its own, whose loss is that of its end.
    assert all(one.loss == machine.loss(one.parameters, one.tokens) for one in found.cells)


def test_a_machine_that_slows_down_has_shorter_trainings_left_and_not_a_longer_day(machine):
    began, times = machine.now, []

    def tell(cell, progress):
        times.append(cell.seconds)
        if len(times) == 4:
            machine.slower = 3.0

    scaled(machine, tell=tell)

    # What was planned before it slowed down takes three times as long; what comes after is planned anew.
    assert machine.now - began < 1.1 * 600


def test_where_it_slows_down_at_the_very_end_what_would_take_too_long_is_left_out_and_that_is_said(machine):
    began, times = machine.now, []

    def tell(cell, progress):
        times.append(cell.seconds)
        if len(times) == 13:
            machine.slower = 4.0

    found = scaled(machine, tell=tell)

    assert machine.now - began < 1.8 * 600
    assert found.missing == 16 - len(found.cells) > 0
    assert "missing: the machine became slower" in found.markdown()


def test_an_interrupted_one_goes_on_with_the_same_steps_and_trains_nothing_twice(machine):
    whole = scaled(machine, output="whole")
    machine.trained.clear()
    machine.stops_at = 6
    with pytest.raises(KeyboardInterrupt):
        scaled(machine, output="parts")
    machine.now += 10_000  # a night
    parts = scaled(machine, output="parts")

    assert [(one.size, one.level, one.loss) for one in parts.cells] == [
        (one.size, one.level, one.loss) for one in whole.cells
    ]
    assert machine.trained[5] == machine.trained[6]  # the one that was interrupted
    assert len(set(machine.trained)) == len(whole.cells) == len(machine.trained) - 1
    machine.trained.clear()
    assert scaled(machine, output="parts").cells == parts.cells
    assert machine.trained == []


def test_too_little_time_is_refused_with_how_much_would_do(machine):
    with pytest.raises(SettingsError, match="--budget of 100 s is too little for 4 sizes") as refused:
        scaled(machine, budget=100.0)

    minutes = int(refused.value.hint.split()[1])
    assert len(scaled(machine, budget=60.0 * minutes, output="more").cells) == 12


def test_seeds_share_the_time_too(machine):
    began = machine.now

    found = scaled(machine, budget=1200.0, seeds=2)

    assert machine.now - began < 1200
    assert {one.seed for one in found.cells} == {1, 2}
    assert len(found.of["16x1"]) * 2 == sum(one.size == "16x1" for one in found.cells)
    assert found.of["16x1"][0].loss == pytest.approx(sum(one.loss for one in found.cells[:8] if one.size == "16x1") / 2)


def test_a_size_that_fails_is_left_out_with_its_reason(machine):
    machine.broken[64] = "memory ran out while training."

    found = scaled(machine)

    assert set(found.of) == {"16x1", "32x1", "48x2"}
    assert "64x2 was left out: memory ran out while training." in found.markdown()
    machine.broken = dict.fromkeys((16, 32, 48, 64), "memory ran out while training.")
    with pytest.raises(TrainingError, match="no size can be trained: memory ran out"):
        scaled(machine, output="none")


def test_another_question_in_the_same_folder_is_refused(machine):
    scaled(machine, output="kept")

    with pytest.raises(SettingsError, match="kept holds another scaling: its sizes is another"):
        scaled(machine, sizes="16x1,32x1,48x2", output="kept")
    assert scaled(machine, sizes="16x1,32x1,48x2").folder.parent == Path("experiments")


def test_the_law_the_best_sizes_and_the_picture_are_written(machine):
    found = scaled(machine, budget=1200.0)
    found.write(found.folder)

    assert found.law is not None
    assert found.law.exponents == pytest.approx((0.3, 0.42), abs=0.02)
    for best in found.bests():
        losses = {
            size: machine.loss(own[0].parameters, found.speed(size) * best.seconds) for size, own in found.of.items()
        }
        assert best.size == min(losses, key=lambda size: losses[size])
        assert best.low - 1e-9 <= best.loss <= best.high + 1e-9
        assert best.loss == pytest.approx(losses[best.size], rel=0.01)
    table = (found.folder / "table.md").read_text(encoding="utf-8")
    assert "L(N, D) = 1.2" in table
    assert "times the longest training" in table
    plain = json.loads((found.folder / "scaling.json").read_text(encoding="utf-8"))
    assert [one["seconds"] for one in plain["best"]] == [60, 300, 1200, 3600]
    assert len(plain["cells"]) == len(found.cells)
    assert (found.folder / "scaling.png").stat().st_size > 20_000
    assert "<table>" in found._repr_html_()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(laws, "_DRAWS", 20)


def family(losses, seconds=(10.0, 25.0, 62.0, 156.0), tokens=1000.0) -> Scaling:
    """A scaling of these losses, by size."""
    cells = [
        Measured(f"{16 * 2**place}x1", level, 1, "run", 1000 * 8**place, loss, 100, int(tokens * time), time, tokens)
        for place, own in enumerate(losses)
        for level, (time, loss) in enumerate(zip(seconds, own, strict=False))
    ]
    sizes = tuple(Size(16 * 2**place, 1) for place in range(len(losses)))
    return Scaling(sizes, tuple(cells), 1000.0, 900.0, text_tokens=10_000)


def test_a_size_that_learns_by_heart_is_named_and_not_recommended_for_that_long(quick):
    small, middle = [2.6, 2.4, 2.3, 2.25], [2.7, 2.3, 2.1, 2.0]
    found = family([small, middle, [2.9, 2.2, 1.95, 2.4]])

    assert found.rising == {"64x1": 156_000}
    assert "64x1 gets worse from 156 s on, 15.6 times through the text" in found.markdown()
    assert found.law is not None
    assert found.law.cells == 11
    at_60, at_300 = found.best(60), found.best(300)
    assert at_60 is not None
    assert at_300 is not None
    assert at_60.size == "64x1"
    assert at_300.size == "32x1"
    assert "reads the text 30 times" in found.markdown()


def test_a_loss_that_rises_with_fewer_tokens_or_before_the_text_was_read_once_is_no_learning_by_heart():
    uneven = [Measured("16x1", level, 1, "r", 1000, loss, 10, tokens, 1.0 + level, 1.0)
              for level, (tokens, loss) in enumerate([(20_000, 2.0), (50_000, 1.8), (40_000, 1.9)])]  # fmt: skip
    once = [Measured("32x1", level, 1, "r", 2000, loss, 10, tokens, 1.0 + level, 1.0)
            for level, (tokens, loss) in enumerate([(4_000, 2.0), (9_000, 2.1)])]  # fmt: skip

    assert Scaling((), (*uneven, *once), 1.0, 1.0, text_tokens=10_000).rising == {}


def test_where_all_learn_by_heart_nothing_is_recommended(quick):
    found = family([[2.0, 2.1, 2.2, 2.3]] * 3)

    assert found.best(300) is None
    assert found.law is None
    assert found.picture().svg().startswith("<svg")


def test_two_sizes_have_no_law_and_are_told_apart_only_where_they_were_measured(quick):
    found = family([[2.6, 2.4, 2.3, 2.25], [2.7, 2.3, 2.1, 2.0]])

    assert found.law is None
    assert "too few sizes or trainings for a law" in found.markdown()
    best = found.best(60)
    assert best is not None
    assert best.size == "32x1"
    assert math.isnan(best.low)
    assert found.best(3600) is None
    assert found.to_json()["best"][0]["low"] is None


def test_the_frontier_is_what_nothing_cheaper_beats(quick):
    found = family([[2.6, 2.4, 2.3, 2.25], [2.7, 2.3, 2.1, 2.0], [2.9, 2.35, 2.15, 1.9]])

    assert found.frontier("seconds") == [(10.0, 2.6), (25.0, 2.3), (62.0, 2.1), (156.0, 1.9)]
    assert found.by_seconds is None  # four points, for three numbers
    assert [loss for _, loss in found.frontier("compute")] == sorted(
        (loss for _, loss in found.frontier("compute")), reverse=True
    )


def test_the_command_says_it(machine, capsys):
    assert command("scaling", "--sizes", "16x1,32x1,48x2", "--budget", "10min", "--base", "base.py") == 0

    said = capsys.readouterr()
    assert "L(N, D) = " in said.out
    assert "scaling.png" in said.out
    assert "16x1, " in said.err
    assert command("scaling", "--sizes", "16x1,32x1,48x2", "--budget", "600s", "--base", "base.py", "--json") == 0
    assert json.loads(capsys.readouterr().out)["sizes"] == ["16x1", "32x1", "48x2"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget", "soon"], "--budget 'soon' is no time."),
        (["--budget", "20"], "--budget '20' is no time."),
        (["--budget", "0s"], "--budget '0s' is no time."),
        (["--seeds", "0"], "--seeds 0 can't be: it is 1 or more."),
        (["--base", "nowhere.py"], "there is no config 'nowhere.py'."),
        (["--sizes", "big"], "--sizes 'big' is no size."),
    ],
)
def test_a_command_that_cannot_be_followed_is_refused(machine, capsys, words, said):
    assert command("scaling", *words) == 2

    assert capsys.readouterr().err.startswith(f"error: {said}")
