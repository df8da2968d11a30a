"""Trainings that begin with another run's model: `microformer train --from RUN`."""

import json
import signal
from pathlib import Path

import pytest
import torch
from small_runs import book, command, info, resume, rows, stopped_at, train, without_picture_and_sample

from microformer import load_run
from microformer.training.loop import Loop


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_picture_and_sample(monkeypatch)
    Path("book.txt").write_text(book())
    Path("other.txt").write_text(book(seed=2))
    assert train("--run", "first", "--learning-rate", "0.05") == 0
    return tmp_path


def go_on(*words, run="second", corpus="other.txt", steps=4):
    return command(
        "train", "--from", "first", "--run", run, "--corpus", corpus, "--max-steps", steps, "--batch-size", "4",
        "--device", "cpu", "--precision", "float32", "--threads", "1", *words,
    )  # fmt: skip


def weights(run, which="last"):
    return dict(load_run(run, checkpoint=which).model.named_parameters())


def test_it_begins_with_the_best_weights_of_that_run_and_an_optimizer_that_remembers_nothing(here):
    assert go_on("--learning-rate", "0", "--weight-decay", "0") == 0

    first, second = weights("first", "best"), weights("second")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert info("second")["from"] == {"run": "first", "checkpoint": "best"}
    assert info("second")["model"] == info("first")["model"]
    assert load_run("second").tokenizer.to_dict() == load_run("first").tokenizer.to_dict()


def test_its_rate_is_a_tenth_of_the_usual_unless_it_is_said(here, capsys):
    assert go_on() == 0
    assert "LEARNING_RATE is 0.003: a tenth of what is usual" in capsys.readouterr().err
    assert info("second")["settings"]["learning_rate"] == 0.003
    assert go_on("--learning-rate", "0.01", run="third") == 0
    assert info("third")["settings"]["learning_rate"] == 0.01


def test_the_prepared_text_is_kept_where_it_is_in_the_same_tokens_already(here, capsys):
    assert go_on(corpus="book.txt") == 0
    assert "preparing" not in capsys.readouterr().err


def test_a_run_that_is_stopped_before_its_first_checkpoint_still_begins_there(here, monkeypatch):
    def killed(loop, progress):
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", killed)
        with pytest.raises(SystemExit):
            go_on("--learning-rate", "0", "--weight-decay", "0")
    assert resume("--run", "second") == 0

    first, second = weights("first", "best"), weights("second")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_interrupted_one_goes_on_to_the_weights_of_one_that_was_not(here, monkeypatch):
    assert go_on(run="whole", steps=6) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stopped_at(3, signal.SIGINT))
        assert go_on(steps=6) == 130
    assert resume("--run", "second") == 0

    whole, second = weights("whole"), weights("second")
    assert all(torch.equal(whole[name], second[name]) for name in whole)
    assert rows("whole") == rows("second")


def test_averaging_begins_from_the_weights_that_it_begins_with(here):
    assert go_on("--learning-rate", "0", "--weight-decay", "0", "--averaging", "0.9") == 0
    first, second = weights("first", "best"), weights("second", "best")
    assert all(torch.allclose(first[name], second[name], atol=1e-7) for name in first)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--embed-dim", "32"], "--from goes on with the model of 'first', and its EMBED_DIM is 16."),
        (["--positions", "learned"], "and its POSITIONS is rope."),
        (["--tokenizer", "bpe"], "--from goes on with the tokenizer of 'first'."),
        (["--tokenizer", "bpe", "--vocab-size", "300"], "--from goes on with the tokenizer of 'first'."),
        (["--max-seq-len", "17"], "has a context of 16, and 17 is more"),
        (["--resume"], "--resume goes on with a run, and --from begins a new one."),
        (["--from", "nobody"], "there is no run 'nobody'"),
        (["--from", "book.txt"], "book.txt is no run."),
    ],
)
def test_what_can_t_be_begun_with_is_one_sentence(words, said, here, capsys):
    assert go_on(*words) == 2
    assert said in capsys.readouterr().err
    assert not Path("runs/second").exists()


def test_the_same_said_again_dropout_and_a_smaller_context_are_taken(here):
    assert go_on("--embed-dim", "16", "--dropout", "0.1", "--max-seq-len", "8") == 0
    assert info("second")["model"]["dropout"] == 0.1
    assert info("second")["model"]["max_seq_len"] == 8


def test_a_config_s_other_model_and_longer_context_are_left_aside(here):
    Path("config.py").write_text(
        "EMBED_DIM = 64\nNUM_LAYERS = 3\nMAX_SEQ_LEN = 64\nVOCAB_SIZE = 300\nTOKENIZER = 'bpe'\n"
    )
    assert go_on() == 0
    assert info("second")["model"] == info("first")["model"]


def test_characters_that_its_vocabulary_lacks_are_named_and_may_be_replaced_or_left_out(here, capsys):
    Path("other.txt").write_text(book(seed=2) + "Où est le chât?\n", "utf-8")

    assert go_on() == 2
    told = capsys.readouterr().err
    assert "the vocabulary lacks 3 different characters of this text: 'ù', 'â', '?'" in told
    assert "--unknown skip" in told
    assert go_on("--unknown", "replace") == 0
    assert command("eval", "second") == 0
    assert info("second")["settings"]["unknown"] == "replace"
    assert train("--run", "third", "--unknown", "skip") == 2
    assert "UNKNOWN is set to 'skip', and nothing reads it with TOKENIZER = 'char'" in capsys.readouterr().err


def test_documents_get_no_token_that_the_model_does_not_know(here):
    rows_ = [json.dumps({"text": part}) for part in book(seed=2).split("\n") if part]
    Path("other.jsonl").write_text("\n".join(rows_))
    assert go_on(corpus="other.jsonl") == 0
    assert info("second")["model"]["vocab_size"] == info("first")["model"]["vocab_size"]


def test_an_own_component_comes_along_with_its_code(here):
    assert command("new", "feedforward", "mine.py") == 0
    assert train("--run", "own", "--feedforward", "mine.py:Mine") == 0
    Path("mine.py").unlink()

    assert command("train", "--from", "own", "--run", "tuned", "--corpus", "other.txt", "--max-steps", "2") == 0

    assert Path("runs/tuned/code/mine.py").is_file()
    assert info("tuned")["code"] == info("own")["code"]
    assert command("generate", "tuned", "--prompt", "The", "--max-new-tokens", "3") == 0
