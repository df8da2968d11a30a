"""Preparing: the set is what a simple computation in memory would give, and is made only when it has to be."""

import hashlib
import importlib
import io
import os
import random
import sys
import threading
import tracemalloc
from types import SimpleNamespace

import pytest
import torch
from local_server import CONTENT, serving

from microformer import tokenization
from microformer.corpora import Source, choose_source, ensure_prepared, named, prepare, reading, what_to_prepare
from microformer.corpora.fetching import NoNetwork
from microformer.corpora.named import CORPORA, NamedCorpus
from microformer.errors import DataError, FileError, SettingsError

# The package's function of the same name hides the module.
prepare_module = importlib.import_module("microformer.corpora.preparing")

WORDS = ["to", "be", "or", "not", "naïve", "日本語", "🙂", "end.\n", "\r\n", "  "]
TEXT = " ".join(random.Random(0).choices(WORDS, k=2000))


def why_prepare(folder, **asked):
    """Why the set there is not what is asked for; None if it is."""
    return what_to_prepare(folder, **asked)[1]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty project with a text of the user's own beside it."""
    project = tmp_path / "a prôject"
    (project / "data").mkdir(parents=True)
    monkeypatch.chdir(project)
    (project / "book.txt").write_bytes(TEXT.encode())
    return project


@pytest.fixture
def unreachable(monkeypatch):
    """The default corpus would have to be fetched, and there is no network."""
    publish(monkeypatch, "http://127.0.0.1:9/unreachable")


def publish(monkeypatch, url):
    corpus = NamedCorpus("glisters", "a line", "public domain", len(CONTENT), url, hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(named, "CORPORA", {"glisters": corpus, **CORPORA})


def asked(**changed):
    return {"explicit": None, "default_corpus": "pydocs", **changed}


@pytest.mark.parametrize("tokenizer", tokenization.KINDS)
@pytest.mark.parametrize("val_fraction", [0.1, 0.37, 0.0])
def test_streaming_gives_what_encoding_in_memory_gives(tokenizer, val_fraction, here, monkeypatch):
    monkeypatch.setattr(reading, "_BLOCK", 7)  # bytes, so that characters and lines lie across the borders

    prepared = prepare("data", Source.files("book.txt"), tokenizer=tokenizer, val_fraction=val_fraction)

    in_train = int(len(TEXT) * (1 - val_fraction))
    learned_from = TEXT[:in_train] if tokenizer in tokenization.LEARNED else TEXT
    oracle = tokenization.train(tokenizer, [learned_from], alphabet=TEXT)
    assert prepared.tokenizer.to_dict() == oracle.to_dict()
    assert prepared.train.numpy().tolist() == oracle.encode(TEXT[:in_train]).tolist()
    if val_fraction:
        assert prepared.val.numpy().tolist() == oracle.encode(TEXT[in_train:]).tolist()
    else:
        assert prepared.val is None


@pytest.mark.parametrize("tokenizer", tokenization.KINDS)
def test_the_files_are_plain_tensors_of_the_smallest_type_that_torch_maps(tokenizer, here):
    prepared = prepare("data", Source.files("book.txt"), tokenizer=tokenizer)

    for name, part in (("train.pt", prepared.train), ("val.pt", prepared.val)):
        tensor = torch.load(f"data/{name}", mmap=True, weights_only=True)
        assert torch.equal(tensor, part)
        assert tensor.dim() == 1
        assert tensor.dtype == (torch.int16 if tokenizer == "bpe" else torch.uint8)
        assert tensor.untyped_storage().nbytes() == tensor.nbytes  # nothing is dragged along


@pytest.mark.parametrize("length", [100, 101, 109, 110, 999, 1115])
def test_validation_is_the_last_tenth_to_the_character(length, here):
    (here / "short.txt").write_bytes(b"ab" * (length // 2) + b"c" * (length % 2))

    prepared = prepare("data", Source.files("short.txt"))

    assert len(prepared.val) == length - int(0.9 * length)
    assert len(prepared.train) == int(0.9 * length)


def test_the_manifest_counts_characters_bytes_and_tokens_of_each_part(here):
    manifest = prepare("data", Source.files("book.txt"), tokenizer="bpe").manifest
    parts = (TEXT[: int(0.9 * len(TEXT))], TEXT[int(0.9 * len(TEXT)) :])

    for name, part in zip(("train", "val"), parts, strict=True):
        assert manifest[name]["characters"] == len(part)
        assert manifest[name]["bytes"] == len(part.encode())
    assert manifest["text"]["sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()


def test_a_corpus_of_five_kilobytes_is_enough_and_one_of_ninety_nine_characters_is_not(here):
    (here / "small.txt").write_text("abcd " * 1000)
    (here / "tiny.txt").write_text("x" * 99)

    assert len(prepare("data", Source.files("small.txt")).val) == 500
    with pytest.raises(DataError, match=r"tiny\.txt is too short: it has 99 characters, and 100 are the least"):
        prepare("data", Source.files("tiny.txt"))


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_corpus_is_named(content, here):
    (here / "empty.txt").write_bytes(content)

    with pytest.raises(DataError, match="empty"):
        prepare("data", Source.files("empty.txt"))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_a_validation_fraction_that_is_none_is_refused(fraction, here):
    with pytest.raises(SettingsError, match=f"VAL_FRACTION {fraction}"):
        prepare("data", Source.files("book.txt"), val_fraction=fraction)


def test_a_validation_fraction_that_leaves_nothing_to_train_on_is_refused(here):
    (here / "short.txt").write_text("x" * 100)

    with pytest.raises(SettingsError, match=r"VAL_FRACTION 0\.999 leaves none of 100 characters"):
        prepare("data", Source.files("short.txt"), val_fraction=0.999)


def test_an_unknown_tokenizer_is_refused_before_anything_is_read(here):
    with pytest.raises(SettingsError, match='no tokenizer "chars"'):
        prepare("data", Source.files("not there"), tokenizer="chars")


def test_the_fingerprint_depends_on_text_tokenizer_and_split_and_on_nothing_else(here):
    (here / "copy.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    (here / "other.txt").write_bytes(TEXT.encode() + b".")
    first = prepare("data", Source.files("book.txt")).fingerprint

    assert prepare("elsewhere", Source.files("copy.txt")).fingerprint == first
    for changed in (
        prepare("data", Source.files("other.txt")),
        prepare("data", Source.files("book.txt"), tokenizer="byte"),
        prepare("data", Source.files("book.txt"), val_fraction=0.2),
    ):
        assert changed.fingerprint != first


def test_the_files_are_the_same_bytes_wherever_and_whenever_they_are_made(here):
    for folder in ("data", "other/place"):
        prepare(folder, Source.files("book.txt"))

    for name in ("train.pt", "val.pt", "vocab.json"):
        assert (here / "data" / name).read_bytes() == (here / "other/place" / name).read_bytes()


def test_validation_that_is_no_longer_wanted_is_removed(here):
    prepare("data", Source.files("book.txt"))

    prepare("data", Source.files("book.txt"), val_fraction=0.0)

    assert sorted(path.name for path in (here / "data").iterdir()) == [
        ".lock",
        "manifest.json",
        "train.pt",
        "vocab.json",
    ]


def test_what_was_mapped_before_stays_readable_while_it_is_prepared_again(here):
    (here / "other.txt").write_text("completely different " * 100)
    before = prepare("data", Source.files("book.txt"))
    ids = before.train.clone()

    prepare("data", Source.files("other.txt"))

    assert torch.equal(before.train, ids)


def test_progress_ends_where_the_text_does(here):
    seen = {}

    prepare("data", Source.files("book.txt"), progress=lambda stage, done, total: seen.update({stage: (done, total)}))

    size = len(TEXT.encode())
    assert seen == {"reading": (size, size), "encoding": (len(TEXT), len(TEXT))}


def test_the_summary_says_size_vocabulary_split_and_speed(here):
    (here / "plain.txt").write_bytes(b"0123456789" * 1000)

    lines = prepare("data", Source.files("plain.txt")).summary().splitlines()

    assert lines[0] == "plain.txt: 10,000 characters, 0.01 MB"
    assert lines[1] == "vocabulary 10 (char) · train 9,000 characters · validation 1,000 characters"
    assert "MB/s → data" in lines[2]


def test_standard_input_is_prepared_and_stays(here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(TEXT.encode())))

    prepared = prepare("data", Source.files("-"))

    assert prepared.corpus == "standard input"
    assert why_prepare("data", **asked()) is None
    with pytest.raises(DataError, match="came from standard input and can't be read again"):
        ensure_prepared("data", **asked(tokenizer="byte"))


def test_two_preparations_at_once_do_not_mix(here, monkeypatch, capsys):
    (here / "other.txt").write_text("completely different " * 5000)
    sources = [Source.files("book.txt"), Source.files("other.txt")] * 2
    threads = [threading.Thread(target=prepare, args=("data", source)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    prepared = ensure_prepared("data", **asked())
    text = prepared.tokenizer.decode(prepared.train) + prepared.tokenizer.decode(prepared.val)
    assert text in (TEXT, "completely different " * 5000)


# When a preparation is due


def test_nothing_is_prepared_twice(here):
    first = ensure_prepared("data", **asked(explicit=Source.files("book.txt")))
    written = os.stat("data/manifest.json").st_mtime_ns

    again = ensure_prepared("data", **asked(explicit=Source.files("book.txt")))

    assert again.fingerprint == first.fingerprint
    assert os.stat("data/manifest.json").st_mtime_ns == written


def test_corpus_txt_comes_before_the_default_corpus(here, capsys):
    (here / "data" / "corpus.txt").write_bytes(TEXT.encode())

    prepared = ensure_prepared("data", **asked())

    assert prepared.corpus == os.path.join("data", "corpus.txt")
    assert "no prepared data yet" in capsys.readouterr().err


def test_without_any_text_the_default_corpus_is_taken_and_never_copied(here):
    prepared = ensure_prepared("data", **asked())

    assert prepared.corpus == "pydocs"
    assert not (here / "data" / "corpus.txt").exists()


def test_a_corpus_txt_that_appears_later_replaces_the_default_corpus(here, capsys):
    ensure_prepared("data", **asked())
    (here / "data" / "corpus.txt").write_bytes(TEXT.encode())

    assert "corpus.txt is there now" in why_prepare("data", **asked())
    assert ensure_prepared("data", **asked()).manifest["text"]["characters"] == len(TEXT)


def test_a_book_that_was_asked_for_is_not_replaced_by_a_corpus_txt(here):
    prepare("data", Source.files("book.txt"))
    (here / "data" / "corpus.txt").write_text("something else " * 100)

    assert why_prepare("data", **asked()) is None
    assert choose_source("data", None, "pydocs") == Source.files("data/corpus.txt", explicit=False)


def test_a_source_that_changed_is_prepared_again_and_one_that_was_only_touched_is_not(here):
    prepare("data", Source.files("book.txt"))
    (here / "data" / "corpus.txt").write_text("something else " * 100)

    os.utime("book.txt", ns=(0, 0))
    assert why_prepare("data", **asked()) is None

    (here / "book.txt").write_bytes(TEXT.encode()[::-1].replace(b"\n", b" ").decode("utf-8", "ignore").encode())
    assert "book.txt changed" in why_prepare("data", **asked())
    assert ensure_prepared("data", **asked()).corpus == "book.txt"


def test_a_change_that_keeps_the_size_is_seen(here):
    prepare("data", Source.files("book.txt"))
    (here / "book.txt").write_bytes(TEXT.encode().replace(b"be", b"eb"))
    os.utime("book.txt", ns=(1, 1))

    assert "book.txt changed" in why_prepare("data", **asked())


def test_a_file_that_joins_the_folder_is_seen(here):
    (here / "shelf").mkdir()
    (here / "shelf" / "a.txt").write_text(TEXT, encoding="utf-8")
    prepare("data", Source.files("shelf"))
    assert why_prepare("data", **asked()) is None

    (here / "shelf" / "b.txt").write_text(TEXT, encoding="utf-8")

    assert "shelf holds other files" in why_prepare("data", **asked())


def test_a_source_that_was_deleted_leaves_its_prepared_data_in_use(here):
    prepare("data", Source.files("book.txt"))
    (here / "book.txt").unlink()

    assert why_prepare("data", **asked()) is None


def test_a_deleted_corpus_txt_leaves_its_prepared_data_in_use(here):
    (here / "data" / "corpus.txt").write_bytes(TEXT.encode())
    ensure_prepared("data", **asked())
    (here / "data" / "corpus.txt").unlink()

    assert why_prepare("data", **asked()) is None


def test_a_project_that_was_moved_keeps_its_prepared_data_and_sees_changes(here, monkeypatch):
    (here / "data" / "corpus.txt").write_bytes(TEXT.encode())
    ensure_prepared("data", **asked())
    monkeypatch.chdir(here.parent)
    here.rename("moved")
    monkeypatch.chdir("moved")

    assert why_prepare("data", **asked()) is None
    with open("data/corpus.txt", "a", encoding="utf-8") as file:
        file.write("more")
    assert "corpus.txt changed" in why_prepare("data", **asked())


def test_an_encoding_that_was_asked_for_is_remembered(here):
    (here / "book.txt").write_bytes(("café " * 100).encode("latin-1"))
    prepare("data", Source.files("book.txt", encoding="latin-1"))
    assert why_prepare("data", **asked()) is None

    (here / "book.txt").write_bytes(("cafés " * 100).encode("latin-1"))

    assert "é" in ensure_prepared("data", **asked()).tokenizer.to_dict()["vocab"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"explicit": Source.named("pydocs")}, "another corpus was asked for"),
        ({"tokenizer": "byte"}, "TOKENIZER was char when it was last prepared and is byte now"),
        ({"val_fraction": 0.2}, "VAL_FRACTION was 0.1 when it was last prepared and is 0.2 now"),
    ],
)
def test_other_settings_prepare_again_and_say_why(changed, reason, here, capsys):
    prepare("data", Source.files("book.txt"))

    assert why_prepare("data", **asked(**changed)) == reason
    ensure_prepared("data", **asked(**changed))

    assert reason in capsys.readouterr().err
    assert why_prepare("data", **asked(**changed)) is None


def test_a_vocabulary_size_matters_only_where_the_tokenizer_can_choose(here):
    prepare("data", Source.files("book.txt"))
    assert why_prepare("data", **asked(vocab_size=100)) is None

    prepare("data", Source.files("book.txt"), tokenizer="bpe", vocab_size=270)
    assert why_prepare("data", **asked(tokenizer="bpe", vocab_size=270)) is None
    assert why_prepare("data", **asked(tokenizer="bpe")) == (
        "VOCAB_SIZE was 270 when it was last prepared and is left alone now"
    )


def test_a_missing_train_pt_is_made_again_from_the_same_text(here):
    prepare("data", Source.files("book.txt"))
    (here / "data" / "corpus.txt").write_text("something else " * 100)
    (here / "data" / "train.pt").unlink()

    assert "train.pt is missing" in why_prepare("data", **asked())
    assert ensure_prepared("data", **asked()).corpus == "book.txt"


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99}'])
def test_a_manifest_that_is_not_ours_is_as_good_as_none(content, here):
    prepare("data", Source.files("book.txt"))
    (here / "data" / "manifest.json").write_text(content)

    assert why_prepare("data", **asked()) == "the last preparation was not finished"


def test_preparing_without_words_takes_corpus_txt_then_what_was_asked_for_last_then_the_default(here):
    assert choose_source("data", None, "pydocs") == Source.named("pydocs", explicit=False)
    prepare("data", Source.files("book.txt"))
    assert choose_source("data", None, "pydocs") == Source.files("book.txt")
    (here / "data" / "corpus.txt").write_bytes(TEXT.encode())
    assert choose_source("data", None, "pydocs") == Source.files("data/corpus.txt", explicit=False)
    assert choose_source("data", Source.named("pydocs"), "pydocs") == Source.named("pydocs")


# Without a network


def test_without_a_network_the_default_corpus_gives_way_to_pydocs_and_says_so(here, unreachable, capsys):
    prepared = ensure_prepared("data", **asked(default_corpus="glisters"))

    assert prepared.corpus == "pydocs"
    notes = [line for line in capsys.readouterr().err.splitlines() if "pydocs" in line]
    assert len(notes) == 1
    assert "microformer prepare --corpus glisters" in notes[0]


def test_pydocs_stays_when_the_network_is_back_until_the_corpus_is_asked_for(here, unreachable, monkeypatch):
    ensure_prepared("data", **asked(default_corpus="glisters"))
    with serving() as (address, _):
        publish(monkeypatch, f"{address}/good")

        assert why_prepare("data", **asked(default_corpus="glisters")) is None
        again = ensure_prepared("data", **asked(default_corpus="glisters", explicit=Source.named("glisters")))

    assert again.corpus == "glisters"
    assert why_prepare("data", **asked(default_corpus="glisters")) is None


def test_a_corpus_that_the_user_named_never_gives_way(here, unreachable):
    with pytest.raises(NoNetwork) as raised:
        ensure_prepared("data", **asked(default_corpus="glisters", explicit=Source.named("glisters")))

    assert "--corpus pydocs" in raised.value.hint


@pytest.mark.parametrize("path", ["/lies", "/nothing"])
def test_a_server_that_lies_or_refuses_never_makes_the_default_give_way(path, here, monkeypatch):
    with serving() as (address, _):
        publish(monkeypatch, f"{address}{path}")

        with pytest.raises(DataError) as raised:
            ensure_prepared("data", **asked(default_corpus="glisters"))

    assert not isinstance(raised.value, NoNetwork)
    assert not (here / "data" / "train.pt").exists()


# Faults


def test_a_folder_that_cannot_be_made_is_named(here):
    with pytest.raises(FileError, match=r"book\.txt"):
        prepare("book.txt/data", Source.files("book.txt"))


def test_a_text_that_grows_while_it_is_prepared_is_refused_and_the_old_set_stays(here, monkeypatch):
    old = prepare("data", Source.files("book.txt")).fingerprint
    (here / "log.txt").write_text("line after line " * 100)
    encode = prepare_module._encode

    def grow_then_encode(*args):
        with open("log.txt", "a", encoding="utf-8") as file:
            file.write("and another")
        return encode(*args)

    monkeypatch.setattr(prepare_module, "_encode", grow_then_encode)
    with pytest.raises(DataError, match="changed while it was read"):
        prepare("data", Source.files("log.txt"))

    assert ensure_prepared("data", **asked()).fingerprint == old


def test_a_text_that_is_read_at_full_speed_takes_no_memory_of_its_size(here):
    """Guards the design, not the speed: 40 MB must not appear as 40 MB of arrays."""
    (here / "large.txt").write_bytes(b"the quick brown fox jumps over the lazy dog\n" * 900_000)
    tracemalloc.start()
    try:
        prepare("data", Source.files("large.txt"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 30e6
