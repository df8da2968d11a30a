"""A training that is killed without warning, at any instant, goes on to the result of one that never was."""

import functools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from small_runs import TINY, book, flags, held_at, rows

from microformer import cli, corpora, runs
from microformer.training.loop import Loop

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
# All that has a state of its own; validations, checkpoints and logged rows fall on different steps.
HARD = {
    "corpus": "book.txt", "max_steps": 24, "dropout": 0.2, "averaging": 0.9, "optimizer": "muon", "accumulate": 2,
    "eval_every": 4, "checkpoint_every": 6, "checkpoint_minutes": 0, "log_every": 3, **TINY,
}  # fmt: skip


def train_and_die(folder, words, moment, pipe):
    """In a process of its own: gives what happened on the way, or dies at the moment-th of those events."""
    os.chdir(folder)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    events = []

    def event(what):
        events.append(what)
        if len(events) == moment:
            os.kill(os.getpid(), KILL)

    for name in ("replace", "unlink", "rmdir"):
        setattr(os, name, announced(getattr(os, name), name, event))
    os.fsync = announced(lambda descriptor: None, "fsync", event)  # which a kill, unlike a power cut, can't tell apart
    Loop._step = announced(Loop._step, "step", event)
    safetensors.torch.save_file = in_two_halves(safetensors.torch.save_file, event)
    vars(runs)["open"] = lambda *args, **kwargs: HalvedFile(open(*args, **kwargs), event)  # noqa: SIM115
    pipe.send((cli.main(words), events))


def announced(function, name, event):
    @functools.wraps(function)
    def call(*args, **kwargs):
        target = Path(args[1]).name if name == "replace" else ""
        event(f"{name} {target.rstrip('0123456789')}".strip())
        return function(*args, **kwargs)

    return call


def in_two_halves(save_file, event):
    def call(tensors, path):
        save_file(tensors, path)
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[: len(whole) // 2])
        event(f"half of {Path(path).name}")
        Path(path).write_bytes(whole)

    return call


class HalvedFile:
    """A file whose every write can be cut in the middle."""

    def __init__(self, file, event):
        self.file, self.event = file, event

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, text):
        self.file.write(text[: len(text) // 2])
        self.file.flush()
        self.event("half a line of metrics")
        self.file.write(text[len(text) // 2 :])


@pytest.fixture(scope="module")
def processes():
    """Processes that start quickly where the system can fork one with torch already imported."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # torch's optimizers bring in torch._dynamo, which takes a second.
    context.set_forkserver_preload(["test_killed", "microformer.pipeline", "matplotlib.figure", "torch._dynamo"])
    return context


def in_a_process(processes, folder, words, moment=0):
    """(exit code or None if it was killed, the events of a process that lived)."""
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=train_and_die, args=(folder, words, moment, sender))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        result = (None, [])
    process.join()
    receiver.close()
    return result


def new_project(folder):
    folder.mkdir()
    (folder / "book.txt").write_text(book())
    return folder


def state(folder):
    """All that a finished run is, times aside, as something that can be compared."""
    run = runs.Run(folder / "runs" / "r")
    tensors = {
        (which, name): tensor
        for which in ("last", "best")
        for file in sorted(run.checkpoint(which).glob("*.safetensors"))
        for name, tensor in safetensors.torch.load_file(file).items()
    }
    plain = json.loads((run.checkpoint("last") / "training.json").read_text())
    del plain["position"]["seconds"]
    ended = {name: run.info["ended"][name] for name in ("how", "step")}
    return tensors, [rows("r"), run.index, plain, ended, run.info["figures"], (run.folder / "samples.txt").read_text()]


def assert_the_same(one, other):
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())


def assert_nothing_is_unreadable(folder):
    """Every file under its own name is whole; only what is called *.partial may be half."""
    for path in folder.rglob("*"):
        if any(part.endswith(".partial") for part in path.relative_to(folder).parts):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            safetensors.torch.load_file(path)
    if corpora.what_to_prepare(folder / "data", explicit=None, default_corpus="book.txt")[1] is None:
        corpora.load_prepared(folder / "data")
    for run in runs.all_runs(folder / "runs"):
        assert run.metrics is not None
        if run.index["last"]:
            assert runs.Run(run.folder, "last").model


def some_of_each(events):
    """The first and last moment of each kind of event, and one between them."""
    moments = {}
    for moment, event in enumerate(events, 1):
        moments.setdefault(event, []).append(moment)
    ends = {each[i] for each in moments.values() for i in (0, -1)}
    return sorted(ends | {moments[event][len(moments[event]) // 2] for event in ("step", "replace index.json")})


def test_killed_at_any_instant_and_resumed_it_ends_with_the_same_weights_losses_and_steps(
    tmp_path, monkeypatch, processes
):
    words = ["train", "--run", "r", *flags(**HARD)]
    whole = new_project(tmp_path / "whole")
    code, events = in_a_process(processes, whole, words)
    assert code == 0
    monkeypatch.chdir(whole)
    wanted = state(whole)
    assert {
        "replace train.pt", "replace manifest.json", "replace run.json", "step", "half a line of metrics",
        "half of model.safetensors", "half of training.safetensors", "replace last-", "replace best-",
        "replace index.json",
    } <= set(events)  # fmt: skip

    moments = some_of_each(events)
    for moment in moments:
        killed = new_project(tmp_path / f"killed at {moment}, {events[moment - 1]}")
        monkeypatch.chdir(killed)
        assert in_a_process(processes, killed, words, moment) == (None, [])
        assert_nothing_is_unreadable(killed)

        again = ["train", "--run", "r", "--resume"] if Path("runs/r/run.json").exists() else words
        assert in_a_process(processes, killed, again)[0] == 0

        assert_nothing_is_unreadable(killed)
        assert not list(killed.rglob("*.partial"))
        assert_the_same(state(killed), wanted)
        shutil.rmtree(killed)
    assert len(moments) >= 20


def test_killed_twice_it_still_ends_the_same(tmp_path, monkeypatch, processes):
    words = ["train", "--run", "r", *flags(**HARD)]
    monkeypatch.chdir(new_project(tmp_path / "whole"))
    _, events = in_a_process(processes, Path.cwd(), words)
    wanted = state(Path.cwd())
    steps = [moment for moment, event in enumerate(events, 1) if event == "step"]

    monkeypatch.chdir(new_project(tmp_path / "killed"))
    in_a_process(processes, Path.cwd(), words, steps[17])
    in_a_process(processes, Path.cwd(), ["train", "--resume"], 40)
    in_a_process(processes, Path.cwd(), ["train", "--resume"])

    assert_the_same(state(Path.cwd()), wanted)


def test_killed_after_it_stopped_early_it_does_not_train_on(tmp_path, monkeypatch, processes):
    # With a rate of 0 nothing ever improves.
    words = ["train", "--run", "r", *flags(**{**HARD, "learning_rate": 0, "patience": 2})]
    monkeypatch.chdir(new_project(tmp_path / "whole"))
    _, events = in_a_process(processes, Path.cwd(), words)
    wanted = state(Path.cwd())
    assert wanted[1][3] == {"how": "validation has not improved 2 times in a row", "step": 12}

    monkeypatch.chdir(new_project(tmp_path / "killed"))
    in_a_process(processes, Path.cwd(), words, events.index("replace samples.txt") + 1)
    in_a_process(processes, Path.cwd(), ["train", "--resume"])

    assert_the_same(state(Path.cwd()), wanted)


def test_killed_from_outside_at_a_step_that_was_seen(tmp_path, monkeypatch):
    words = [sys.executable, "-m", "microformer", "train", "--run", "r"]
    monkeypatch.setenv("PYTHONPATH", str(Path(runs.__file__).parents[1]))
    monkeypatch.chdir(new_project(tmp_path / "whole"))
    long = {**HARD, "max_steps": 80, "eval_every": 20, "checkpoint_every": 30}
    subprocess.run([*words, *flags(**long)], check=True, capture_output=True)
    wanted = state(Path.cwd())

    monkeypatch.chdir(new_project(tmp_path / "killed"))
    command = [*held_at(79), *words[3:], *flags(**long)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        metrics = Path("runs/r/metrics.jsonl")
        while not (metrics.exists() and metrics.read_text().count("\n") > 15):
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert runs.Run(Path("runs/r")).info["ended"] is None
    subprocess.run([*words, "--resume"], check=True, capture_output=True)

    assert_the_same(state(Path.cwd()), wanted)
