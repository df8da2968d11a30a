"""Reading: every way a text may lie there is read as one text in chunks, and what can't be read is named."""

import io
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microformer.corpora import reading
from microformer.corpora.formats import File
from microformer.corpora.reading import Source, Text, opened
from microformer.errors import DataError, FileError, SettingsError


def read(*inputs, encoding="utf-8"):
    with opened(Source.files(*inputs, encoding=encoding)) as text:
        return "".join(piece.text for piece in text.pieces())


def documents(*inputs, **how):
    """The documents of some inputs; of what has none, the whole text."""
    with opened(replace(Source.files(*inputs), **how)) as text:
        found = [""]
        for piece in text.pieces():
            found[-1] += piece.text
            if piece.ends:
                found.append("")
        return found if found[-1] else found[:-1]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(reading, "_BLOCK", 3)


@given(text=st.text(), block=st.integers(1, 7), encoding=st.sampled_from(["utf-8", "utf-16", "utf-32-be", "gb18030"]))
def test_a_text_is_read_alike_in_blocks_of_any_size(text, block, encoding, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(text.encode(encoding))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_BLOCK", block)
        assert read(path, encoding=encoding) == text.removeprefix("\ufeff")


def test_newlines_and_control_characters_are_untouched(tmp_path, small_blocks):
    path = tmp_path / "mixed.txt"
    path.write_bytes(b"a\r\nb\rc\n\x00\x1a\x0cd\n")

    assert read(path) == "a\r\nb\rc\n\x00\x1a\x0cd\n"


def test_a_byte_order_mark_is_dropped_at_the_start_of_a_file_and_nowhere_else(tmp_path):
    path = tmp_path / "marked.txt"
    path.write_bytes("\ufeffa\ufeffb".encode())

    assert read(path) == "a\ufeffb"


def test_several_files_are_documents_in_the_order_given_and_empty_ones_are_left_out(tmp_path):
    for name, text in {"one": "1\n", "two": "2", "three": "", "four": "4"}.items():
        (tmp_path / name).write_text(text)

    assert documents(*(tmp_path / name for name in ("two", "three", "one", "four"))) == ["2", "1\n", "4"]


def test_a_folder_is_the_text_files_beneath_it_sorted_by_name(tmp_path):
    for name in ("b.txt", "a/z.md", "a/b/c.TXT", "notes.rst", "image.png", ".hidden/x.txt", ".hidden.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")

    assert read(tmp_path) == "a/b/c.TXT\na/z.md\nb.txt\nnotes.rst\n"


def test_standard_input_can_be_read_twice(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"piped in\n")))

    with opened(Source.files("-")) as text:
        assert ["".join(piece.text for piece in text.pieces()) for _ in range(2)] == ["piped in\n", "piped in\n"]
        (path,) = text.paths
    assert not path.exists()


def test_standard_input_stands_among_files(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"piped in")))
    (tmp_path / "a.txt").write_text("a file")

    assert documents(tmp_path / "a.txt", "-") == ["a file", "piped in"]


def test_standard_input_twice_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"piped in")))

    with pytest.raises(SettingsError, match="named twice"):
        read("-", "-")


@pytest.mark.parametrize("block", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        (b"caf\xe9", "utf-8", "is not UTF-8: byte 0xE9 at offset 3."),
        ("né".encode() + b"\xff!", "utf-8", "is not UTF-8: byte 0xFF at offset 3."),
        ("caf\U0001f642".encode()[:-1], "utf-8", "is not UTF-8: byte 0xF0 at offset 3."),
        (b"\xef\xbb\xbfab\x80", "utf-8", "is not UTF-8: byte 0x80 at offset 5."),
        (b"abc\xe9", "ascii", "is not ascii: byte 0xE9 at offset 3."),
        ("ab".encode("utf-16-le") + b"\x00\xdc", "utf-16-le", "is not utf-16-le: byte 0x00 at offset 4."),
    ],
)
def test_a_byte_that_is_not_in_the_encoding_is_named_with_its_place(
    data, encoding, message, block, tmp_path, monkeypatch
):
    monkeypatch.setattr(reading, "_BLOCK", block)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_bytes(data)

    with pytest.raises(DataError) as raised:
        read("corpus.txt", encoding=encoding)

    assert raised.value.sentence == f"corpus.txt {message}"
    assert "--encoding" in raised.value.hint


def test_the_likely_encoding_is_proposed(tmp_path):
    (tmp_path / "latin").write_bytes("café".encode("latin-1"))
    (tmp_path / "wide").write_bytes("café".encode("utf-16"))

    for name, likely in {"latin": "latin-1", "wide": "utf-16"}.items():
        with pytest.raises(DataError) as raised:
            read(tmp_path / name)
        assert f"--encoding {likely}" in raised.value.hint
        assert read(tmp_path / name, encoding=likely) == "café"


@pytest.mark.parametrize("encoding", ["klingon", "base64", "rot13"])
def test_an_encoding_that_is_none_is_refused(encoding, tmp_path):
    (tmp_path / "a").write_text("a")

    with pytest.raises(SettingsError, match=f'no text encoding "{encoding}"'):
        read(tmp_path / "a", encoding=encoding)


def test_a_file_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(DataError, match=r"there is no file books.war\.txt"):
        read("books/war.txt")


def test_a_folder_without_text_is_named(tmp_path):
    (tmp_path / "image.png").write_bytes(b"\x89PNG")

    with pytest.raises(DataError, match=r"has no text: no file beneath it ends in \.txt"):
        read(tmp_path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, small_blocks):
    path = tmp_path / "growing.txt"
    path.write_text("twelve chars")
    pieces = Text((File(path),)).pieces()
    next(pieces)
    path.write_text("more than twelve")

    with pytest.raises(DataError, match="changed while it was read"):
        list(pieces)


def test_a_file_that_vanishes_between_two_readings_is_named(tmp_path):
    path = tmp_path / "gone.txt"
    path.write_text("here")
    text = Text((File(path),))
    path.unlink()

    with pytest.raises(FileError, match="gone"):
        list(text.pieces())


def test_a_source_under_a_folder_moves_with_it(tmp_path):
    source = Source.files(tmp_path / "old" / "corpus.txt", "/elsewhere/book.txt")

    moved = Source.from_dict(source.to_dict(tmp_path / "old"), tmp_path / "new")

    assert moved == Source.files(tmp_path / "new" / "corpus.txt", "/elsewhere/book.txt")
