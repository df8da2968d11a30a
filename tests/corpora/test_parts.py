"""A long text in parts: the same bytes as in one, whichever processes made them and however often they were killed."""

import gzip
import json
import multiprocessing
import os
import random
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microformer import tokenization
from microformer.corpora import Source, load_prepared, parts, prepare, preparing, reading
from microformer.corpora.parts import Limits, Span, Work, read_part, read_span, survey
from microformer.corpora.reading import opened
from microformer.errors import DataError, FileError

WORDS = ["to", "be", "or", "not", "naïve", "日本語", "🙂", "end.\n", "\r\n", "  ", "supercalifragilistic"]
FILES = ("train.pt", "val.pt", "test.pt", "vocab.json")


def text_of(words, seed=0):
    return " ".join(random.Random(seed).choices(WORDS, k=words))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts, "PART", 2000)
    monkeypatch.setattr(reading, "_PIECE", 300)
    (tmp_path / "book.txt").write_bytes(text_of(6000).encode())
    with gzip.open("stories.jsonl.gz", "wt", encoding="utf-8", newline="\n") as file:
        for number in range(150):
            file.write(json.dumps({"text": text_of(number % 90, number)}) + "\n")
    return tmp_path


def made(folder):
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe", "unigram"])
def test_parts_give_the_ids_of_the_whole_text(tokenizer, here):
    prepared = prepare("data", Source.files("book.txt"), tokenizer=tokenizer, val_fraction=0.2, workers=1)

    text = text_of(6000)
    in_train = int(len(text) * 0.8)
    learned_from = text[:in_train] if tokenizer in tokenization.LEARNED else text
    oracle = tokenization.train(tokenizer, [learned_from], alphabet=text)
    assert prepared.tokenizer.to_dict() == oracle.to_dict()
    assert np.array_equal(prepared.train.numpy(), oracle.encode(text[:in_train]))
    assert np.array_equal(prepared.val.numpy(), oracle.encode(text[in_train:]))
    assert not (here / "data" / ".preparing").exists()


@pytest.mark.parametrize("tokenizer", ["char", "bpe"])
def test_documents_end_with_their_token_and_are_never_torn_apart(tokenizer, here):
    prepared = prepare(
        "data", Source.files("stories.jsonl.gz"), tokenizer=tokenizer, test_fraction=0.1, val_fraction=0.1, workers=1
    )

    stories = [text_of(number % 90, number) for number in range(150)]
    stories = [story for story in stories if story]
    end = prepared.tokenizer.end_of_document
    assert end == prepared.tokenizer.vocab_size - 1
    found = []
    for part in (prepared.train, prepared.val, prepared.test):
        ids = part.numpy()
        assert ids[-1] == end
        found += [prepared.tokenizer.decode(one) for one in np.split(ids, np.flatnonzero(ids == end) + 1)[:-1]]
    assert found == stories
    total = sum(map(len, stories))
    for part in ("val", "test"):
        assert 0.05 < prepared.manifest[part]["characters"] / total < 0.2


@pytest.mark.parametrize("source", ["book.txt", "stories.jsonl.gz"])
def test_one_process_two_and_four_make_the_same_bytes(source, here):
    prints = set()
    for workers in (1, 2, 4):
        folder = here / f"by {workers}"
        prints.add(prepare(folder, Source.files(source), tokenizer="bpe", workers=workers).fingerprint)

    assert made(here / "by 1") == made(here / "by 2") == made(here / "by 4")
    assert len(prints) == 1


def _prepare_and_die(project, source, workers, moment, pipe):
    """In a process of its own: dies just before the moment-th file is put in its place."""
    os.chdir(project)
    parts.PART, reading._PIECE = 2000, 300
    calls, spans = 0, 0

    def deadly(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
            return function(*args, **kwargs)

        return call

    def counted(*args, **kwargs):
        nonlocal spans
        spans += 1
        pipe.send(spans)
        return encode(*args, **kwargs)

    encode = preparing.encode_span
    preparing.encode_span = counted
    os.replace = deadly(os.replace)
    prepare("data", Source.files(source), tokenizer="bpe", workers=workers)
    pipe.send(-calls)


@pytest.mark.parametrize("source", ["book.txt", "stories.jsonl.gz"])
def test_killed_at_ten_instants_it_goes_on_and_makes_the_same_bytes(source, here):
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["torch", "numpy", "microformer.corpora.preparing", "microformer.tokenization"])

    def run(moment):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_prepare_and_die, args=(here, source, 1, moment, sender))
        process.start()
        sender.close()
        process.join()
        told = []
        while receiver.poll():
            try:
                told.append(receiver.recv())
            except EOFError:
                break
        receiver.close()
        return process.exitcode, told

    code, told = run(0)
    assert code == 0
    expected, spans, writes = made(here / "data"), max(told), -min(told)
    assert spans >= 10
    for number in range(1, 11):
        for name in os.listdir(here / "data"):
            if name != ".lock":
                (here / "data" / name).unlink()
        code, killed = run(writes * number // 11)
        assert code != 0
        with pytest.raises(DataError):
            load_prepared(here / "data")

        code, again = run(0)

        assert code == 0
        assert made(here / "data") == expected
        # The span in which it was killed is the only one that is encoded twice.
        encoded = max([0, *killed]) + max(again)
        assert spans <= encoded <= spans + 1
        assert not (here / "data" / ".preparing").exists()


def test_another_text_or_setting_does_not_go_on_with_what_was_begun(here, monkeypatch):
    real, calls = preparing.encode_span, 0

    def fails(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(preparing, "encode_span", fails)
    with pytest.raises(KeyboardInterrupt):
        prepare("data", Source.files("book.txt"))
    (here / "book.txt").write_bytes(text_of(5000, seed=1).encode())

    prepare("data", Source.files("book.txt"))
    prepare("fresh", Source.files("book.txt"))

    assert made(here / "data") == made(here / "fresh")


@settings(max_examples=40)
@given(
    texts=st.lists(st.text(st.sampled_from("ab \n日🙂")), min_size=1, max_size=8),
    part=st.integers(1, 9),
    piece=st.integers(1, 5),
    kind=st.sampled_from(["txt", "jsonl"]),
    limits=st.sampled_from([Limits(), Limits(documents=3), Limits(bytes=7)]),
)
def test_any_documents_in_parts_of_any_size_are_read_as_they_are(texts, part, piece, kind, limits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    if kind == "txt":
        for number, text in enumerate(texts):
            (folder / f"{number}.txt").write_bytes(text.encode())
    else:
        (folder / "all.jsonl").write_bytes("".join(json.dumps({"text": text}) + "\n" for text in texts).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART", part)
        patch.setattr(reading, "_PIECE", piece)
        with opened(Source.files(folder)) as text:
            work = Work(folder, {})
            found = survey(text, work, limits, alphabet=True)
            read = [piece for number, one in enumerate(found) for piece in read_part(text, work, number, one)]
            by_span = [
                piece
                for number, one in enumerate(found)
                for skip in range(one.characters)
                for piece in read_span(text, work, one, Span(number, skip, 1))
            ]

    expected = [text for text in texts if text]
    if limits.documents:
        expected = expected[: limits.documents]
    if limits.bytes and kind == "jsonl":
        fitting = np.cumsum([len(text.encode()) for text in expected]) <= limits.bytes
        expected = [text for text, fits in zip(expected, fitting, strict=True) if fits]
    if limits.bytes and kind == "txt":
        assert "".join(piece.text for piece in read) == "".join(expected).encode()[:7].decode("utf-8", "ignore")
        return
    if not text.documents:
        assert "".join(piece.text for piece in read) == "".join(expected)
        return
    for pieces in (read, by_span):
        documents = [""]
        for piece in pieces:
            documents[-1] += piece.text
            if piece.ends:
                documents.append("")
        assert documents == [*expected, ""]
    assert sum(one.characters for one in found) == sum(len(piece.text) for piece in read)
    assert set("".join(one.alphabet for one in found)) == set("".join(piece.text for piece in read))


def test_a_byte_limit_is_kept_to_the_character(here):
    prepared = prepare("data", Source(inputs=(str(here / "book.txt"),), max_bytes=5001), tokenizer="byte")

    read = prepared.manifest["text"]["bytes"]
    assert 5001 - 4 < read <= 5001
    assert prepared.tokenizer.decode(prepared.train) == text_of(6000)[: prepared.manifest["train"]["characters"]]


def test_a_published_split_in_bytes_is_kept(here):
    with opened(Source.files("book.txt")) as text:
        work = Work(here, {})
        whole = reading.Text(text.files, split=(20_000, 1_000, text.size - 21_000))
        found = survey(whole, work, Limits(), alphabet=False)
        cut = preparing.splitting.cut(whole, work, found, {"val_fraction": None, "test_fraction": None})
        sizes = [
            sum(len(piece.text.encode()) for span in spans for piece in read_span(whole, work, found[span.part], span))
            for spans in cut.values()
        ]

    # To the character: one that lies across the border goes to what comes after it.
    assert list(cut) == ["train.pt", "val.pt", "test.pt"]
    assert 20_000 - 4 < sizes[0] <= 20_000
    assert sum(sizes) == text.size


def test_a_disk_without_room_is_said_before_anything_is_written(here, monkeypatch):
    monkeypatch.setattr(preparing.room.shutil, "disk_usage", lambda _: preparing.room.shutil._ntuple_diskusage(9, 8, 1))

    with pytest.raises(FileError, match=r"takes about .* MB in data, and 0\.0 MB are free there") as raised:
        prepare("data", Source.files("book.txt"))

    assert "--max-bytes" in raised.value.hint
    assert os.listdir("data") == [".lock"]


def test_documents_too_large_to_be_held_out_are_cut_with_a_notice(here, capsys):
    for name in ("a.txt", "b.txt"):
        (here / name).write_text(text_of(1000))

    prepared = prepare("data", Source.files("a.txt", "b.txt"))

    assert "the last one is cut" in capsys.readouterr().err
    characters = prepared.manifest["text"]["characters"]
    assert prepared.manifest["train"]["characters"] == characters * 9 // 10
    assert int((prepared.train == prepared.tokenizer.end_of_document).sum()) == 1
    assert int((prepared.val == prepared.tokenizer.end_of_document).sum()) == 1
