"""Trainings from end to end: what a run leaves behind, how it goes on, and what a person is told where it can't."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import safetensors.torch
import torch
from small_runs import TINY, book, command, flags, info, resume, rows, stopped_at, train, without_picture_and_sample

from microformer import devices, evaluate, generate, generation, load_run, playback, runs
from microformer.errors import GenerationError, MicroformerError, SettingsError
from microformer.models.model import Microformer
from microformer.pipeline import text as text_of
from microformer.pipeline import training as pipeline
from microformer.pipeline.fast_loss import fast_loss
from microformer.training import shares
from microformer.training.loop import Loop


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(book())
    if "to_the_end" not in request.fixturenames:
        without_picture_and_sample(monkeypatch)
    return tmp_path


@pytest.fixture
def to_the_end():
    """For a test that looks at the picture and the sample too."""


def weights(run, which="last"):
    return safetensors.torch.load_file(runs.find(run).checkpoint(which) / "model.safetensors")


def assert_same_run(one, other):
    assert rows(one) == rows(other)
    for which in ("last", "best"):
        first, second = weights(one, which), weights(other, which)
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def assert_refused(code, capsys, sentence, hint):
    """One `error:` sentence, one `hint:`, exit code 2, no traceback."""
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert code == 2
    assert len(told) == 2, told
    assert told[0].startswith("error: ")
    assert sentence in told[0]
    assert told[1].startswith("hint: ")
    assert hint in told[1]


# --------------------------------------------------------------------------------------------------------------- train


def test_one_command_prepares_trains_and_leaves_a_whole_run_folder(to_the_end, capsys):
    assert train("--run", "r") == 0

    assert {path.name for path in Path("runs/r").iterdir()} - {".lock"} == {
        "run.json", "tokenizer.json", "metrics.jsonl", "checkpoints", "probes", "samples.txt", "loss.svg", "loss.png",
    }  # fmt: skip
    assert {path.name for path in Path("data").iterdir()} >= {"train.pt", "val.pt", "vocab.json"}
    told = capsys.readouterr()
    assert "note: preparing book.txt: no prepared data yet." in told.err
    assert max(map(len, told.out.split("a sample")[0].splitlines())) <= 80
    for words in ("3,744 parameters", "4 × 16 = 64 tokens", "12 steps", "to go at this pace", "uniform", "unigram",
                  "runs/r", "microformer generate r"):  # fmt: skip
        assert words in told.out.replace("\\", "/"), words
    assert info("r")["ended"]["how"] == "finished"


def test_without_a_validation_split_it_trains_after_one_notice_and_keeps_the_last_weights(capsys):
    assert train("--run", "r", val_fraction=0) == 0

    notices = [line for line in capsys.readouterr().err.splitlines() if "validat" in line]
    assert notices == [
        "note: there is no validation split: nothing is validated, and the last weights are the ones kept."
    ]
    assert not Path("data/val.pt").exists()
    assert runs.find("r").checkpoint("best").name == "last-0000012"
    assert all("val_loss" not in row for row in rows("r"))


def test_a_corpus_of_5_kilobytes_trains_with_the_default_shape(capsys):
    Path("book.txt").write_text(book()[:5000])

    assert train("--run", "r", **{name: value for name, value in TINY.items() if name in ("device", "precision")}) == 0
    assert info("r")["ended"]["step"] == 12


def test_a_context_longer_than_the_text_is_shrunk_with_one_line(capsys):
    Path("book.txt").write_text(book()[:400])

    assert train("--run", "r", max_seq_len=1000, max_steps=3) == 0

    assert capsys.readouterr().err.count("note: the text is short: the context is 359 tokens, not 1000.") == 1
    assert runs.find("r").model.spec.max_seq_len == 359


def test_a_text_of_two_tokens_trains_with_a_context_of_one():
    # All of it but the validation part is 64 times the same letter, merged and merged again.
    Path("book.txt").write_text("a" * 128)

    assert train("--run", "r", tokenizer="bpe", vocab_size=261, val_fraction=0.5, max_steps=3) == 0

    assert info("r")["data"]["train"]["tokens"] == 2
    assert info("r")["model"]["max_seq_len"] == 1


def test_a_short_run_by_epochs_says_how_to_train_longer(capsys):
    assert train("--run", "r", max_steps=0, epochs=0.5) == 0

    assert "epochs are only" in capsys.readouterr().err


def test_an_overfitting_run_on_a_small_corpus_stops_early_and_keeps_its_best(capsys):
    Path("book.txt").write_text("".join(map(topics.get, sorted(topics)))[100_000:120_000])
    capable = {"embed_dim": 64, "num_layers": 2, "ff_dim": 256, "max_seq_len": 32, "batch_size": 32}
    assert train("--run", "r", max_steps=1000, eval_every=75, patience=2, schedule="constant", **capable) == 0

    ended = info("r")["ended"]
    assert ended["how"] == "validation has not improved 2 times in a row"
    assert ended["step"] < 1000
    best = runs.find("r").checkpoint("best").name
    assert best == f"best-{info('r')['figures']['best_step']:07d}"
    assert info("r")["figures"]["best_step"] == ended["step"] - 150
    assert any(not torch.equal(weights("r", "best")[name], one) for name, one in weights("r").items())
    assert "It overfits" in capsys.readouterr().out


def test_a_run_that_has_learned_nothing_is_told_so(capsys):
    assert train("--run", "r", learning_rate=0) == 0

    assert "It has learned nothing yet" in capsys.readouterr().out


def test_a_run_that_diverged_is_told_so_and_that_alone(capsys):
    assert train("--run", "r", learning_rate=50, eval_every=1, schedule="constant") == 0

    told = capsys.readouterr().out
    assert "It diverged" in told
    assert "overfits" not in told


def test_a_run_by_steps_is_repeated_bit_for_bit_by_its_own_run_json(here):
    assert train("--run", "a", dropout=0.1, averaging=0.9) == 0
    assert command("train", "--config", "runs/a/run.json", "--run", "b") == 0

    assert_same_run("a", "b")


# ----------------------------------------------------------------------------------------------------- budgets by time


def test_a_run_by_minutes_is_replayed_from_the_schedule_it_recorded():
    assert train("--run", "a", max_steps=0, max_minutes=0.01) == 0
    taken = json.loads(Path("runs/a/schedule.json").read_text())["progress"]
    assert command("train", "--config", "runs/a/run.json", "--run", "b") == 0

    assert len(taken) == info("a")["ended"]["step"] == info("b")["ended"]["step"]
    assert [row["lr"] for row in rows("a") if "lr" in row] == [row["lr"] for row in rows("b") if "lr" in row]
    assert_same_run("a", "b")


def test_a_replay_that_is_given_a_larger_budget_goes_on():
    assert train("--run", "a", max_steps=0, max_minutes=0.005) == 0
    assert command("train", "--config", "runs/a/run.json", "--run", "b") == 0
    steps = info("b")["ended"]["step"]

    assert resume("--run", "b", max_steps=steps + 5) == 0

    assert info("b")["ended"]["step"] == steps + 5


def test_a_budget_of_nothing_is_refused_before_anything_is_written(capsys):
    assert_refused(train(max_steps=0), capsys, "training would never end", "--epochs 12")
    assert not Path("runs").exists()


# -------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_saves_says_where_and_goes_on_to_the_same_result(number, monkeypatch, capsys):
    hard = {"max_steps": 20, "dropout": 0.1, "averaging": 0.9}
    assert train("--run", "whole", **hard) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stopped_at(7, number))
        assert train("--run", "cut", **hard) == 130
    told = capsys.readouterr().out
    assert "interrupted after 7 steps" in told
    assert "microformer train --resume --run cut" in told
    assert info("cut")["ended"]["how"] == "interrupted"

    assert resume("--run", "cut") == 0

    assert_same_run("whole", "cut")


@pytest.mark.parametrize("memory", ["xl(20)", "compressive(6, 6, 3)", "recurrent(2)", "knn(40, 4)"])
def test_what_a_model_remembers_is_kept_in_the_run_folder_and_gone_on_with(memory, monkeypatch):
    assert train("--run", "whole", memory=memory, num_layers=2) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stopped_at(7))
        assert train("--run", "cut", memory=memory, num_layers=2) == 130

    assert resume("--run", "cut") == 0

    assert_same_run("whole", "cut")


def test_ctrl_c_in_a_terminal_saves_and_exits_with_130():
    words = [sys.executable, "-m", "microformer", "train", "--run", "r", *flags(**TINY, corpus="book.txt")]
    environment = {**os.environ, "PYTHONPATH": str(Path(runs.__file__).parents[1])}
    with subprocess.Popen(
        [*words, "--max-steps", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        while not Path("runs/r/metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "saved in" in out
    assert "Traceback" not in err
    assert runs.find("r").index["last"] == f"last-{info('r')['ended']['step']:07d}"


def test_resumed_before_its_first_checkpoint_it_says_that_it_starts_again(monkeypatch, capsys):
    def dies(loop, progress):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", dies)
        assert train("--run", "r") == 130
    capsys.readouterr()

    assert resume() == 0

    assert "'r' was stopped before its first checkpoint; it starts again from step 0." in capsys.readouterr().err
    assert train("--run", "whole") == 0
    assert_same_run("r", "whole")


def test_a_finished_run_says_so_and_is_left_as_it_is(capsys):
    assert train("--run", "r") == 0
    before = Path("runs/r/run.json").read_bytes()
    capsys.readouterr()

    assert resume() == 0
    assert resume(max_steps=12) == 0
    assert resume(max_steps=5) == 0

    told = capsys.readouterr().err.splitlines()
    assert (
        told
        == ["note: the run 'r' has ended after 12 steps (finished); a larger budget goes on, such as --max-steps 24."]
        * 3
    )
    assert Path("runs/r/run.json").read_bytes() == before


def test_a_larger_budget_goes_on_as_a_leg_that_is_recorded():
    assert train("--run", "r") == 0
    assert resume(max_steps=20) == 0

    legs = info("r")["legs"]
    assert [(leg["from_step"], leg["max_steps"]) for leg in legs] == [(0, 12), (12, 20)]
    assert [row["step"] for row in rows("r")] == sorted({row["step"] for row in rows("r")})
    assert info("r")["ended"]["step"] == 20


def test_a_task_ends_where_every_example_held_out_is_right(capsys):
    how = {"embed_dim": 32, "ff_dim": 64, "num_layers": 2, "max_seq_len": 27, "eval_every": 50, "max_steps": 2000}

    corpus = "task:copy(length=3, distance=5, symbols=10)"
    assert train("--run", "r", corpus=corpus, stop_on="exact_match", patience=0, batch_size=16, **how) == 0

    ended, figures = runs.find("r").info["ended"], runs.find("r").info["figures"]
    assert ended["how"] == "every example held out is right"
    assert ended["step"] < 2000
    assert runs.find("r").metrics[-1]["val_exact_match"] == 1.0
    assert figures["exact_match"] == 1.0


def test_what_is_no_task_has_no_exact_match_to_stop_on(capsys):
    assert train("--run", "r", stop_on="exact_match", max_steps=5) == 2

    assert "is no task" in capsys.readouterr().err
    assert not Path("runs", "r").exists()


def test_a_run_that_stopped_early_goes_on_with_more_patience():
    assert train("--run", "r", learning_rate=0, eval_every=1, patience=3) == 0
    assert info("r")["ended"]["step"] == 4

    assert resume(patience=100) == 0

    assert info("r")["ended"] | {"at": 0, "seconds": 0, "memory": 0} == {
        "how": "finished", "step": 12, "at": 0, "seconds": 0, "memory": 0,
    }  # fmt: skip


def test_a_budget_that_changes_on_the_way_is_recorded_and_its_best_is_of_its_own(monkeypatch):
    sparse = {"eval_every": 2, "checkpoint_every": 5}
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stopped_at(9))
        patch.setattr(Loop, "_save", only_checkpoints_that_are_due(Loop._save))
        train("--run", "r", max_steps=20, **sparse)

    assert resume(max_steps=10) == 0

    # Step 8 was best before, with another schedule; what is best now was measured on this leg.
    best = runs.find("r")
    assert [(leg["from_step"], leg["max_steps"]) for leg in info("r")["legs"]] == [(0, 20), (0, 10)]
    measured = {row["step"]: row["val_loss"] for row in best.metrics if "val_loss" in row}
    assert min(measured.values()) == info("r")["figures"]["val_loss"]
    assert evaluate(best)["nats_per_token"] == pytest.approx(info("r")["figures"]["val_loss"], abs=1e-6)


def only_checkpoints_that_are_due(save):
    """Leaves out the checkpoint that an interruption makes, as a kill would."""

    def call(loop, which):
        if which != "last" or loop.position.step % 5 == 0:
            save(loop, which)

    return call


def test_how_often_things_happen_may_change_and_nothing_else(capsys):
    assert train("--run", "r") == 0
    capsys.readouterr()

    assert_refused(
        resume(embed_dim=32), capsys, "its EMBED_DIM is 16", "only these may change: epochs, max_steps, max_minutes"
    )
    assert resume(embed_dim=16, max_steps=14, eval_every=1, log_every=1) == 0
    assert [row["step"] for row in rows("r")][-2:] == [13, 14]


def test_resume_and_config_together_are_refused(capsys):
    Path("other.py").write_text("EMBED_DIM = 32\n")

    assert_refused(resume("--config", "other.py"), capsys, "--config names others", "leave one out")


def test_to_resume_with_other_data_is_refused(capsys):
    assert train("--run", "r") == 0
    Path("other.txt").write_text(book(seed=2))
    assert train("--run", "other", corpus="other.txt") == 0
    capsys.readouterr()

    assert_refused(resume("--run", "r", max_steps=20), capsys, "trained on other data", "microformer prepare")


def test_nothing_to_resume_says_how_to_begin(capsys):
    assert_refused(resume(), capsys, "there is no run yet", "microformer train")
    assert_refused(resume("--run", "x"), capsys, "there is no run 'x'", "microformer runs")


# ---------------------------------------------------------------------------------------------------- what can go wrong


def test_a_taken_name_is_refused_before_time_goes_into_the_data(capsys):
    assert train("--run", "r") == 0
    Path("book.txt").unlink()
    capsys.readouterr()

    assert_refused(train("--run", "r"), capsys, "there is a run 'r' already", "--resume")
    assert_refused(train("--run", "a/b"), capsys, "can't be called 'a/b'", "no path")


def test_a_second_training_in_the_same_run_is_refused(capsys):
    assert train("--run", "r") == 0
    capsys.readouterr()

    with runs.find("r").lock():
        code = resume(max_steps=20)

    assert_refused(code, capsys, "another training is writing into the run 'r'", "another --run")


def test_a_full_disk_while_saving_keeps_the_checkpoint_before(monkeypatch, capsys):
    save_file = safetensors.torch.save_file

    def full_after_step_6(tensors, path):
        if "last-0000009" in str(path):
            raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")
        save_file(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", full_after_step_6)
        code = train("--run", "r", eval_every=3)

    assert_refused(code, capsys, "No space left on device", "free some space")
    assert runs.find("r").index["last"] == "last-0000006"
    assert not list(Path("runs").rglob("*.partial"))
    assert resume() == 0
    assert train("--run", "whole", eval_every=3) == 0
    assert_same_run("r", "whole")


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_disk_that_fills_at_any_call_is_one_sentence_and_the_run_goes_on_when_there_is_room(
    name, monkeypatch, capsys
):
    train("--run", "whole", snapshots="false", probe_steps=0)
    real, calls = getattr(os, name), 0  # without probes, of which one that can't be written ends nothing

    def full(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 23:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        code = train("--run", "r", snapshots="false", probe_steps=0)

    assert_refused(code, capsys, "No space left on device", "free some space")
    assert resume() == 0
    assert_same_run("r", "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size")
def test_a_file_that_may_not_grow_is_one_sentence_and_the_run_goes_on(capsys):
    train("--run", "whole")
    program = (
        "import resource, signal, sys; from microformer.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (16000, 16000))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = [sys.executable, "-c", program, "train", "--run", "r", *flags(corpus="book.txt", max_steps=12, **TINY)]
    environment = {**os.environ, "PYTHONPATH": str(Path(runs.__file__).parents[1])}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert "error: can't write runs/r/checkpoints/" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert resume("--run", "r") == 0
    assert_same_run("r", "whole")


def test_a_folder_that_may_not_be_written_is_named(monkeypatch, capsys):
    Path("runs").write_text("a file where the folder should be")

    assert_refused(train("--run", "r"), capsys, "can't write runs", "choose another folder")


def test_a_loss_that_is_not_finite_stops_before_a_checkpoint_and_names_the_step(monkeypatch, capsys):
    real, calls = Microformer.loss_and_state, 0

    def poisoned(model, *args):
        nonlocal calls
        calls += 1
        loss, state = real(model, *args)
        return loss * (float("nan") if calls == 8 else 1), state

    with monkeypatch.context() as patch:
        patch.setattr(Microformer, "loss_and_state", poisoned)
        code = train("--run", "r", eval_every=3)

    assert_refused(code, capsys, "the loss of step 8 is not a finite number", "lower --learning-rate")
    assert runs.find("r").index["last"] == "last-0000006"
    assert all(tensor.isfinite().all() for tensor in weights("r").values())
    assert all(row["step"] <= 7 for row in rows("r"))
    assert (info("r")["ended"]["how"], info("r")["ended"]["step"]) == ("diverged", 8)
    assert_refused(resume("--run", "r", max_steps=20), capsys, "diverged at step 8, and would again", "start a new one")


@pytest.mark.parametrize("damage", ["cut short", "no index"])
def test_a_run_that_can_not_be_gone_on_with_is_left_as_it_is(damage, capsys):
    assert train("--run", "r") == 0
    checkpoints = Path("runs/r/checkpoints")
    if damage == "no index":
        (checkpoints / "index.json").unlink()
    else:
        os.truncate(checkpoints / runs.find("r").index["last"] / "training.safetensors", 300)
    before = {path: path.read_bytes() for path in Path("runs/r").rglob("*") if path.is_file()}

    assert_refused(resume("--run", "r", max_steps=24), capsys, "runs/r/checkpoints", "restore")

    assert {path: path.read_bytes() for path in Path("runs/r").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_memory_that_runs_out_says_what_to_lower(error, monkeypatch, capsys):
    def refuse(loop, progress):
        raise error

    monkeypatch.setattr(Loop, "_step", refuse)

    assert_refused(train("--run", "r"), capsys, "memory ran out", "lower BATCH_SIZE (or raise ACCUMULATE)")


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"embed_dim": 65536, "num_layers": 1000, "ff_dim": 1000000}, "lower EMBED_DIM, NUM_LAYERS or FF_DIM"),
        ({"batch_size": 1000000, "max_seq_len": 4000}, "lower BATCH_SIZE"),
    ],
)
def test_what_can_never_fit_into_memory_is_refused_before_it_is_tried(given, hint, monkeypatch, capsys):
    monkeypatch.setattr(devices, "memory_available", lambda: 8_000_000_000)

    assert_refused(train("--run", "r", **given), capsys, "and 8.0 GB of memory are free", hint)
    assert not Path("runs/r").exists()


def test_what_fits_is_not_refused_by_the_count_of_memory(monkeypatch):
    monkeypatch.setattr(devices, "memory_available", lambda: 10_000_000)

    assert train("--run", "r") == 0


@pytest.mark.parametrize(
    ("given", "sentence", "hint"),
    [
        ({"num_heads": 3}, "EMBED_DIM 16 can't be divided into 3 heads", "use a multiple of 3"),
        ({"embed_dim": 0}, "EMBED_DIM 0 can't be", ""),
        ({"batch_size": -4}, "BATCH_SIZE -4 can't be", ""),
        ({"embed_dim": 10**9}, "EMBED_DIM 1000000000 can't be", ""),
        ({"embed_dim": "wide"}, "EMBED_DIM 'wide' is not a whole number", ""),
        ({"embed_dim": 16.5}, "EMBED_DIM '16.5' is not a whole number", ""),
        ({"optimizer": "muom"}, "OPTIMIZER 'muom' is not known", "did you mean 'muon'?"),
        ({"corpus": "missing.txt"}, "missing.txt", ""),
        ({"momentum": 0.5, "optimizer": "adamw"}, "nothing reads it with OPTIMIZER = 'adamw'", "MOMENTUM"),
    ],
)
def test_a_setting_that_can_not_be_is_one_sentence(given, sentence, hint, capsys):
    assert_refused(train("--run", "r", **given), capsys, sentence, hint)
    assert not Path("runs").exists()


# -------------------------------------------------------------------------------------------------------- as a library


def test_ten_lines_of_a_notebook_train_and_write(capsys):
    run = pipeline.train(corpus="book.txt", max_steps=12, show=False, **TINY)

    assert capsys.readouterr().out == ""
    assert load_run().name == run.name == "book-1"
    assert run.settings.training.max_steps == 12
    assert run.metrics[-1]["step"] == 12
    assert set(run.metrics[-1]) >= {"tokens", "seconds", "train_loss", "val_loss", "lr", "grad_norm"}
    text = generate(run, "The", max_new_tokens=20, seed=3)
    assert text.startswith("The")
    assert len(text) == 23
    assert text == generate(load_run("book-1"), "The", max_new_tokens=20, seed=3)


def test_in_bfloat16_it_writes_another_text_and_changes_nothing_else(capsys, monkeypatch):
    run = pipeline.train(corpus="book.txt", max_steps=12, show=False, **TINY)
    capsys.readouterr()
    monkeypatch.setattr(devices.Machine, "has_bfloat16", lambda *_: True)
    exact = generate(run, "The", max_new_tokens=100, seed=3)

    coarse = generate(run, "The", max_new_tokens=100, seed=3, precision="bfloat16")

    assert len(coarse) == len(exact) == 103
    assert coarse != exact  # a hundred draws of a model that knows little yet
    assert generate(run, "The", max_new_tokens=100, seed=3) == exact
    assert {one.dtype for one in run.model.parameters()} == {torch.float32}
    assert capsys.readouterr().err == ""

    monkeypatch.setattr(devices.Machine, "has_bfloat16", lambda *_: False)
    assert generate(run, "The", max_new_tokens=100, seed=3, precision="bfloat16") == coarse
    assert capsys.readouterr().err == "note: this processor has no units for bfloat16: float32 is faster here.\n"

    with pytest.raises(GenerationError, match="precision 'auto' can't be written in"):
        generate(run, "The", precision="auto")


def test_a_long_text_is_recorded_and_the_same(monkeypatch):
    run = pipeline.train(corpus="book.txt", max_steps=2, show=False, **TINY)
    made: list[generation.Recorded] = []
    monkeypatch.setattr(generation.Recorded, "__call__", _telling(generation.Recorded.__call__, made))

    recorded = generate(run, "The", max_new_tokens=100, seed=3)
    assert made
    assert made[0].possible
    made.clear()
    monkeypatch.setattr(text_of, "_MANY", 101)
    assert generate(run, "The", max_new_tokens=100, seed=3) == recorded
    assert not made


RECORDED = {
    "a plain one": ({}, True),
    "with chance": ({"dropout": 0.3, "attention_dropout": 0.2, "ngrams": 2, "ngram_dropout": 0.3}, True),
    "in bfloat16": (
        {"precision": "bfloat16", "norm": "layernorm", "feedforward": "gelu", "positions": "learned"},
        True,
    ),
    "all else": ({"averaging": 0.9, "num_layers": 2, "attention": "window(5) topk(3)", "optimizer": "muon"}, True),
    "rounds that depend on what is computed": ({"attention": "entmax15"}, False),
}


@pytest.mark.parametrize(("changes", "possible"), RECORDED.values(), ids=RECORDED)
def test_a_training_that_is_recorded_from_some_step_on_ends_the_same(changes, possible, monkeypatch):
    given = {"corpus": "book.txt", "max_steps": 14, "eval_every": 4, "show": False, **TINY, **changes}
    pipeline.train(run="plain", **given)
    played: list[object] = []
    monkeypatch.setattr(pipeline, "fast_loss", partial(fast_loss, after=3))
    call = playback.gradients.Played.__call__
    monkeypatch.setattr(playback.gradients.Played, "__call__", _telling(call, played))

    pipeline.train(run="recorded", **given)
    assert len(played) == (11 if possible else 0)
    assert_same_run("plain", "recorded")


def test_a_recorded_training_is_resumed_to_the_same_end(monkeypatch):
    given = {"corpus": "book.txt", "max_steps": 14, "eval_every": 5, "show": False, "dropout": 0.3, **TINY}
    pipeline.train(run="plain", **given)
    monkeypatch.setattr(pipeline, "fast_loss", partial(fast_loss, after=2))
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Loop, "_step", stopped_at(7))
        pipeline.train(run="recorded", **given)

    assert resume("--run", "recorded") == 0
    assert_same_run("plain", "recorded")


def test_a_training_that_cores_share_ends_the_same_recorded_or_not_and_interrupted_or_not(monkeypatch):
    monkeypatch.setattr(shares, "_WORTH", 0)
    given = {"corpus": "book.txt", "max_steps": 14, "eval_every": 5, "show": False, **TINY, "batch_size": 5}
    pipeline.train(run="alone", **given)
    pipeline.train(run="shared", **{**given, "threads": 2})
    monkeypatch.setattr(pipeline, "fast_loss", partial(fast_loss, after=2))
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Loop, "_step", stopped_at(7))
        pipeline.train(run="recorded", **{**given, "threads": 2})

    assert resume("--run", "recorded") == 0
    assert_same_run("shared", "recorded")
    losses = ([row["train_loss"] for row in rows(run) if "train_loss" in row] for run in ("alone", "shared"))
    assert all(one == pytest.approx(other, abs=1e-5) for one, other in zip(*losses, strict=True))


def _telling(call, made):
    """The call, which also says of what it was one."""

    def told(one, *arguments):
        made.append(one)
        return call(one, *arguments)

    return told


def test_training_leaves_the_random_numbers_of_who_called_it_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)

    pipeline.train(corpus="book.txt", max_steps=2, show=False, dropout=0.5, **TINY)

    assert torch.equal(torch.rand(3), wanted)


def test_a_training_in_a_thread_takes_no_signals_and_ends_the_same():
    found = []
    given = {"corpus": "book.txt", "max_steps": 12, "show": False, **TINY}
    thread = threading.Thread(target=lambda: found.append(pipeline.train(run="thread", **given)))
    thread.start()
    thread.join()
    pipeline.train(run="main", **given)

    assert found[0].info["ended"]["how"] == "finished"
    assert_same_run("thread", "main")


def test_an_interruption_of_a_notebooks_cell_returns_the_run_saved(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Loop, "_step", stopped_at(5))

    run = pipeline.train(corpus="book.txt", max_steps=12, show=False, **TINY)

    assert run.info["ended"]["how"] == "interrupted"
    assert run.index["last"] == "last-0000005"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interruption_stops_at_once(monkeypatch):
    def twice(loop, progress):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Loop, "_step", twice)

    with pytest.raises(KeyboardInterrupt):
        pipeline.train(corpus="book.txt", max_steps=12, show=False, **TINY)


def test_a_misspelt_setting_is_an_error_from_python_too():
    with pytest.raises(SettingsError, match="lerning_rate") as raised:
        pipeline.train(corpus="book.txt", lerning_rate=1)

    assert isinstance(raised.value, MicroformerError)
    assert "learning_rate" in raised.value.hint


def test_an_encoding_is_about_the_book_that_was_asked_for_not_about_a_corpus_txt_beside_it(here):
    Path("latin.txt").write_bytes(("caf\u00e9 " * 400).encode("latin-1"))
    assert command("prepare", "--input", "latin.txt", "--encoding", "latin-1") == 0
    Path("data", "corpus.txt").write_text("another text " * 100, encoding="utf-8")
    Path("config.py").write_text('ENCODING = "latin-1"\n', encoding="utf-8")

    assert command("train", "--run", "a", *flags(max_steps=3, **TINY)) == 0
    assert "latin.txt" in info("a")["data"]["corpus"]


def test_without_validation_the_last_batch_stands_beside_the_baselines_and_averages_are_what_is_used(here, capsys):
    assert train("--run", "a", val_fraction=0, averaging=0.9) == 0

    assert "unigram" in capsys.readouterr().out
    run = load_run("a")
    last = load_run("a", checkpoint="last")
    assert any(not torch.equal(x, y) for x, y in zip(run.model.parameters(), last.model.parameters(), strict=True))


@pytest.mark.parametrize("tokenizer", ["char", "bpe", "unigram"])
def test_bits_a_byte_are_those_of_a_count_by_hand(tokenizer):
    text = book(60).replace("cat", "chat à Zürich").replace("dog", "犬")
    Path("book.txt").write_text(text, encoding="utf-8")
    assert train("--run", "r", tokenizer=tokenizer, max_steps=20) == 0
    run = load_run("r")

    held_out = text[int(len(text) * 0.9) :]
    before = run.tokenizer.encode(text[: int(len(text) * 0.9)])[-1:].tolist()
    ids = before + run.tokenizer.encode(held_out).tolist()
    bits, context = 0.0, run.spec.max_seq_len
    with torch.no_grad():
        for at in range(1, len(ids)):
            begin = (at - 1) // context * context
            logits = run.model(torch.tensor([ids[begin:at]])).logits[0, -1]
            bits -= float(logits.log_softmax(-1)[ids[at]]) / math.log(2)

    found = evaluate(run)
    assert found["bits_per_byte"] == pytest.approx(bits / len(held_out.encode("utf-8")), rel=1e-5)
    assert found["bits_per_char"] == pytest.approx(bits / len(held_out), rel=1e-5)
    assert found["bits_per_byte"] < found["bits_per_char"]
    assert found["tokens"] == len(ids) - 1
