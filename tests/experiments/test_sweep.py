"""Sweeps: what is proposed, stopped, told and kept; killed for real, shared, and gone on with. Most trainings here are
made up, by a formula; one is real."""

import contextlib
import importlib
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import TINY, book, command

from microformer.errors import FileError, SettingsError, TrainingError
from microformer.experiments import sweep as searching
from microformer.experiments.cells import Cell
from microformer.experiments.space import read_plan
from microformer.experiments.sweep import sweep
from microformer.runs import RUNS, Run
from microformer.settings import resolve

VALIDATIONS = 8
SPACE = """[space]
learning_rate = { low = 0.001, high = 0.1, log = true }
num_layers = { low = 1, high = 4 }
norm = ["rmsnorm", "layernorm"]
"""


def loss_of(settings) -> float:
    """What a made-up training comes to: best at a rate of 0.02, with two layers."""
    training, model = settings.training, settings.model
    rate = training.learning_rate if training.learning_rate != "auto" else 0.01
    return 1.5 + 0.1 * math.log10(rate / 0.02) ** 2 + 0.05 * abs(model.num_layers - 2) + 0.001 * (training.seed - 1)


def made_up(arm, seed, chosen, folder, code, *, threads=0, watch=None, stop=None, data=None):
    """A training without one: the run folder of it, in which the loss falls to what the formula says."""
    run = Run(Path(folder) / RUNS / f"{arm.name}-{seed}")
    run.folder.mkdir(parents=True, exist_ok=True)
    steps, final = chosen.training.max_steps, loss_of(chosen)
    about = {
        "settings": chosen.flat(), "model": {}, "parameters": 1000, "legs": [], "ended": None,
        "data": {"train": {"tokens": 1000}, "val": {"tokens": 100, "bytes": 100}},
    }  # fmt: skip
    run.write_info(about)
    (run.folder / "metrics.jsonl").unlink(missing_ok=True)
    done = 0
    for part in range(1, VALIDATIONS + 1):
        done = part
        loss = final + 0.5 * (1 - part / VALIDATIONS)
        run.append_metrics({"step": part * steps // VALIDATIONS, "tokens": part, "seconds": part, "val_loss": loss})
        if watch is not None and LOOKS and watch(Run(run.folder)):
            break
    stopped = done < VALIDATIONS
    run.write_info({**about, "ended": {"how": "interrupted" if stopped else "finished", "step": steps}})
    best = final + 0.5 * (1 - done / VALIDATIONS)
    return Cell(
        arm.name, seed, run.folder, reused=False, stopped=stopped, loss=best, bits_per_byte=best / math.log(2),
        steps=steps, seconds=1.0, parameters=1000,
    )  # fmt: skip


# Whether a made-up training is looked at while it lasts.
LOOKS = True


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a text and a base, where trainings are made up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(searching, "train_one", made_up)
    Path("book.txt").write_text(book(30), encoding="utf-8")
    tiny = {**TINY, "embed_dim": 12}
    Path("base.py").write_text(
        'CORPUS = "book.txt"\n' + "".join(f"{name.upper()} = {value!r}\n" for name, value in tiny.items()),
        encoding="utf-8",
    )
    return tmp_path


def plan(head: str = "", space: str = SPACE, name: str = "search.toml"):
    Path(name).write_text(f'[sweep]\nbase = "base.py"\nsteps = 64\n{head}\n{space}', encoding="utf-8")
    return read_plan(name)


def told(found) -> list[tuple]:
    return [(one.number, dict(one.settings), one.how, one.loss) for one in found.trials]


def test_the_best_is_a_config_and_everything_is_written(here):
    found = sweep(plan("trials = 12\nseeds = 2"))
    found.write("kept")

    assert [one.how for one in found.trials] == ["ended"] * 12
    best = found.best
    assert best is not None
    assert best.loss == min(one.loss for one in found.trials)
    assert best.losses == pytest.approx([best.loss - 0.0005, best.loss + 0.0005])
    # The trials that TPE proposes by what it has seen are better than those it drew.
    chosen = resolve("kept/best.py")
    wanted = found.plan.settings(best.settings, 1)
    assert chosen.flat() == wanted.flat()
    assert (chosen.training.max_steps, chosen.model.embed_dim) == (64, 12)
    table = Path("kept/table.md").read_text(encoding="utf-8")
    assert table.splitlines()[2].startswith(f"| {best.number} | {best.loss:.4f} |")
    assert "importance (of few trials: a hint): " in table
    plain = json.loads(Path("kept/sweep.json").read_text(encoding="utf-8"))
    assert plain["best"]["settings"] == best.settings
    assert len(plain["trials"]) == 12
    for picture in ("history", "slices"):
        assert Path(f"kept/{picture}.png").stat().st_size > 10_000
        assert Path(f"kept/{picture}.svg").is_file()
    assert sum(found.importance.values()) == pytest.approx(1)
    assert found.importance["learning_rate"] > found.importance["norm"]
    assert "<table>" in found._repr_html_()


def test_the_same_search_proposes_the_same_and_another_seed_something_else(here):
    first, again = sweep(plan("trials = 6"), output="one"), sweep(plan("trials = 6"), output="two")
    other = sweep(plan("trials = 6\nseed = 2"), output="three")

    assert told(first) == told(again)
    assert [one.settings for one in other.trials] != [one.settings for one in first.trials]


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_search_that_was_interrupted_anywhere_goes_on_as_if_it_had_not_been(here, monkeypatch, method):
    head = f'method = "{method}"\ntrials = 11\npruner = "median"'
    whole = sweep(plan(head), output="whole")
    began = []

    def breaks(arm, *words, **how):
        began.append(arm.name)
        if len(began) in (2, 8, 9, 13):
            raise KeyboardInterrupt
        return made_up(arm, *words, **how)

    monkeypatch.setattr(searching, "train_one", breaks)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            sweep(plan(head), output="parts")
    parts = sweep(plan(head), output="parts")

    assert told(parts) == told(whole)
    assert len(began) == 11 + 4
    assert {"pruned", "ended"} == {one.how for one in whole.trials}


@pytest.mark.parametrize("method", ["random", "tpe", "grid"])
def test_one_that_was_killed_while_it_proposed_proposes_the_same_again(here, monkeypatch, method):
    trials = "" if method == "grid" else "trials = 6"
    space = SPACE if method != "grid" else "[space]\nnum_layers = [1, 2, 3]\nnorm = ['rmsnorm', 'layernorm']\n"
    asked = plan(f'method = "{method}"\n{trials}', space)
    whole = sweep(asked, output="whole")
    optuna = importlib.import_module("optuna")
    # Everything that writes to the storage, each once the one after which the process is killed.
    for name, at in (("suggest_float", 3), ("suggest_categorical", 5), ("set_user_attr", 4), ("report", 1)):
        real, calls = getattr(optuna.Trial, name), []

        def dies(trial, *words, real=real, calls=calls, at=at, **how):
            found = real(trial, *words, **how)
            calls.append(1)
            if len(calls) == at:
                raise KeyboardInterrupt
            return found

        with monkeypatch.context() as patch:
            patch.setattr(optuna.Trial, name, dies)
            with contextlib.suppress(KeyboardInterrupt):
                sweep(asked, output="parts")

    assert told(sweep(asked, output="parts")) == told(whole)


def test_a_cell_that_was_put_there_and_not_taken_is_tried_once(here, monkeypatch):
    asked = plan('method = "grid"', "[space]\nnum_layers = [1, 2, 3]\n")
    optuna = importlib.import_module("optuna")
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "ask", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sweep(asked)

    assert [(one.number, one.settings["num_layers"], one.how) for one in sweep(asked).trials] == [
        (0, 1, "ended"), (1, 2, "ended"), (2, 3, "ended"),
    ]  # fmt: skip


def test_more_trials_go_on_with_those_that_are_there(here, monkeypatch):
    few = sweep(plan("trials = 3"))
    asked = []
    monkeypatch.setattr(searching, "train_one", lambda *words, **how: asked.append(1) or made_up(*words, **how))

    more = sweep(plan("trials = 5"))
    same = sweep(plan("trials = 5"))

    assert told(more)[:3] == told(few)
    assert told(same) == told(more)
    assert len(asked) == 2


def test_a_grid_tries_each_cell_once_and_tells_those_that_cannot_be(here):
    space = "[space]\nnum_heads = [2, 3, 5]\nnum_layers = [1, 2]\n"

    found = sweep(plan('method = "grid"', space))

    assert [(one.settings["num_heads"], one.settings["num_layers"]) for one in found.trials] == [
        (2, 1), (2, 2), (3, 1), (3, 2), (5, 1), (5, 2),
    ]  # fmt: skip
    assert [one.how for one in found.trials] == ["ended"] * 4 + ["refused"] * 2
    assert "12 can't be divided into 5 heads" in (found.trials[-1].reason or "")
    assert found.sentences()[0] == "6 trials: 4 ended, 2 can't be."


def test_candidates_that_cannot_be_or_were_tried_are_drawn_again(here, monkeypatch):
    monkeypatch.setattr(searching, "_DRAWS", 20)
    space = "[space]\nnum_heads = [2, 3, 5, 7]\nnum_layers = [1, 2]\n"

    found = sweep(plan('method = "random"\ntrials = 4', space))
    # There are four that can be: the search says so, and ends.
    more = sweep(plan('method = "random"\ntrials = 9', space))

    ended = [tuple(one.settings.values()) for one in found.trials if one.how == "ended"]
    assert sorted(ended) == [(2, 1), (2, 2), (3, 1), (3, 2)]
    assert [one.number for one in more.ended] == [one.number for one in found.ended]
    assert {one.how for one in more.trials} == {"ended", "refused", "same"}


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6])
def test_one_that_cannot_be_or_was_tried_is_known_as_such_after_a_kill_too(here, monkeypatch, at):
    asked = plan('method = "random"\ntrials = 4', "[space]\nnum_heads = [2, 3, 5]\nnum_layers = [1, 2]\n")
    whole = sweep(asked, output="whole")
    optuna = importlib.import_module("optuna")
    real, calls = optuna.Trial.set_user_attr, []

    def dies(trial, name, value):
        real(trial, name, value)
        if name == "candidate":
            calls.append(1)
            if len(calls) == at:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "set_user_attr", dies)
        with contextlib.suppress(KeyboardInterrupt):
            sweep(asked, output="parts")

    assert told(sweep(asked, output="parts")) == told(whole)
    assert {"refused", "same"} & {one.how for one in whole.trials}


def test_a_space_in_which_nothing_can_be_is_told_with_its_reason(here, monkeypatch):
    monkeypatch.setattr(searching, "_DRAWS", 20)
    with pytest.raises(SettingsError, match=r"20 candidates in a row can't be: .* can't be divided into"):
        sweep(plan('method = "random"', "[space]\nnum_heads = [5, 7]\n"))


@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_a_training_that_lags_behind_is_stopped_and_the_verdict_does_not_depend_on_when_it_is_looked_at(
    here, monkeypatch, pruner
):
    head = f'trials = 13\nmethod = "random"\npruner = "{pruner}"\nseeds = 2'
    looked = sweep(plan(head), output="looked")
    monkeypatch.setattr(sys.modules[__name__], "LOOKS", False)  # each has ended before the first look
    missed = sweep(plan(head), output="missed")

    pruned = [one for one in looked.trials if one.how == "pruned"]
    assert 1 < len(pruned) < 12
    assert all(len(one.runs) == 1 and 16 <= one.steps < 64 for one in pruned)
    assert found_worse(looked)
    assert told(missed) == told(looked)
    assert {one.how for one in sweep(plan(head.replace(pruner, "none")), output="all").trials} == {"ended"}


def found_worse(found) -> bool:
    """Whether those that were stopped would have been no better than the best."""
    worth = [loss_of(found.plan.settings(one.settings, 1)) for one in found.trials if one.how == "pruned"]
    return min(worth) > found.best.loss


def test_one_that_diverges_and_one_that_fails_are_told_and_the_others_go_on(here, monkeypatch):
    broken = [True]

    def trained(arm, seed, chosen, *words, **how):
        if chosen.model.num_layers == 1:
            return Cell(arm.name, seed, Path("runs/x"), reused=False, failed="it diverged at step 3")
        if chosen.model.num_layers == 2 and broken[0]:
            return Cell(arm.name, seed, Path("runs/x"), reused=False, failed="can't write runs/x: No space left.")
        return made_up(arm, seed, chosen, *words, **how)

    monkeypatch.setattr(searching, "train_one", trained)
    grid = plan('method = "grid"', "[space]\nnum_layers = [1, 2, 3, 4]\n")
    first = sweep(grid)
    broken[0] = False
    again = sweep(grid)

    assert [one.how for one in first.trials] == ["diverged", "failed", "ended", "ended"]
    assert "Trial 1 (num_layers=2): can't write runs/x: No space left.\n" in first.markdown()
    # What failed for no fault of its settings is tried again; what diverged would again.
    assert [one.how for one in again.trials] == ["diverged", "ended", "ended", "ended"]


def test_where_one_after_the_other_fails_the_sweep_stops_with_the_reason_and_goes_on_later(here, monkeypatch):
    asked = []

    def full(arm, seed, chosen, *words, **how):
        asked.append(arm.name)
        return Cell(arm.name, seed, Path("runs/x"), reused=False, failed="can't write runs/x: No space left on device.")

    monkeypatch.setattr(searching, "train_one", full)
    with pytest.raises(TrainingError, match="3 trainings in a row failed, the last: can't write runs/x: No space left"):
        sweep(plan("trials = 8"))
    assert len(asked) == 3
    monkeypatch.setattr(searching, "train_one", made_up)

    found = sweep(plan("trials = 8"))

    assert [one.how for one in found.trials] == ["ended"] * 8


@pytest.mark.parametrize(
    ("head", "space", "said"),
    [
        ("trials = 2", SPACE.replace("0.001", "0.002"), "its space is another in learning_rate"),
        ("trials = 2", SPACE + 'positions = ["rope"]', "its space is another in positions"),
        ("trials = 2\nseeds = 2", SPACE, "it has 1 seeds a trial"),
        ('method = "grid"', '[space]\nnorm = ["rmsnorm"]\n', "its method is random or tpe"),
    ],
)
def test_another_question_on_the_same_storage_is_refused(here, head, space, said):
    sweep(plan("trials = 2"))
    before = Path("experiments/search/sweep.db").read_bytes()

    with pytest.raises(SettingsError, match="experiments/search holds another sweep's trials: ") as refused:
        sweep(plan(head, space))

    assert said in refused.value.sentence
    assert "--output" in refused.value.hint
    assert Path("experiments/search/sweep.db").read_bytes() == before


def test_another_base_text_or_code_is_another_question_too(here, monkeypatch):
    sweep(plan("trials = 2"))
    base = Path("base.py").read_text(encoding="utf-8")
    Path("base.py").write_text(base + "DROPOUT = 0.1\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="its base is another in dropout"):
        sweep(plan("trials = 2"))
    Path("base.py").write_text(base, encoding="utf-8")
    Path("book.txt").write_text(book(31), encoding="utf-8")
    with pytest.raises(SettingsError, match="they were trained on other data"):
        sweep(plan("trials = 2"))
    Path("book.txt").write_text(book(30), encoding="utf-8")
    monkeypatch.setattr(searching, "code_hash", lambda: "other")
    with pytest.raises(SettingsError, match="another version of the code"):
        sweep(plan("trials = 2"))


def test_a_storage_that_is_damaged_or_has_no_room_is_told_in_a_sentence(here, monkeypatch):
    folder = Path("experiments/search")
    folder.mkdir(parents=True)
    (folder / "sweep.db").write_bytes(b"no database " * 1000)
    with pytest.raises(FileError, match=r"can't use experiments/search/sweep\.db: file is not a database"):
        sweep(plan("trials = 2"))
    (folder / "sweep.db").unlink()
    sweep(plan("trials = 2"))
    pages = [sqlite3.connect(folder / "sweep.db").execute("PRAGMA page_count").fetchone()[0]]
    real = sqlite3.connect

    def small(*words, **how):
        connection = real(*words, **how)
        connection.execute(f"PRAGMA max_page_count = {pages[0]}")
        return connection

    monkeypatch.setattr(searching.sqlite3, "connect", small)
    with pytest.raises(FileError, match="database or disk is full") as told_full:
        sweep(plan("trials = 2000"))
    assert "free some space" in told_full.value.hint
    monkeypatch.setattr(searching.sqlite3, "connect", real)

    number = len(sweep(plan("trials = 2")).trials)
    assert [one.number for one in sweep(plan(f"trials = {number + 1}")).trials] == list(range(number + 1))


def test_tokenizers_are_ranked_by_bits_a_byte(here):
    found = sweep(plan('method = "grid"', '[space]\ntokenizer = ["char", "byte"]\n'))

    assert found.unit == "bits per byte"
    assert found.best is not None
    assert found.best.loss == pytest.approx(loss_of(found.plan.settings(found.best.settings, 1)) / math.log(2))


def test_a_component_of_ones_own_that_is_not_there_is_told_before_anything_is_trained(here):
    with pytest.raises(Exception, match=r"my_attention\.py"):
        sweep(plan("trials = 2", '[space]\nattention = ["softmax", "my_attention.py:MyAttention"]\n'))
    assert not Path("experiments/search/sweep.db").exists()


def test_without_optuna_the_way_to_it_is_told(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)

    with pytest.raises(SettingsError) as refused:
        sweep(plan("trials = 2"))

    assert refused.value.sentence == "this takes the package optuna."
    assert refused.value.hint == 'pip install "microformer[experiments]"'


# A process of its own with made-up trainings. Each begins, once it is told to by a line.
PROCESS = """
import sys
sys.path[:0] = {paths!r}
import test_sweep
from microformer.experiments import sweep as searching
from microformer.experiments.space import read_plan

def told(*words, **how):
    print("trains", flush=True)
    sys.stdin.readline()
    return test_sweep.made_up(*words, **how)

searching.train_one = told
found = searching.sweep(read_plan("search.toml"), tell=lambda trial, found: print(trial.number, flush=True))
print("done", flush=True)
"""


def started() -> subprocess.Popen:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(searching.__file__).parents[2])]
    program = PROCESS.format(paths=paths)
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )


def test_killed_in_the_middle_and_gone_on_with_by_two_at_once_every_trial_is_there_once(here):
    head = 'method = "random"\ntrials = 10'
    whole = sweep(plan(head), output="whole")
    plan(head)
    first = started()
    assert first.stdin is not None
    assert first.stdout is not None
    for number in range(3):
        assert first.stdout.readline() == "trains\n"
        first.stdin.write("\n")
        assert first.stdout.readline() == f"{number}\n"
    assert first.stdout.readline() == "trains\n"
    os.kill(first.pid, signal.SIGKILL)  # in the middle of a training
    first.communicate()
    two = [started(), started()]
    for one in two:
        assert one.stdout is not None
        assert one.stdout.readline() == "trains\n"
    lines = [one.communicate("\n" * 10, timeout=120)[0].split() for one in two]

    assert [one.returncode for one in two] == [0, 0]
    found = sweep(plan(head))
    assert told(found) == told(whole)
    # Both had a share, and none was tried twice.
    numbers = [[int(word) for word in words if word.isdigit()] for words in lines]
    assert all(numbers)
    assert sorted(numbers[0] + numbers[1]) == list(range(3, 10))


def test_the_command_trains_for_real_and_says_what_came_of_it(here, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.chdir(here)
    plan('method = "grid"', "[space]\nnum_layers = [1, 2]\n")

    assert command("sweep", "search.toml") == 0

    said = capsys.readouterr()
    assert "1/2  num_layers=1: loss " in said.err
    assert "best      experiments/search/best.py: microformer train --config experiments/search/best.py" in said.out
    assert command("sweep", "search.toml", "--json") == 0
    plain = json.loads(capsys.readouterr().out)
    runs = [json.loads(Path("runs", one["runs"][0], "run.json").read_text(encoding="utf-8")) for one in plain["trials"]]
    assert [run["settings"]["num_layers"] for run in runs] == [1, 2]
    assert [run["figures"]["val_loss"] for run in runs] == [one["loss"] for one in plain["trials"]]
    assert [run["ended"]["step"] for run in runs] == [64, 64]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trials", "0"], "--trials 0 can't be: it is 1 or more."),
        (["--trials", "few"], "--trials 'few' is not a whole number."),
        (["--parallel", "512"], "--parallel 512 is more than this machine can take"),
        (["--output", "base.py"], "can't write base.py"),
    ],
)
def test_a_command_that_cannot_be_followed_is_refused(here, capsys, words, said):
    plan()

    assert command("sweep", "search.toml", *words) == 2

    assert capsys.readouterr().err.startswith(f"error: {said}")
