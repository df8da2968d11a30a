"""Comparisons' trainings: trained once, side by side, resumed, reused, and told apart by settings, data and code."""

import json
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from small_runs import TINY, book

from microformer import devices, pipeline
from microformer.errors import MicroformerError, SettingsError
from microformer.experiments import Arm, cells, train_all
from microformer.pipeline import evaluate
from microformer.runs import load_run
from microformer.settings import Settings

BASE = Settings().changed({**TINY, "corpus": "book.txt", "max_steps": 8, "epochs": 0.0, "eval_every": 4})
# Long enough to be caught at it.
LONG = BASE.changed({"max_steps": 600, "eval_every": 150, "patience": 0})
ARMS = (Arm("base"), Arm("no positions", {"positions": "none"}))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "code_hash", lambda: "the same code")  # whoever edits it meanwhile
    (tmp_path / "book.txt").write_text(book(), encoding="utf-8")
    # Nothing in the folder may change what an arm is.
    (tmp_path / "config.py").write_text("EMBED_DIM = 48\n", encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The cells of LONG, which nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "book.txt").write_text(book(), encoding="utf-8")
    return train_all(LONG, ARMS, [1], folder)


def without_times(cell):
    curve = [(point.step, point.tokens, point.loss) for point in cell.curve]
    return cell.arm, cell.seed, cell.loss, cell.steps, cell.tokens, curve, cell.failed, cell.stopped


def test_each_arm_is_trained_once_and_an_arm_that_cannot_be_is_told(folder):
    arms = (*ARMS, Arm("too fast", {"learning_rate": 100.0, "optimizer": "adamw", "grad_clip": 0.0, "max_steps": 60}))
    first = train_all(BASE, arms[:2], [1], folder)
    again = train_all(BASE, arms, [1], folder)

    assert [cell.reused for cell in first + again] == [False, False, True, True, False]
    assert [cell.loss for cell in again[:2]] == [cell.loss for cell in first]
    assert first[0].loss != first[1].loss
    assert [point.step for point in first[0].curve] == [4, 8]
    assert [point.tokens for point in first[0].curve] == [4 * 4 * 16, 8 * 4 * 16]
    info = json.loads((first[1].run / "run.json").read_text(encoding="utf-8"))
    assert info["settings"]["positions"] == "none"
    assert info["settings"]["embed_dim"] == TINY["embed_dim"]
    # What it took is told: this one's process has at least torch in its memory.
    assert info["ended"]["memory"] == first[1].memory > 50_000_000
    assert (first[1].parameters, first[1].threads, first[1].device) == (info["parameters"], 1, "cpu")


def test_a_training_that_fails_leaves_its_reason_and_the_others_their_figures(folder):
    arms = (*ARMS, Arm("no text", {"corpus": "missing.txt"}))

    found = train_all(BASE, arms, [1], folder)

    assert "missing.txt" in (found[2].failed or "")
    assert [cell.failed for cell in found[:2]] == [None, None]


def test_several_at_once_are_as_they_are_one_by_one_and_come_in_the_same_order(folder, whole, monkeypatch):
    monkeypatch.setattr(devices, "usable_cores", lambda: 2)
    told = []
    found = train_all(LONG, ARMS[::-1], [1], folder, told.append, parallel=2)

    assert [without_times(cell) for cell in found] == [without_times(cell) for cell in whole[::-1]]
    assert {cell.run for cell in told} == {cell.run for cell in found}


def test_a_cell_that_is_watched_is_stopped_and_goes_on_where_it_was(folder, whole):
    seen = []

    def watch(run):
        seen.append(run.name)
        return bool(run.metrics)

    stopped = cells.train_one(ARMS[0], 1, LONG.changed({"seed": 1}), folder, "code", watch=watch)
    assert (stopped.stopped, stopped.failed, stopped.run.name) == (True, None, seen[0])
    assert 0 < stopped.steps < 600
    assert load_run(str(stopped.run)).info["ended"]["how"] == "interrupted"

    again = cells.train_one(ARMS[0], 1, LONG.changed({"seed": 1}), folder, "code")
    assert (again.run, again.reused) == (stopped.run, False)
    assert without_times(again) == without_times(whole[0])


def test_a_training_that_is_killed_says_so_and_the_next_call_goes_on_to_the_same_loss(folder, whole, monkeypatch):
    ended_within, killed = cells._ended_within, []

    def killing(process, seconds):
        if not killed and any((folder / "runs").glob("base-1-*/checkpoints/last-*")):
            killed.append(process)
            process.kill()
        return ended_within(process, seconds)

    with monkeypatch.context() as patch:
        patch.setattr(cells, "_ended_within", killing)
        found = train_all(LONG, ARMS, [1], folder)
    assert found[0].failed is not None
    if hasattr(signal, "SIGKILL"):
        assert "its process was killed (signal 9" in found[0].failed
    assert without_times(found[1]) == without_times(whole[1])

    again = train_all(LONG, ARMS, [1], folder)
    assert [cell.reused for cell in again] == [False, True]
    assert again[0].run == found[0].run
    assert [without_times(cell) for cell in again] == [without_times(cell) for cell in whole]


def test_ctrl_c_lets_what_is_at_work_save_and_the_next_call_goes_on(folder, whole, monkeypatch):
    monkeypatch.setattr(devices, "usable_cores", lambda: 2)

    def interrupt(cell):
        raise KeyboardInterrupt

    arms = (Arm("short", {"max_steps": 8}), *ARMS)
    with pytest.raises(KeyboardInterrupt):
        train_all(LONG, arms, [1], folder, interrupt, parallel=2)
    left = {run.parent.name: json.loads(run.read_text(encoding="utf-8")) for run in folder.glob("runs/*/run.json")}
    assert {info["ended"]["how"] for info in left.values()} <= {"finished", "interrupted"}
    assert len(left) <= 3

    again = train_all(LONG, arms, [1], folder, parallel=2)
    assert [without_times(cell) for cell in again[1:]] == [without_times(cell) for cell in whole]
    assert {cell.run.name for cell in again} >= left.keys()


def test_two_who_want_the_same_cell_train_it_once(folder, capsys):
    found = []

    def train():
        found.append(cells.train_one(ARMS[0], 1, LONG.changed({"max_steps": 300}), folder, "code"))

    threads = [threading.Thread(target=train) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(cell.reused for cell in found) == [False, True]
    assert found[0].run == found[1].run


def test_an_error_of_who_watches_ends_the_training_too(folder):
    def watch(run):
        if not run.metrics:  # a training ended before its first step writes down no end
            return False
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        cells.train_one(ARMS[0], 1, LONG.changed({"max_steps": 100_000}), folder, "code", watch=watch)
    (run,) = folder.glob("runs/base-1-*")
    assert load_run(str(run)).info["ended"]["how"] == "interrupted"


def test_a_cell_of_a_folder_that_cannot_be_written_to_says_why(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cells, "FileLock", lambda *_, **__: SimpleNamespace(acquire=full))
    found = cells.train_one(ARMS[0], 1, BASE, folder, "code")

    assert "No space left on device" in (found.failed or "")


def test_what_the_training_said_is_the_reason():
    assert cells._reason(2, "note: a\nerror: can't write x: No space left on device.\nhint: free some.\n") == (
        "can't write x: No space left on device."
    )
    assert "killed (signal 15)" in cells._reason(-15, "")
    assert "memory runs out" in cells._reason(-9, "")
    assert cells._reason(1, "Traceback\nKeyError: 'x'\n") == "KeyError: 'x'"
    assert cells._reason(1, "") == "it ended without a word"


def test_other_code_is_another_run(folder):
    settings = ARMS[0].settings(BASE, 1)
    one = cells.train_one(ARMS[0], 1, settings, folder, "this code")

    assert cells.train_one(ARMS[0], 1, settings, folder, "this code").reused
    other = cells.train_one(ARMS[0], 1, settings, folder, "other code")
    assert not other.reused
    assert other.run != one.run
    assert other.loss == one.loss  # the same settings, after all


def test_other_data_is_another_run_and_every_run_finds_its_own(folder, monkeypatch):
    base = BASE.changed({"corpus": Settings().data.corpus})
    base = Settings().changed({name: value for name, value in base.flat().items() if value != Settings().flat()[name]})
    (folder / "data").mkdir()
    (folder / "data" / "corpus.txt").write_text(book(seed=1), encoding="utf-8")
    arms = (Arm("characters"), Arm("pieces", {"tokenizer": "bpe", "vocab_size": 300}))
    first = train_all(base, arms, [1], folder)
    (folder / "data" / "corpus.txt").write_text(book(seed=2), encoding="utf-8")
    second = train_all(base, (*arms[:1], Arm("none", {"positions": "none"})), [1], folder)

    assert [cell.failed for cell in first + second] == [None] * 4
    assert not second[0].reused
    assert second[0].loss != first[0].loss
    # data/ is as it was; each run's data is where its fingerprint says.
    assert not (folder / "data" / "manifest.json").exists()
    monkeypatch.chdir(folder)
    for cell in (*first, *second):
        nats = evaluate(load_run(cell.run.name))["nats_per_token"]
        assert nats == pytest.approx(cell.loss, abs=1e-6)
    assert first[0].bits_per_byte / first[0].loss != first[1].bits_per_byte / first[1].loss


def test_what_lies_in_data_is_used_without_a_copy_and_left_alone(folder, monkeypatch):
    monkeypatch.chdir(folder)
    pipeline.prepare(Settings(), ["book.txt"])
    before = {path.name: path.read_bytes() for path in (folder / "data").iterdir() if path.is_file()}
    base = Settings().changed({**TINY, "max_steps": 4, "epochs": 0.0})
    found = train_all(base, ARMS, [1], folder)

    assert [cell.failed for cell in found] == [None, None]
    assert {path.name: path.read_bytes() for path in (folder / "data").iterdir() if path.is_file()} == before
    (apart,) = (folder / "data" / ".prepared").glob("[0-9a-f]*/train.pt")
    assert apart.samefile(folder / "data" / "train.pt")
    # Another text in data/ is no other text for these runs.
    (folder / "other.txt").write_text(book(seed=5), encoding="utf-8")
    pipeline.prepare(Settings(), ["other.txt"])
    assert evaluate(load_run(found[0].run.name))["nats_per_token"] == pytest.approx(found[0].loss, abs=1e-6)


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ((Arm("one"),), "nothing to compare"),
        ((Arm("one"), Arm("one", {"num_layers": 2})), "called 'one'"),
        ((Arm("one"), Arm("two", {"num_layers": 1})), "the same settings"),
        ((Arm("one"), Arm("two", {"attention": "softmax*1"})), "the same settings"),
        ((Arm("one"), Arm("two", {"num_heads": 3})), "divided"),
        ((Arm("one"), Arm("two", {"max_steps": 0})), "would never end"),
        ((Arm("one"), Arm("two", {"attention": "mine.py:Mine"})), "no such file"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(arms, said, tmp_path):
    with pytest.raises(MicroformerError, match=said):
        train_all(BASE, arms, [1], tmp_path)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("cores", "memory", "parallel", "said"),
    [
        (2, None, 0, "--parallel 0 can't be"),
        (2, None, 3, "--parallel 3 is more than this machine can take: here are 2 cores"),
        (1, None, 2, "here is 1 core"),
        (4, 1_000_000_000, 4, r"--parallel 4 takes at least 1\.2 GB, and 1\.0 GB of memory are free"),
    ],
)
def test_more_at_once_than_the_machine_can_take_is_refused(cores, memory, parallel, said, folder, monkeypatch):
    monkeypatch.setattr(devices, "usable_cores", lambda: cores)
    monkeypatch.setattr(devices, "memory_available", lambda: memory)
    with pytest.raises(SettingsError, match=said):
        train_all(BASE, ARMS, [1], folder, parallel=parallel)
    assert not (folder / "runs").exists()


def test_the_threads_of_trainings_side_by_side_are_a_share_of_the_cores(folder, monkeypatch):
    data = cells.prepared_apart(BASE, folder)
    wide = BASE.changed({"threads": "auto", "embed_dim": 256, "batch_size": 64, "max_seq_len": 64})

    assert cells._settled(wide, data, 3).machine.threads == 3
    assert cells._settled(wide.changed({"threads": 2}), data, 3).machine.threads == 2
    assert cells._settled(BASE.changed({"threads": "auto"}), data, 3).machine.threads == 1  # too small to share


def test_a_training_ends_with_who_started_it(folder):
    """As it does where the starter is killed: the pipe that it holds ends."""
    words = [
        "train",
        "--run",
        "r",
        "--corpus",
        "book.txt",
        *cells._flags(LONG.changed({"max_steps": 10**6}).flat(), folder),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "microformer", *words, "--until-input-ends"],
        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        while not (folder / "runs" / "r" / "metrics.jsonl").is_file():
            assert process.poll() is None
            time.sleep(0.05)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 130
    assert load_run(str(folder / "runs" / "r")).info["ended"]["how"] == "interrupted"
