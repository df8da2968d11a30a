"""Trainings that trackers look on at: they are told what metrics.jsonl says, and nothing they do changes a training."""

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import TINY, book, command, flags, info, resume, rows, stopped_at, train, without_picture_and_sample
from tracked import alone, points, tensorboard, wandb_parts

from microformer import load_run, pipeline, trackers
from microformer.inspection import probes
from microformer.pipeline import beside
from microformer.trackers import Tracker, lanes
from microformer.trackers.tensorboard import TensorBoard
from microformer.training.loop import Loop

ROOT = Path(__file__).parents[1]
BOTH = "tensorboard wandb"
# On a machine that does much else W&B's process takes longer than a training would wait.
PATIENT = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tracked run."""
    made, before = tmp_path_factory.mktemp("tracked"), Path.cwd()
    (made / "book.txt").write_text(book())
    os.chdir(made)
    with pytest.MonkeyPatch.context() as patch:
        try:
            alone(patch, made / "home")
            patch.setattr(beside, "_SAMPLE", 20)
            patch.setattr(lanes, "LIMIT", PATIENT)
            patch.setattr(pipeline.training.report, "draw", lambda *_, **__: None)
            assert train("--run", "both", trackers=BOTH, probe_steps=4, log_every=3, num_layers=2, max_steps=20) == 0
        finally:
            os.chdir(before)
    return made


@pytest.fixture(autouse=True)
def here(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    alone(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(beside, "_SAMPLE", 5)
    monkeypatch.setattr(lanes, "LIMIT", PATIENT)
    without_picture_and_sample(monkeypatch)


def weights(run, which="last"):
    return (load_run(run).checkpoint(which) / "model.safetensors").read_bytes()


def assert_tensorboard_has_the_metrics(run):
    found = tensorboard(Path("runs", run))
    wanted = {}
    for row in load_run(run).metrics:
        for name, value in row.items():
            wanted.setdefault(name, []).append((row["step"], float(np.float32(value))))
    del wanted["step"]
    assert {name: points(found, f"metrics/{name}") for name in wanted} == wanted
    assert {tag for tag in found.Tags()["scalars"] if tag.startswith("metrics/")} == {
        f"metrics/{one}" for one in wanted
    }


def assert_wandb_has_the_metrics(run):
    logged = [one for part in wandb_parts(Path("runs", run)) for one in part]
    metrics = load_run(run).metrics
    names = {name for row in metrics for name in row} - {"step"}
    with_figures = [one for one in logged if names & set(one)]
    assert [{"step": one["_step"], **{k: one[k] for k in names if k in one}} for one in with_figures] == metrics


# ------------------------------------------------------------------------------------------------- what they are told


def test_tensorboard_has_every_figure_of_the_metrics():
    assert_tensorboard_has_the_metrics("both")


def test_wandb_has_every_figure_of_the_metrics():
    assert_wandb_has_the_metrics("both")


def test_norms_of_each_layer_are_told_with_each_logged_row_and_add_up_to_the_whole():
    found = tensorboard(Path("runs/both"))
    whole = dict(points(found, "metrics/grad_norm"))
    tags = [tag for tag in found.Tags()["scalars"] if tag.startswith("grad_norm/")]

    assert tags == [f"grad_norm/{part}" for part in ("embed", "blocks.0", "blocks.1", "norm", "unembed")]
    assert set(whole) == {1, 3, 6, 9, 12, 15, 18, 20}
    squares = [{step: norm**2 for step, norm in points(found, tag)} for tag in tags]
    for step, norm in whole.items():
        assert sum(each[step] for each in squares) ** 0.5 == pytest.approx(norm, rel=1e-5)
    last = dict(points(found, "weight_norm/embed"))
    assert set(last) == set(whole)


def test_pictures_and_entropies_are_those_of_the_probes():
    run, found = load_run("both"), tensorboard(Path("runs/both"))
    (wandbs,) = wandb_parts(Path("runs/both"))

    assert [event.step for event in found.Images("attention")] == run.probes
    assert [one["_step"] for one in wandbs if "attention.path" in one] == run.probes
    files = next(Path("runs/both/wandb").glob("offline-run-*/files"))
    assert all((files / one["attention.path"]).is_file() for one in wandbs if "attention.path" in one)
    for head in ("L0H0", "L0H1", "L1H0", "L1H1"):
        entropy = points(found, f"attention_entropy/{head}")
        assert [step for step, _ in entropy] == run.probes
        assert all(0 <= value <= np.log(16) for _, value in entropy)


def test_samples_the_settings_and_the_text_of_the_pictures_can_be_read():
    found = tensorboard(Path("runs/both"))
    text = {
        tag: [one.tensor_proto.string_val[0].decode() for one in found.Tensors(tag)] for tag in found.Tags()["tensors"]
    }

    assert len(text["samples/while_training"]) == 3
    assert all(len(sample.splitlines()) > 1 or len(sample) > 20 for sample in text["samples/while_training"])
    assert Path("runs/both/samples.txt").read_text().splitlines()[2] in text["samples/end"][0]
    assert re.search(r"EMBED_DIM +16\n", text["settings"][0])
    assert text["attention/text"][0].split() == probes.read(load_run("both"), 1).text.split()


def test_histograms_of_weights_and_gradients_come_every_so_many_steps():
    found = tensorboard(Path("runs/both"))

    each = found.Histograms("weights/embed")
    # Every fourth step, or the logged one after it.
    assert [event.step for event in each] == [1, 6, 9, 12, 18, 20]
    embed = dict(load_run("both", "last").model.named_parameters())["embed.weight"]
    assert each[-1].histogram_value.num == embed.numel()
    assert "gradients/blocks.1" in found.Tags()["histograms"]


# ------------------------------------------------------------------------------------------- what is not changed by it


@pytest.mark.parametrize(
    "kind",
    [{}, {"averaging": 0.9}, {"dropout": 0.3}, {"memory": "xl(8)"}, {"positions": "alibi", "feedforward": "moe"}],
)
def test_training_is_the_same_to_the_bit_with_trackers_and_diagnostics_and_without(kind):
    name = "-".join(map(str, kind)) or "plain"
    train("--run", f"{name}-0", **kind)
    train("--run", f"{name}-1", trackers="tensorboard", diagnostics=True, probe_steps=3, **kind)

    assert rows(f"{name}-0") == rows(f"{name}-1")
    for which in ("best", "last"):
        assert weights(f"{name}-0", which) == weights(f"{name}-1", which)


def test_a_task_is_tracked_too():
    corpus = "task:copy(length=2, distance=5, symbols=12)"
    assert train("--run", "task", corpus=corpus, max_seq_len=27, trackers="tensorboard", eval_every=6) == 0

    assert_tensorboard_has_the_metrics("task")
    assert "metrics/val_exact_match" in tensorboard(Path("runs/task")).Tags()["scalars"]
    train("--run", "other")  # the data of the others is prepared again


def test_without_trackers_nothing_is_measured_for_them(monkeypatch):
    from microformer.training.norms import Norms

    monkeypatch.setattr(Norms, "on_gradients", None)
    assert train("--run", "none") == 0
    assert not Path("runs/none/tensorboard").exists()


# ------------------------------------------------------------------------------------------------------------- resume


def test_interrupted_and_resumed_they_have_what_the_metrics_have(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stopped_at(9))
        train("--run", "cut", trackers=BOTH, probe_steps=4, log_every=3, max_steps=20)
    assert resume("--run", "cut") == 0

    assert_tensorboard_has_the_metrics("cut")
    assert_wandb_has_the_metrics("cut")
    found = tensorboard(Path("runs/cut"))
    assert [event.step for event in found.Images("attention")] == load_run("cut").probes
    assert len(found.Histograms("weights/embed")) == len(tensorboard(Path("runs/both")).Histograms("weights/embed"))


def test_killed_and_resumed_they_have_what_the_metrics_have():
    often = {"checkpoint_every": 40, "log_every": 1, "eval_every": 60, "probe_steps": 50}
    settings = {**TINY, **often, "corpus": "book.txt", "max_steps": 150, "trackers": BOTH}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    slow = "from microformer.training.loop import Loop; import time, sys; from microformer.cli import main\n"
    slow += "real = Loop._step\n"
    slow += "Loop._step = lambda loop, progress: (time.sleep(0.02), real(loop, progress))[1]\n"
    slow += "sys.exit(main(sys.argv[1:]))"
    command_ = [sys.executable, "-c", slow, "train", "--run", "killed", *flags(**settings)]
    with subprocess.Popen(command_, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        metrics = Path("runs/killed/metrics.jsonl")
        while not (metrics.exists() and metrics.read_text().count("\n") > 70):
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    files, sizes = list(Path("runs/killed/wandb").glob("offline-run-*/run-*.wandb")), None
    while sizes != (sizes := [path.stat().st_size for path in files]):  # W&B's own process writes its last lines yet
        time.sleep(2)
    assert resume("--run", "killed") == 0

    assert info("killed")["ended"]["step"] == 150
    assert_tensorboard_has_the_metrics("killed")
    assert_wandb_has_the_metrics("killed")
    assert len(wandb_parts(Path("runs/killed"))) == 2


def test_one_that_is_asked_for_later_has_the_figures_from_before(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stopped_at(6))
        train("--run", "later", log_every=2)
    assert resume("--run", "later", trackers="tensorboard") == 0

    assert_tensorboard_has_the_metrics("later")
    assert resume("--run", "later", trackers="none", max_steps=14) == 0  # and may be left again
    assert points(tensorboard(Path("runs/later")), "metrics/lr")[-1][0] == 12


# ------------------------------------------------------------------------------------------------- what can go wrong


class Failing(Tracker):
    """Fails at a row."""

    name = "failing"

    def scalars(self, step, values):
        if step >= 5:
            raise ConnectionError("no network")


class Hanging(Tracker):
    """Never begins."""

    name = "hanging"

    def begin(self, about):
        time.sleep(60)


def small(run, **more):
    return pipeline.train(run=run, show=False, **{"corpus": "book.txt", "max_steps": 12, **TINY, **more})


def test_one_that_fails_is_told_once_and_training_and_the_other_go_on(capsys):
    small("failing", track=[Failing()], trackers="tensorboard", log_every=1)

    told = [line for line in capsys.readouterr().err.splitlines() if "failing" in line]
    assert told == ["note: failing failed and is off from here on: ConnectionError: no network"]
    assert_tensorboard_has_the_metrics("failing")


def test_one_that_computes_takes_no_core_from_the_training():
    threads = set()

    class Computing(Tracker):
        name = "computing"

        def scalars(self, step, values):
            threads.add(torch.get_num_threads())

    small("computing", track=[Computing()], threads=2)
    assert threads == {1}


def test_one_that_hangs_keeps_a_training_no_longer_than_the_limit(monkeypatch, capsys):
    monkeypatch.setattr(lanes, "LIMIT", 0.2)
    small("plain-for-hanging", log_every=1)
    small("hanging", track=[Hanging()], trackers="tensorboard", log_every=1)

    assert weights("hanging") == weights("plain-for-hanging")
    assert "hanging has not taken everything within 0.2 s" in capsys.readouterr().err
    assert info("hanging")["ended"]["how"] == "finished"


def test_a_full_disk_ends_the_tracker_and_not_the_training(monkeypatch, capsys):
    real, written = open, []

    def full(path, *words, **more):
        written.append(path)
        if len(written) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *words, **more)

    monkeypatch.setitem(vars(sys.modules[TensorBoard.__module__]), "open", full)
    small("full", trackers="tensorboard", log_every=1)

    told = [line for line in capsys.readouterr().err.splitlines() if "tensorboard" in line]
    assert len(told) == 1
    assert "tensorboard failed and is off from here on: can't write" in told[0]
    assert "No space left on device" in told[0]
    assert info("full")["ended"]["step"] == 12


def test_what_can_not_be_shown_is_told_once_and_figures_go_on(monkeypatch, capsys):
    def broken(*_, **__):
        raise ValueError("broken")

    monkeypatch.setattr("microformer.pipeline.beside.pattern_entropy", broken)
    small("broken", trackers="tensorboard", probe_steps=1)

    assert capsys.readouterr().err.count("trackers get figures alone from here on: ValueError: broken") == 1
    assert_tensorboard_has_the_metrics("broken")
    assert len(load_run("broken").probes) == 12


def test_a_run_that_diverges_is_ended_for_them_too(capsys):
    ended = []

    class Told(Tracker):
        def scalars(self, step, values):
            pass

        def end(self, how):
            ended.append(how)

    with pytest.MonkeyPatch.context() as patch:
        real = Loop._step

        def to_nothing(loop, progress):
            real(loop, progress)
            loop._unchecked[-1] = loop._unchecked[-1] * float("nan")

        patch.setattr(Loop, "_step", to_nothing)
        with pytest.raises(pipeline.training.DivergedError):
            small("diverged", track=[Told()])
    assert ended == ["diverged"]


def test_a_missing_package_is_refused_before_anything_is_trained(monkeypatch, capsys):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)

    assert train("--run", "refused", trackers=BOTH) == 2
    told = capsys.readouterr().err
    assert "error: TRACKERS tensorboard takes the package tensorboard, which is not installed." in told
    assert 'hint: pip install "microformer[tensorboard]"' in told
    assert not Path("runs/refused").exists()


def test_an_unknown_tracker_is_refused_with_the_nearest(capsys):
    assert command("train", "--trackers", "tensorbord") == 2
    assert "did you mean 'tensorboard'?" in capsys.readouterr().err
