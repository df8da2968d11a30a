"""Every kind of file is read as its documents, and what is damaged, hostile or cut short is named, never half read."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile

import pyarrow
import pytest
import zstandard
from pyarrow import parquet
from test_reading import documents

from microformer.corpora import formats
from microformer.errors import DataError

TEXTS = ["To be,\nor not to be", "naïve 日本語 🙂\r\n", 'she said "no", twice', "  spaces\t"]


def written(path, texts=TEXTS, field="text"):
    """A file of the format that its name says, and its texts."""
    suffixes = path.suffixes
    packed = suffixes[-1] if suffixes[-1] in formats.PACKED_SUFFIXES else ""
    match suffixes[-2] if packed else suffixes[-1]:
        case ".jsonl":
            data = "".join(json.dumps({"id": 1, field: text}) + "\n" for text in texts).encode()
        case ".csv" | ".tsv" as suffix:
            rows = io.StringIO(newline="")
            writer = csv.writer(rows, delimiter="\t" if suffix == ".tsv" else ",")
            writer.writerows([["id", field], *(["1", text] for text in texts)])
            data = rows.getvalue().encode()
        case ".parquet":
            sink = io.BytesIO()
            table = pyarrow.table({"id": [1] * len(texts), field: texts})
            parquet.write_table(table, sink, row_group_size=3)
            data = sink.getvalue()
        case _:
            data = "".join(texts).encode()
    path.write_bytes(packing(packed)(data))
    return path


def packing(suffix):
    return {
        "": bytes,
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".zst": zstandard.ZstdCompressor().compress,
    }[suffix]


@pytest.mark.parametrize("packed", ["", *formats.PACKED_SUFFIXES])
@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".tsv", ".txt"])
def test_a_file_of_any_kind_packed_or_not_gives_its_documents(kind, packed, tmp_path):
    path = written(tmp_path / f"books{kind}{packed}")

    assert documents(path) == (["".join(TEXTS)] if kind == ".txt" else TEXTS)


def test_a_parquet_file_gives_a_document_a_row(tmp_path):
    assert documents(written(tmp_path / "books.parquet")) == TEXTS


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".parquet"])
def test_the_field_can_be_named_and_another_is_refused_with_those_that_there_are(kind, tmp_path):
    path = written(tmp_path / f"books{kind}", field="story")

    assert documents(path, text_field="story") == TEXTS
    with pytest.raises(DataError, match='has no field "text": its fields are id, story') as raised:
        documents(path)
    assert "--text-field" in raised.value.hint


def test_an_archive_gives_its_text_files_sorted_by_name_whatever_their_kind(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("b/two.txt", "two")
        archive.writestr("a/one.jsonl", '{"text": "one"}\n{"text": "and a half"}\n')
        archive.writestr("picture.png", b"\x89PNG")

    assert documents(tmp_path / "all.zip") == ["one", "and a half", "two"]


def test_a_folder_holds_files_of_any_kind_and_a_pattern_chooses_among_them(tmp_path):
    written(tmp_path / "a.jsonl.gz", ["a1", "a2"])
    written(tmp_path / "b.txt", ["b"])
    (tmp_path / "c.zip").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("c.txt", "c")

    assert documents(tmp_path) == ["a1", "a2", "b", "c"]
    assert documents(tmp_path / "[ab].*") == ["a1", "a2", "b"]
    with pytest.raises(DataError, match=r"no file matches .*\.parquet"):
        documents(tmp_path / "*.parquet")


def test_rows_without_text_are_left_out_and_counted(tmp_path):
    path = tmp_path / "holes.jsonl"
    path.write_text('{"text": ""}\n\n{"text": "one"}\n{"text": null}\n{"text": "two"}\n')

    assert documents(path) == ["one", "two"]


@pytest.mark.parametrize("packed", formats.PACKED_SUFFIXES)
@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_packed_file_that_was_cut_short_is_never_taken_for_a_whole_one(packed, kept, tmp_path):
    path = tmp_path / f"books.txt{packed}"
    data = packing(packed)(bytes(range(256)).hex().encode() * 400)
    path.write_bytes(data[: int(kept * len(data))])

    with pytest.raises(DataError, match="is damaged"):
        documents(path)


@pytest.mark.parametrize(
    "name", ["books.txt.gz", "books.txt.xz", "books.txt.zst", "books.zip", "books.parquet", "books.jsonl"]
)
def test_a_file_that_is_not_what_its_name_says_is_named(name, tmp_path):
    (tmp_path / name).write_bytes(bz2.compress(b"something else") * 3)

    with pytest.raises(DataError, match=r"books.* is (damaged|not JSON)"):
        documents(tmp_path / name)


@pytest.mark.parametrize("packed", [*formats.PACKED_SUFFIXES, ".zip"])
def test_a_bomb_is_refused_with_its_size_before_it_goes_off(packed, tmp_path):
    path = tmp_path / f"bomb.txt{packed}"
    letters = b"a" * (1 << 20)
    match packed:
        case ".zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.txt", "w") as member:
                for _ in range(80):
                    member.write(letters)
            # Deflate packs a thousandfold at most; a liar's directory says more.
            path.write_bytes(
                path.read_bytes().replace((80 << 20).to_bytes(4, "little"), (4000 << 20).to_bytes(4, "little"))
            )
        case ".gz":
            inner = gzip.compress(letters * 80)
            path.write_bytes(inner)
        case ".xz":
            path.write_bytes(lzma.compress(letters * 80))
        case ".zst":
            path.write_bytes(zstandard.ZstdCompressor(level=19).compress(letters * 80))

    with pytest.raises(DataError, match=r"is refused: it unpacks to [\d,]+ MB and more, over 1,000 times"):
        documents(path)


@pytest.mark.parametrize("name", ["../../outside.txt", "/etc/passwd.txt", "C:/windows.txt", "..\\outside.txt"])
def test_an_archive_whose_files_would_lie_outside_of_it_is_refused(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "trap.zip", "w") as archive:
        archive.writestr("good.txt", "good")
        archive.writestr(name, "bad")

    with pytest.raises(DataError, match="would lie outside of it"):
        documents(tmp_path / "trap.zip")


def test_an_archive_without_text_says_what_would_be_text(tmp_path):
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("a.png", "a")
        archive.writestr("b.png", "b")

    with pytest.raises(DataError, match=r"has no text: of its 2 files none ends in \.txt"):
        documents(tmp_path / "pictures.zip")


def test_an_archive_of_one_file_without_an_ending_is_that_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "text8.zip", "w") as archive:
        archive.writestr("text8", " anarchism originated")

    assert documents(tmp_path / "text8.zip") == [" anarchism originated"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "line 2 is not JSON"),
        ("[1, 2]", "line 2 is no object but a list"),
        ('{"text": 5}', 'row 2: its field "text" is no text but a int'),
        ('{"story": "a", "x": "b"}', 'has no field "text"'),
        ("[" * 100_000, "line 2 is not JSON"),
    ],
)
def test_a_line_that_is_no_row_is_named_with_its_number(line, message, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "good"}\n' + line + "\n")

    with pytest.raises(DataError, match=message):
        documents(tmp_path / "rows.jsonl")


def test_a_row_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "LONGEST_ROW", 1 << 20)
    (tmp_path / "rows.jsonl").write_text('{"text": "' + "a" * (1 << 21))

    with pytest.raises(DataError, match="line 1 is longer than"):
        documents(tmp_path / "rows.jsonl")


def test_a_row_of_csv_with_too_few_fields_is_named(tmp_path):
    (tmp_path / "rows.csv").write_text("id,text\n1,good\n2\n")

    with pytest.raises(DataError, match="line 3 has 1 fields, not 2"):
        documents(tmp_path / "rows.csv")


def test_utf_16_without_a_mark_is_told_from_text(tmp_path):
    (tmp_path / "wide.txt").write_bytes("plain text".encode("utf-16-le"))

    with pytest.raises(DataError, match="is no UTF-8 text: 50% of its bytes are 0") as raised:
        documents(tmp_path / "wide.txt")

    assert "--encoding utf-16-le" in raised.value.hint
    assert documents(tmp_path / "wide.txt", encoding="utf-16-le") == ["plain text"]


def test_a_few_nul_characters_are_kept_and_said(tmp_path, capsys):
    (tmp_path / "odd.txt").write_bytes(b"a\x00b" + b"c" * 100)

    assert documents(tmp_path / "odd.txt") == ["a\x00b" + "c" * 100]
    assert "has 1 NUL characters" in capsys.readouterr().err
