"""One file as texts: plain, or a text a row of JSON lines, CSV or Parquet; each may be compressed or lie in a .zip.

    .txt .text .md .rst …    the whole file is one text
    .jsonl .csv .parquet     a text a row, in one of its fields
    .gz .xz .zst             around any of these but Parquet
    .zip                     with any of these in it

Nothing is unpacked onto the disk, nor all at once into memory. What unpacks to a thousand times its size is refused
before it fills anything. Knows neither tokens nor where files come from.
"""

import csv
import gzip
import io
import json
import lzma
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast, runtime_checkable

from microformer import files
from microformer.errors import DataError, MicroformerError

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
ROW_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
PACKED_SUFFIXES = (".gz", ".xz", ".zst")
# What a row's text is called where nobody says it.
FIELD = "text"
EXTRA = 'pip install "microformer[datasets]"'
# Texts are packed to a third or a tenth of their size, logs to a hundredth. Below this size nothing is a bomb.
_MOST_UNPACKED = 1000
_NO_BOMB = 1 << 26
# A row is held whole. One as long as that is no document, but a file without line ends.
LONGEST_ROW = 1 << 28
_ROWS_AT_ONCE = 1024

# Is shown the bytes of a file as they are read.
Observe = Callable[[Path, bytes], None]


@runtime_checkable
class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class File:
    """A file that has a text or several.

    Args:
        path: where it lies.
        member: which file of it, where it is a .zip.
        part: the part of the split that it is published as (train, val, test); "" where the split is ours.
    """

    path: Path
    member: str = ""
    part: str = ""

    @property
    def _suffixes(self) -> list[str]:
        return [suffix.lower() for suffix in PurePosixPath(self.member or self.path.name).suffixes]

    @property
    def packed(self) -> bool:
        """Whether its bytes have to be unpacked."""
        return bool(self.member) or self._suffixes[-1:] in [[suffix] for suffix in PACKED_SUFFIXES]

    @property
    def rows(self) -> str:
        """`.jsonl`, `.csv` … where it has a text a row; "" where it is one text."""
        suffixes = self._suffixes
        if suffixes[-1:] in [[suffix] for suffix in PACKED_SUFFIXES]:
            suffixes = suffixes[:-1]
        return suffixes[-1] if suffixes and suffixes[-1] in ROW_SUFFIXES else ""

    def __str__(self) -> str:
        return f"{files.shown(self.path)}, {self.member}" if self.member else files.shown(self.path)


def is_text(name: str) -> bool:
    """Whether a file of this name is taken for one of texts, where a folder or an archive is searched for them."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes = suffixes[:-1]
    return bool(suffixes) and suffixes[-1] in (*TEXT_SUFFIXES, *ROW_SUFFIXES)


def members(path: Path) -> list[str]:
    """The files in a .zip that have text, sorted by name.

    Raises:
        DataError: it is no .zip, is a trap (paths that lead outside it, or a thousand times its size), or has no text.
    """
    with _zip(path) as archive:
        listed = [info for info in archive.infolist() if not info.is_dir()]
    for info in listed:
        place = PurePosixPath(info.filename.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or ":" in place.parts[0]:
            raise DataError(
                f"{files.shown(path)} is refused: its member {info.filename!r} would lie outside of it.",
                "whoever made this archive made a trap of it, or a mistake; unpack it with care and name the files.",
            )
        if info.flag_bits & 1:
            raise DataError(f"{files.shown(path)} is locked with a password.", "unpack it and name the files.")
    texts = sorted(info.filename for info in listed if is_text(info.filename))
    if not texts and len(listed) == 1:
        texts = [listed[0].filename]  # text8.zip has a file "text8"
    if not texts:
        raise DataError(
            f"{files.shown(path)} has no text: of its {len(listed)} files none ends in "
            f"{', '.join((*TEXT_SUFFIXES, *ROW_SUFFIXES))}.",
            "unpack it and name the files themselves.",
        )
    sizes = sum(info.file_size for info in listed if info.filename in texts)
    _check_bomb(path, sizes, path.stat().st_size)
    return texts


@contextmanager
def unpacked(file: File, observe: Observe | None = None, offset: int = 0) -> Iterator[Readable]:
    """The bytes of a file, unpacked as they are read.

    Args:
        observe: is shown them as they are read.
        offset: how many to skip unread, where they need not be unpacked.

    Raises:
        DataError: it is damaged, or unpacks to a thousand times its size.
        FileError: it can't be read.
    """
    path = file.path
    with files.explained(path, "read"):
        size = path.stat().st_size
        raw = open(path, "rb", buffering=0)  # noqa: SIM115
    with raw:
        raw.seek(offset)
        source = raw if observe is None or file.member else _Observed(raw, path, observe)
        if file.member:
            with _zip(path) as archive, _damage(file), archive.open(file.member) as member:
                yield _Unpacked(member, file, size, observe)
            return
        match path.suffix.lower():
            case ".gz":
                stream: Readable = gzip.GzipFile(fileobj=cast(Any, source))
            case ".xz":
                stream = lzma.LZMAFile(cast(Any, source))  # noqa: SIM115
            case ".zst":
                stream = _Zstandard(source)
            case _:
                with files.explained(path, "read"):
                    yield source
                return
        with _damage(file):
            yield _Unpacked(stream, file, size, None)


def rows(file: File, field: str, encoding: str, observe: Observe | None = None) -> Iterator[str]:
    """The texts of a file that has one a row.

    Args:
        field: which field of a row; "" for `text`, or the only one that there is.

    Raises:
        DataError: a row that can't be read, or has no such field.
    """
    match file.rows:
        case ".parquet":
            yield from _parquet(file, field, observe)
        case ".jsonl" | ".ndjson":
            with unpacked(file, observe) as stream:
                yield from _json_lines(file, io.BufferedReader(_Raw(stream), 1 << 20), field, encoding)
        case suffix:
            with unpacked(file, observe) as stream:
                yield from _csv(file, io.BufferedReader(_Raw(stream), 1 << 20), field, encoding, suffix)


def _json_lines(file: File, stream: io.BufferedReader, field: str, encoding: str) -> Iterator[str]:
    number = 0
    while line := stream.readline(LONGEST_ROW):
        number += 1
        if len(line) == LONGEST_ROW:
            raise _too_long(file, number)
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode(encoding).removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:  # no JSON, or bytes of another encoding
            raise DataError(
                f"{file}, line {number:,} is not JSON: {error}.", 'each line is an object of its own, as {"text": …}.'
            ) from error
        if isinstance(row, str):
            yield row
            continue
        if not isinstance(row, dict):
            raise DataError(f"{file}, line {number:,} is no object but a {type(row).__name__}.", "each line is one.")
        chosen = _field(file, field, list(row))
        yield _text(file, number, chosen, row[chosen])


def _csv(file: File, stream: io.BufferedReader, field: str, encoding: str, suffix: str) -> Iterator[str]:
    lines = io.TextIOWrapper(stream, encoding=encoding if encoding.lower() != "utf-8" else "utf-8-sig", newline="")
    csv.field_size_limit(min(LONGEST_ROW, sys.maxsize))
    reader = csv.reader(lines, delimiter="\t" if suffix == ".tsv" else ",", strict=True)
    try:
        names = next(reader, [])
        if not names:
            return
        at = names.index(_field(file, field, names))
        for row in reader:
            if not row:
                continue
            if at >= len(row):
                raise DataError(
                    f"{file}, line {reader.line_num:,} has {len(row)} fields, not {len(names)}.", "mend it."
                )
            yield row[at]
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num:,} is not CSV: {error}.", "mend that line.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not {encoding}, near line {reader.line_num:,}: byte 0x{error.object[error.start]:02X}.",
            "if it is in another encoding, say so: --encoding latin-1.",
        ) from error
    finally:
        lines.detach()


def _parquet(file: File, field: str, observe: Observe | None) -> Iterator[str]:
    if file.packed:
        raise DataError(f"{file} is a packed Parquet file, which can't be read in parts.", "unpack it first.")
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise _missing("Parquet files", "pyarrow") from error
    with files.explained(file.path, "read"):
        size = file.path.stat().st_size
        try:
            with parquet.ParquetFile(file.path) as opened:
                chosen = _field(file, field, opened.schema_arrow.names)
                groups = max(1, opened.num_row_groups)
                for group in range(opened.num_row_groups):
                    number = 0
                    for batch in opened.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[chosen]):
                        for value in batch.column(0).to_pylist():
                            number += 1
                            if value is not None:
                                yield _text(file, number, chosen, value)
                    if observe is not None:  # how much was read; its bytes don't come in a row
                        observe(file.path, bytes(size * (group + 1) // groups - size * group // groups))
        except pyarrow.ArrowInvalid as error:
            raise DataError(f"{file} is damaged, or no Parquet file: {error}.", "get it again.") from error


def _field(file: File, field: str, names: list[str]) -> str:
    wanted = field or FIELD
    if wanted in names:
        return wanted
    if not field and len(names) == 1:
        return names[0]
    raise DataError(
        f'{file} has no field "{wanted}": its fields are {", ".join(map(str, names[:12]))}.',
        "say which one has the text: --text-field NAME.",
    )


def _text(file: File, number: int, field: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    raise DataError(
        f'{file}, row {number:,}: its field "{field}" is no text but a {type(value).__name__}.',
        "say which field has the text: --text-field NAME.",
    )


class _Raw(io.RawIOBase):
    """What a buffered reader reads from, of a stream that only has `read`."""

    def __init__(self, stream: Readable):
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Observed:
    """A file that shows what is read of it."""

    def __init__(self, file: Readable, path: Path, observe: Observe):
        self._file, self._path, self._observe = file, path, observe

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if data:
            self._observe(self._path, data)
        return data


class _Zstandard:
    """What a .zst file unpacks to; the package's own reader takes a file that was cut short for a whole one."""

    # A few bytes may unpack to megabytes.
    _FED = 1 << 11

    def __init__(self, file: Readable):
        try:
            import zstandard
        except ModuleNotFoundError as error:
            raise _missing(".zst files", "zstandard") from error
        self._begin = zstandard.ZstdDecompressor().decompressobj
        self._file, self._frame, self._between = file, self._begin(), True
        self._fed = self._ready = b""

    def read(self, size: int) -> bytes:
        while not self._ready:
            self._fed = self._fed or self._file.read(self._FED)
            if not self._fed:
                if not self._between:
                    raise EOFError("it ends before its end")
                return b""
            self._between = False
            self._ready = self._frame.decompress(self._fed)
            self._fed = b""
            if self._frame.eof:
                self._fed, self._frame, self._between = self._frame.unused_data, self._begin(), True
        data, self._ready = self._ready[:size], self._ready[size:]
        return data


class _Unpacked:
    """What is unpacked, counted, so that a bomb is found before it went off."""

    def __init__(self, stream: Readable, file: File, packed: int, observe: Observe | None):
        self._stream, self._file, self._packed, self._observe = stream, file, packed, observe
        self._count = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._count += len(data)
        _check_bomb(self._file.path, self._count, self._packed)
        if self._observe is not None and data:
            self._observe(self._file.path, data)
        return data


def _check_bomb(path: Path, size: int, packed: int) -> None:
    if size > _NO_BOMB and size > _MOST_UNPACKED * packed:
        raise DataError(
            f"{files.shown(path)} is refused: it unpacks to {size / 1e6:,.0f} MB and more, over "
            f"{_MOST_UNPACKED:,} times its {packed:,} bytes.",
            "no text is packed so small; it was made to fill a disk.",
        )


@contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    with files.explained(path, "read"):
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(f"{files.shown(path)} is damaged, or no .zip: {error}.", "get it again.") from error
        with archive:
            yield archive


@contextmanager
def _damage(file: File) -> Iterator[None]:
    try:
        yield
    except MicroformerError:
        raise
    except (zipfile.BadZipFile, lzma.LZMAError, EOFError, gzip.BadGzipFile, NotImplementedError) as error:
        raise DataError(f"{file} is damaged: {error}.", "get it again, or unpack it by hand.") from error
    except Exception as error:
        # zlib and zstandard have errors of their own, which are no subclasses of anything narrower.
        if type(error).__module__.split(".")[0] in ("zlib", "zstandard", "backports"):
            raise DataError(f"{file} is damaged: {error}.", "get it again, or unpack it by hand.") from error
        raise


def _missing(what: str, package: str) -> DataError:
    return DataError(f"{what} need the package {package}.", EXTRA)


def _too_long(file: File, number: int) -> DataError:
    return DataError(
        f"{file}, line {number:,} is longer than {LONGEST_ROW >> 20} MB.",
        "each row is a document; is it JSON lines, with a line a row?",
    )
