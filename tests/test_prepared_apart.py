"""Prepared data under its fingerprint: nobody's next preparation changes it, and what lies in data/ is left alone."""

import os
from pathlib import Path

import pytest
from small_runs import TINY, book, command, flags, info, resume

from microformer import corpora, load_run, pipeline
from microformer.errors import DataError
from microformer.pipeline.preparing import apart_of, data_of, prepared_apart
from microformer.settings import Settings


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(book(), encoding="utf-8")
    Path("other.txt").write_text(book(seed=2), encoding="utf-8")
    return tmp_path


def chosen(**given) -> Settings:
    return Settings().changed({"corpus": "book.txt", **given})


def test_it_is_what_preparing_gives_in_the_place_of_its_fingerprint(here, tmp_path_factory):
    apart = prepared_apart(chosen(tokenizer="byte"))
    plain = corpora.prepare(tmp_path_factory.mktemp("plain"), corpora.Source.files("book.txt"), tokenizer="byte")

    assert apart.fingerprint == plain.fingerprint
    assert apart.folder == Path("data", ".prepared", plain.fingerprint)
    assert apart.train.equal(plain.train)
    assert not Path("data", "train.pt").exists()
    # Nothing half-made is left, and another look makes nothing new.
    assert [path.name for path in Path("data", ".prepared").iterdir() if path.is_dir()] == [plain.fingerprint]
    before = (apart.folder / "manifest.json").stat().st_mtime_ns
    assert prepared_apart(chosen(tokenizer="byte")).fingerprint == plain.fingerprint
    assert (apart.folder / "manifest.json").stat().st_mtime_ns == before


def test_what_lies_in_data_is_linked_or_where_that_cannot_be_copied(here, monkeypatch):
    data = pipeline.prepare(Settings(), ["book.txt"])
    linked = prepared_apart(Settings())  # what data/ holds is what is meant where no corpus is named
    assert os.path.samefile(linked.folder / "train.pt", data.folder / "train.pt")

    def refused(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refused)
    pipeline.prepare(Settings(), ["other.txt"])
    copied = prepared_apart(Settings())
    assert copied.fingerprint != linked.fingerprint
    assert not os.path.samefile(copied.folder / "train.pt", data.folder / "train.pt")
    assert apart_of(linked.fingerprint).train.equal(linked.train)


def test_a_text_that_changed_is_another_set_and_one_that_was_damaged_is_made_again(here):
    first = prepared_apart(chosen())
    Path("book.txt").write_text(book(seed=3), encoding="utf-8")
    second = prepared_apart(chosen())
    assert second.fingerprint != first.fingerprint

    (second.folder / "train.pt").write_bytes(b"nothing")
    again = prepared_apart(chosen())
    assert again.fingerprint == second.fingerprint
    assert len(again.train) > 100


def test_paths_begin_where_the_folder_is(here, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))

    found = prepared_apart(chosen(), here)

    assert found.folder == here / "data" / ".prepared" / found.fingerprint
    assert not Path("data").exists()


def test_standard_input_cannot_be_read_for_a_comparison():
    with pytest.raises(DataError, match="standard input"):
        prepared_apart(Settings().changed({"corpus": "-"}))


def test_a_run_on_it_is_resumed_and_evaluated_whatever_lies_in_data(here):
    apart = prepared_apart(chosen())
    settings = flags(**{**TINY, "corpus": "book.txt", "max_steps": 4, "epochs": 0})
    assert command("train", "--run", "r", "--prepared", apart.fingerprint, *settings) == 0
    assert not Path("data", "train.pt").exists()
    assert info("r")["data"]["fingerprint"] == apart.fingerprint

    pipeline.prepare(Settings(), ["other.txt"])
    assert data_of(load_run("r")).folder == apart.folder
    assert resume("--run", "r", max_steps=8) == 0
    assert info("r")["ended"]["step"] == 8
    assert pipeline.evaluate(load_run("r"))["nats_per_token"] == pytest.approx(
        info("r")["figures"]["val_loss"], abs=1e-6
    )


def test_a_fingerprint_that_is_not_there_is_told(capsys):
    assert command("train", "--prepared", "0" * 64, *flags(**TINY)) == 2
    assert "no complete prepared data" in capsys.readouterr().err
