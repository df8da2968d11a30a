"""Named corpora: where they are looked for, in which order, and what is never taken for them."""

import dataclasses
import hashlib
import io
import zipfile
from contextlib import ExitStack

import pytest
from local_server import CONTENT, serving, serving_file

from microformer.corpora import Source, named, prepare
from microformer.corpora.fetching import NoNetwork
from microformer.corpora.formats import File
from microformer.corpora.named import CORPORA, NamedCorpus, find, stored
from microformer.errors import DataError, SettingsError


@pytest.fixture
def corpus(monkeypatch):
    """Makes the named corpora one, published where a test says."""

    def published_at(url):
        glisters = NamedCorpus(
            "glisters", "a line", "public domain", len(CONTENT), url, hashlib.sha256(CONTENT).hexdigest()
        )
        monkeypatch.setattr(named, "CORPORA", {"glisters": glisters, **CORPORA})

    published_at("http://127.0.0.1:9/unreachable")
    return published_at


@pytest.fixture
def server_of():
    """Serves one file and gives its address."""
    with ExitStack() as stack:
        yield lambda name, content: stack.enter_context(serving_file(name, content))


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    folder = tmp_path / "classroom"
    folder.mkdir()
    monkeypatch.setenv("MICROFORMER_CORPORA", str(folder))
    return folder


def test_the_classrooms_folder_is_searched_first(corpus, mirror):
    (mirror / "glisters.txt").write_bytes(CONTENT)

    assert find("glisters") == [File(mirror / "glisters.txt")]


def test_another_file_in_the_classrooms_folder_is_refused(corpus, mirror):
    (mirror / "glisters.txt").write_bytes(b"not " + CONTENT)

    with pytest.raises(DataError, match="is not the corpus glisters") as raised:
        find("glisters")

    assert not isinstance(raised.value, NoNetwork)


def test_a_classrooms_folder_without_the_corpus_is_no_hindrance(corpus, mirror, cache):
    cache.mkdir(parents=True)
    (cache / "glisters.txt").write_bytes(CONTENT)

    assert find("glisters") == [File(cache / "glisters.txt")]


def test_a_classrooms_folder_that_is_not_there_is_said(corpus, cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MICROFORMER_CORPORA", str(tmp_path / "misspelt"))
    cache.mkdir(parents=True)
    (cache / "glisters.txt").write_bytes(CONTENT)

    assert find("glisters") == [File(cache / "glisters.txt")]
    assert "misspelt" in capsys.readouterr().err


def test_what_was_fetched_once_is_found_without_a_network(corpus):
    with serving() as (address, _):
        corpus(f"{address}/good")
        assert stored("glisters") is None
        (file,) = find("glisters")
    corpus("http://127.0.0.1:9/unreachable")

    assert find("glisters") == [file]
    assert stored("glisters") == file.path
    assert file.path.read_bytes() == CONTENT


def test_a_damaged_copy_in_the_cache_is_fetched_again(corpus, cache):
    cache.mkdir(parents=True)
    (cache / "glisters.txt").write_bytes(CONTENT[:-1])

    with pytest.raises(NoNetwork):
        find("glisters")
    with serving() as (address, _):
        corpus(f"{address}/good")
        assert find("glisters")[0].path.read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["text8", "enwik8"])
def test_text8_and_enwik8_are_read_from_their_archive_and_split_as_is_agreed(name, tmp_path, monkeypatch, server_of):
    text = (" anarchism originated" if name == "text8" else "<mediawiki>\n [[naïve]] ") * 1000
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, text)
    address = server_of(f"{name}.zip", archive.getvalue())
    size = len(text.encode())
    small = dataclasses.replace(
        CORPORA[name],
        url=address,
        sha256=hashlib.sha256(archive.getvalue()).hexdigest(),
        split=(size * 9 // 10, size // 20, size - size * 9 // 10 - size // 20),
    )
    monkeypatch.setitem(CORPORA, name, small)

    prepared = prepare(tmp_path / "data", Source.named(name), tokenizer="byte")

    assert [len(part) for part in (prepared.train, prepared.val, prepared.test)] == pytest.approx(small.split, abs=1)
    parts = [prepared.tokenizer.decode(part) for part in (prepared.train, prepared.val, prepared.test)]
    assert "".join(parts) == text
    assert CORPORA[name].convention == "/".join(f"{one / 1e6:g}M" for one in small.split)


def test_the_agreed_splits_are_ninety_five_and_five_million():
    assert named.named("text8").split == named.named("enwik8").split == (90_000_000, 5_000_000, 5_000_000)


def test_pydocs_needs_no_network_and_is_text():
    text = find("pydocs")[0].path.read_text(encoding="utf-8")

    assert len(text) > 100_000
    assert "lambda" in text
    assert find("pydocs")[0].path.read_text(encoding="utf-8") == text


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(SettingsError, match='no corpus "tinyshakespear"') as raised:
        find("tinyshakespear")

    assert 'did you mean "tinyshakespeare"' in raised.value.hint


def test_a_file_that_is_missing_where_a_name_is_wanted_is_said_to_be():
    with pytest.raises(SettingsError, match=r'no corpus "books/war\.txt" and no such file'):
        find("books/war.txt")


def test_tiny_shakespeare_is_the_one_that_everybody_uses():
    corpus = named.named("tinyshakespeare")

    assert corpus.sha256 == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    assert corpus.bytes == 1_115_394
