"""Tokenizers beside one another: what is counted is what they do, and bits a byte can be compared."""

import json
import math

import pytest
from small_runs import TINY, book, command, flags

from microformer import tokenization
from microformer.errors import SettingsError
from microformer.experiments import tokenizers
from microformer.runs import all_runs, load_run
from microformer.settings import Settings

TEXT = book(lines=400)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tokenizers, "code_hash", lambda: "the same code")  # whoever edits it meanwhile
    (tmp_path / "book.txt").write_text(TEXT)
    return tmp_path


def test_each_kind_and_size_is_counted_on_the_training_part():
    rows = tokenizers.compared(Settings(), ["book.txt"], ["char", "byte", "bpe:300"])

    train = TEXT[: int(len(TEXT) * 0.9)]
    for row, kind in zip(rows, ("char", "byte", "bpe"), strict=True):
        oracle = tokenization.train(kind, [train], 300 if kind == "bpe" else None)
        assert row["tokens"] == len(oracle.encode(train))
        assert row["vocabulary"] == oracle.vocab_size
        assert row["bytes_per_token"] == pytest.approx(len(train) / row["tokens"])


def test_what_can_not_be_made_of_the_text_is_told_and_the_others_are_compared():
    rows = tokenizers.compared(Settings(), ["book.txt"], ["bpe:100000", "char"])

    assert "more than this text has" in rows[0]["refused"]
    assert rows[1]["refused"] is None


def test_what_was_prepared_and_trained_is_not_done_twice(capsys):
    words = ["tokenizers", "--input", "book.txt", "--tokenizers", "char", "bpe:300", "--train", "--json"]
    words += flags(**TINY, max_steps=10, epochs=0, snapshots=False)

    assert command(*words) == 0
    first = json.loads(capsys.readouterr().out)
    assert command(*words) == 0
    again = json.loads(capsys.readouterr().out)

    assert first == again
    assert [row["tokenizer"] for row in first] == ["char", "bpe:300"]


def test_bits_a_byte_are_the_loss_over_the_bytes_of_validation(here, capsys):
    words = ["tokenizers", "--input", "book.txt", "--tokenizers", "bpe:300", "--train", "--json"]
    assert command(*words, *flags(**TINY, max_steps=10, epochs=0, snapshots=False)) == 0
    (row,) = json.loads(capsys.readouterr().out)

    (run,) = all_runs()
    info = load_run(run.name).info
    val = info["data"]["val"]
    expected = info["figures"]["val_loss"] * val["tokens"] / math.log(2) / val["bytes"]
    assert row["bits_per_byte"] == [pytest.approx(expected, rel=1e-6)]
    assert not (here / "data" / "train.pt").exists()


def test_the_table_and_the_picture_are_made(here, capsys):
    words = ["--tokenizers", "char", "bpe:300", "bpe:320", "--picture", "t"]
    assert command("tokenizers", "--input", "book.txt", *words) == 0

    told = capsys.readouterr().out
    assert "bytes per token" in told
    assert "bpe:320" in told
    assert (here / "t.svg").exists()
    assert (here / "t.png").exists()


@pytest.mark.parametrize("spelt", ["char:100", "bpe:many", "bpe:1", "sentencepiece", "byte:256"])
def test_what_is_no_tokenizer_is_named(spelt):
    with pytest.raises(SettingsError, match="is no tokenizer"):
        tokenizers.compared(Settings(), ["book.txt"], [spelt])
