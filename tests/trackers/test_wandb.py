"""W&B's files of offline runs, read back with W&B's own records; and what happens where its server is not to be had."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tracked import alone, wandb_parts

from microformer.errors import TrackerError
from microformer.trackers import About, Trackers
from microformer.trackers.drawn import Drawn
from microformer.trackers.wandb import WandB

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def by_itself(tmp_path, monkeypatch):
    alone(monkeypatch, tmp_path / "home")


def begun(folder, step=0, rows=()):
    tracker = WandB()
    tracker.begin(About("r", folder, {"settings": {"seed": 1}, "parameters": 5, "data": {}}, step, rows))
    return tracker


def steps(folder):
    return [[one["_step"] for one in part] for part in wandb_parts(folder)]


def test_what_is_logged_is_in_the_file(tmp_path):
    numbers, palette = (np.random.default_rng(0).integers(0, 255, of).astype(np.uint8) for of in ((12, 8), (256, 3)))
    tracker = begun(tmp_path)
    tracker.scalars(1, {"train_loss": 4.25, "grad_norm/embed": 0.5})
    tracker.image(2, "attention", Drawn(lambda: (numbers, palette)))
    tracker.histogram(2, "weights/embed", np.array([1, 3]), np.array([0.0, 1.0, 2.0]))
    tracker.text(2, "sample", "<b> & more")
    tracker.scalars(2, {"train_loss": 3.5})
    tracker.end("finished")

    (part,) = wandb_parts(tmp_path)
    assert part[0] == {"_step": 1, "train_loss": 4.25, "grad_norm/embed": 0.5}
    assert (part[1]["_step"], part[1]["train_loss"]) == (2, 3.5)
    assert (part[1]["weights/embed.values"], part[1]["weights/embed.bins"]) == ([1, 3], [0, 1, 2])
    files = next((tmp_path / "wandb").glob("offline-run-*/files"))
    assert (np.asarray(Image.open(files / part[1]["attention.path"]).convert("RGB")) == palette[numbers]).all()
    assert "<pre>&lt;b&gt; &amp; more</pre>" in (files / part[1]["sample.path"]).read_text(encoding="utf-8")


def test_a_long_log_is_read_across_its_blocks(tmp_path):
    tracker = begun(tmp_path)
    for step in range(1, 200):
        tracker.scalars(step, {f"grad_norm/blocks.{i}": i / step for i in range(20)})
    tracker.end("finished")

    path = next((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert path.stat().st_size > 3 * 2**15
    assert steps(tmp_path) == [list(range(1, 200))]


def test_a_resumed_run_is_the_same_run_cut_back_and_what_got_lost_is_there_again(tmp_path):
    first = begun(tmp_path)
    for step in (1, 2, 4, 5):
        first.scalars(step, {"train_loss": float(step)})
    first.end("interrupted")
    rows = [{"step": step, "train_loss": float(step)} for step in (1, 2, 3)]

    second = begun(tmp_path, 3, rows)
    second.scalars(4, {"train_loss": 40.0})
    second.end("finished")
    third = begun(tmp_path, 0)
    third.scalars(1, {"train_loss": 10.0})
    third.end("finished")

    assert steps(tmp_path) == [[], [], [1]]
    names = {path.name for path in (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")}
    assert names == {f"run-{(tmp_path / 'wandb' / 'run_id').read_text()}.wandb"}


def test_until_the_step_that_is_resumed_nothing_is_lost_and_nothing_is_there_twice(tmp_path):
    first = begun(tmp_path)
    for step in (1, 2, 4, 5):
        first.scalars(step, {"train_loss": float(step)})
    first.end("interrupted")
    rows = [{"step": step, "train_loss": float(step)} for step in (1, 2, 3)]

    second = begun(tmp_path, 3, rows)
    second.scalars(4, {"train_loss": 40.0})
    second.end("finished")

    assert [[(one["_step"], one["train_loss"]) for one in part] for part in wandb_parts(tmp_path)] == [
        [(1, 1.0), (2, 2.0)],
        [(3, 3.0), (4, 40.0)],
    ]


def test_what_the_server_has_already_is_not_logged_again(tmp_path):
    first = begun(tmp_path)
    for step in (1, 2, 3):
        first.scalars(step, {"train_loss": float(step)})
    first.end("interrupted")
    path = next((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    path.with_name(path.name + ".synced").touch()

    second = begun(tmp_path, 1, [{"step": 1, "train_loss": 1.0}])
    for step in (2, 3, 4):
        second.scalars(step, {"train_loss": 10.0 * step})
    second.end("finished")

    # Where the machine is so busy that W&B's library has given up waiting, its own process writes the rest.
    until = time.monotonic() + 30
    while steps(tmp_path) != [[1, 2, 3], [4]] and time.monotonic() < until:
        time.sleep(0.1)
    assert steps(tmp_path) == [[1, 2, 3], [4]]


def test_a_training_that_is_killed_leaves_what_it_had_sent(tmp_path):
    program = f"""
import os, pathlib, signal
from microformer.trackers import About
from microformer.trackers.wandb import WandB
tracker = WandB()
tracker.begin(About("r", pathlib.Path({str(tmp_path)!r}), {{}}))
for step in (1, 2, 3):
    tracker.scalars(step, {{"train_loss": 1.0}})
os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=False)

    until = time.monotonic() + 30
    while steps(tmp_path) != [[1, 2, 3]] and time.monotonic() < until:
        time.sleep(0.1)
    assert steps(tmp_path) == [[1, 2, 3]]


@pytest.mark.parametrize("key", [None, "a" * 40])
def test_without_a_server_or_a_key_it_is_kept_offline_and_that_is_said_once(key, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    tracker = begun(tmp_path)
    tracker.scalars(1, {"train_loss": 1.0})
    tracker.end("finished")

    assert steps(tmp_path) == [[1]]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("note: wandb keeps this run offline (")
    assert "`wandb sync " in told[0]


def test_a_library_that_fails_says_why(tmp_path, monkeypatch):
    broken = tmp_path / "broken" / "wandb"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('half of it is missing')")
    monkeypatch.setattr("microformer.trackers.wandb.sys.executable", sys.executable)
    real = subprocess.Popen

    def elsewhere(command, **how):
        return real(command, **{**how, "env": {**how["env"], "PYTHONPATH": f"{broken.parent}{os.pathsep}{ROOT}"}})

    monkeypatch.setattr(subprocess, "Popen", elsewhere)
    with pytest.raises(TrackerError, match="half of it is missing"):
        begun(tmp_path)


def test_a_process_that_dies_is_an_error(tmp_path):
    tracker = begun(tmp_path)
    tracker.process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    tracker.process.wait()

    with pytest.raises(TrackerError, match="its process ended with exit code"):
        tracker.scalars(1, {"train_loss": 1.0})


def test_one_that_hangs_is_left_behind_and_does_not_live_on(tmp_path, capsys):
    tracker = WandB()
    all_of_them = Trackers([tracker])
    all_of_them.begin(About("r", tmp_path, {}))
    while tracker.process is None:
        time.sleep(0.01)
    all_of_them.end("finished", limit=0.01)

    assert tracker.process.poll() is not None
    assert "wandb has not taken everything within 0.01 s" in capsys.readouterr().err
