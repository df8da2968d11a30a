"""Where a text comes from, and reading it piece by piece: never the whole at once, newlines untouched.

Several files are several documents, and so are the rows of a file that has one a row; a single file is one text
without documents. A byte-order mark at the start of a file is dropped. Knows nothing of tokens.
"""

import codecs
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from microformer import files
from microformer.corpora import hub, named
from microformer.corpora.fetching import NoNetwork, fetch_once
from microformer.corpora.formats import (
    PACKED_SUFFIXES,
    ROW_SUFFIXES,
    TEXT_SUFFIXES,
    File,
    is_text,
    members,
    rows,
    unpacked,
)
from microformer.corpora.named import FALLBACK
from microformer.errors import DataError, SettingsError, notice
from microformer.files import shown
from microformer.tokenization.cutting import cut

STANDARD_INPUT = "-"
# Bytes read at a time: large enough for full speed, small beside the interpreter itself.
_BLOCK = 1 << 22
# Characters of a piece.
_PIECE = 1 << 20
# A text in which as many of the bytes are 0 is no UTF-8.
_MOST_NULS = 0.1
# Bytes that are enough to tell.
_TELLING = 16

ByteProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Source:
    """What to read: files and the like, or a corpus that has a name.

    Args:
        inputs: absolute paths of files and folders, patterns such as `/books/*.txt`, addresses, `hf:…` as in hub.py,
            "-" for standard input; () for a named corpus.
        corpus: the name; "" for files.
        encoding: of the files.
        explicit: whether a user asked for it; otherwise it is what is taken when nothing is asked.
        text_field: which field of a row has the text; "" for `text`, or the only one.
        max_documents, max_bytes: where to stop reading; 0 for the end. A row is read whole or not at all.
    """

    inputs: tuple[str, ...] = ()
    corpus: str = ""
    encoding: str = "utf-8"
    explicit: bool = True
    text_field: str = ""
    max_documents: int = 0
    max_bytes: int = 0

    @classmethod
    def files(
        cls,
        *inputs: str | os.PathLike[str],
        encoding: str = "utf-8",
        explicit: bool = True,
        base: str | os.PathLike[str] = "",
    ) -> "Source":
        """Files, folders, patterns, addresses, or "-": one or several, read in this order.

        Args:
            base: where relative paths begin, if not in the working folder.

        Raises:
            SettingsError: an empty path, such as a shell makes of a variable that is not set.
        """
        spelt = [os.fspath(path) for path in inputs]
        if "" in spelt:
            raise SettingsError("the path of the text is empty.", "name a file or a folder; `.` is the one you are in.")
        absolute = (os.path.abspath(os.path.join(base, path)) if _is_local(path) else path for path in spelt)
        return cls(inputs=tuple(absolute), encoding=encoding, explicit=explicit)

    @classmethod
    def named(cls, corpus: str, explicit: bool = True) -> "Source":
        """A corpus by name. An unknown name is refused when it is read."""
        return cls(corpus=corpus, explicit=explicit)

    @staticmethod
    def is_input(word: str) -> bool:
        """Whether a word in place of a corpus's name is an address or a pattern."""
        return not _is_local(word) or glob.has_magic(word)

    def same_text(self, other: "Source") -> bool:
        """Whether both mean the same text, whoever asked for it."""
        return replace(self, explicit=True) == replace(other, explicit=True)

    @property
    def local(self) -> bool:
        """Whether it can be looked at where it lies: no name, no address, no standard input."""
        return bool(self.inputs) and all(map(_is_local, self.inputs))

    @property
    def again(self) -> bool:
        """Whether it can be read once more, as far as is known without a network."""
        return STANDARD_INPUT not in self.inputs and all(
            not _is_local(path) or os.path.exists(path) or _matches(path) for path in self.inputs
        )

    def __str__(self) -> str:
        if self.corpus:
            return self.corpus
        return ", ".join(
            "standard input" if path == STANDARD_INPUT else shown(path) if _is_local(path) else path
            for path in self.inputs
        )

    def to_dict(self, base: Path) -> dict[str, Any]:
        """For JSON. What lies under `base` is written relative to it, so that the folder can be moved."""
        root = os.path.join(os.path.abspath(base), "")
        return {**asdict(self), "inputs": [path.removeprefix(root) for path in self.inputs]}

    @classmethod
    def from_dict(cls, data: dict[str, Any], base: Path) -> "Source":
        """The opposite of `to_dict`."""
        root = os.path.abspath(base)
        inputs = (os.path.join(root, path) if _is_local(path) else path for path in data["inputs"])
        return cls(**{**data, "inputs": tuple(inputs)})


class Place(NamedTuple):
    """Where reading can be taken up.

    Args:
        file: which of the text's files.
        offset: bytes of it, where they can be skipped unread.
        skip: characters to leave out from there; of a file with a document a row, rows.
    """

    file: int = 0
    offset: int = 0
    skip: int = 0


class Piece(NamedTuple):
    """A part of one document.

    Args:
        text: up to a million characters; of a document a row, all of it.
        ends: whether a document ends after it.
        after: where the next one begins.
    """

    text: str
    ends: bool
    after: Place


@dataclass(frozen=True)
class Text:
    """Files that are there, to be read as one text, as often as wanted.

    Args:
        files: in the order of reading.
        encoding: of all of them.
        corpus: the name of the corpus that they are; "" for a user's own.
        kept: whether they are still there afterwards, as standard input isn't.
        text_field: which field of a row is read.
        split: sizes in bytes of the parts train, val and test, where the corpus has a convention of its own.
    """

    files: tuple[File, ...]
    encoding: str = "utf-8"
    corpus: str = ""
    kept: bool = True
    text_field: str = ""
    split: tuple[int, ...] = ()
    stats: tuple[os.stat_result, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self):
        _check_encoding(self.encoding)
        object.__setattr__(self, "stats", tuple(_stat(path) for path in self.paths))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Of the files, each once."""
        return tuple(dict.fromkeys(file.path for file in self.files))

    @property
    def size(self) -> int:
        """The size of the files, in bytes."""
        return sum(stat.st_size for stat in self.stats)

    @property
    def documents(self) -> bool:
        """Whether it is made of documents."""
        return len(self.files) > 1 or any(file.rows for file in self.files)

    @property
    def seekable(self) -> bool:
        """Whether reading can be taken up anywhere without reading what comes before."""
        return codecs.lookup(self.encoding).name == "utf-8" and not any(file.packed or file.rows for file in self.files)

    def pieces(
        self,
        start: Place = Place(),  # noqa: B008 (it is immutable)
        observe: Callable[[Path, bytes], None] | None = None,
        empty: Callable[[], None] | None = None,
    ) -> Iterator[Piece]:
        """The text from a place on. Documents without a character are left out.

        Args:
            start: an `after` of a piece.
            observe: is shown the bytes of each file as they are read.
            empty: is told of each document that is left out.

        Raises:
            FileError: a file can't be read.
            DataError: a file is not in the encoding, not of its format, or another since this object was made.
        """
        begun = start.offset > 0 or start.skip > 0
        for index in range(start.file, len(self.files)):
            place = start if index == start.file else Place(index)
            file = self.files[index]
            for piece in self._rows(file, place, observe) if file.rows else self._plain(file, place, observe):
                if piece.ends and not piece.text and not begun:
                    if empty is not None:
                        empty()
                    continue
                begun = not piece.ends
                yield piece
            self.check_unchanged()

    def check_unchanged(self) -> None:
        """Raises DataError where a file is another since this object was made."""
        for path, stat in zip(self.paths, self.stats, strict=True):
            if (stat.st_size, stat.st_mtime_ns) != ((now := _stat(path)).st_size, now.st_mtime_ns):
                raise DataError(f"{shown(path)} changed while it was read.", "wait until it is complete and try again.")

    def _plain(self, file: File, place: Place, observe: Callable[[Path, bytes], None] | None) -> Iterator[Piece]:
        by_bytes = not file.packed and codecs.lookup(self.encoding).name == "utf-8"
        if by_bytes and place.offset == 0:
            with files.explained(file.path, "read"), open(file.path, "rb") as opened_file:
                marked = opened_file.read(3) == codecs.BOM_UTF8
            place = place._replace(offset=3 if marked else 0)
        for text in cut(self._decoded(file, place, observe), _PIECE):
            size = (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))) if by_bytes else 0
            place = Place(place.file, place.offset + size, 0 if by_bytes else place.skip + len(text))
            yield Piece(text, False, place)
        if self.documents:
            yield Piece("", True, Place(place.file + 1))

    def _decoded(self, file: File, place: Place, observe: Callable[[Path, bytes], None] | None) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self.encoding)()
        position, skip = place.offset, place.skip
        at_start = position == 0
        with files.explained(file.path, "read"), unpacked(file, observe, position) as stream:
            while True:
                block = stream.read(_BLOCK)
                if position == place.offset == 0:
                    self._check_nuls(file, block)
                position += len(block)
                try:
                    chunk = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    # What the decoder was given ends where we are, whatever it had kept from the block before.
                    raise self._misread(file, error, position - len(error.object) + error.start) from error
                if at_start and chunk:
                    at_start = False
                    chunk = chunk.removeprefix("\ufeff")
                if skip:
                    skip, chunk = max(0, skip - len(chunk)), chunk[skip:]
                if chunk:
                    yield chunk
                if not block:
                    return

    def _rows(self, file: File, place: Place, observe: Callable[[Path, bytes], None] | None) -> Iterator[Piece]:
        for number, text in enumerate(rows(file, self.text_field, self.encoding, observe), 1):
            if number > place.skip:
                yield Piece(text, True, Place(place.file, 0, number))

    def _check_nuls(self, file: File, block: bytes) -> None:
        """UTF-16 without a mark, and what is no text at all, decodes as UTF-8 without an error."""
        few = len(block) < _TELLING
        if few or codecs.lookup(self.encoding).name != "utf-8" or not (nuls := block.count(0)):
            return
        if nuls > _MOST_NULS * len(block):
            order = "le" if block[1::2].count(0) > block[::2].count(0) else "be"
            raise DataError(
                f"{file} is no UTF-8 text: {nuls / len(block):.0%} of its bytes are 0, the first at offset "
                f"{block.index(0)}.",
                f"if it is UTF-16, say so: --encoding utf-16-{order}.",
            )
        notice(f"{file} has {nuls:,} NUL characters in its first {len(block):,} bytes: is it text? They are kept.")

    def _misread(self, file: File, error: UnicodeDecodeError, offset: int) -> DataError:
        with unpacked(file) as stream:
            likely = "utf-16" if stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "latin-1"
        name = "UTF-8" if codecs.lookup(self.encoding).name == "utf-8" else self.encoding
        hint = "if it is in another encoding, say so" if self.encoding != likely else "find out its encoding and say it"
        example = f": --encoding {likely}." if self.encoding != likely else ", with --encoding."
        return DataError(
            f"{file} is not {name}: byte 0x{error.object[error.start]:02X} at offset {offset}.", hint + example
        )


@contextmanager
def opened(source: Source, progress: ByteProgress | None = None) -> Iterator[Text]:
    """Finds the files of a source, fetching what has to be; standard input is kept in a temporary file until leaving.

    A named corpus that nobody asked for, and that can't be fetched for want of a network, is replaced by `pydocs`,
    with one line of notice. Nothing else is ever replaced.

    Args:
        source: what to read.
        progress: told the bytes that came and those expected, where something is fetched.

    Raises:
        SettingsError: an unknown corpus or encoding.
        DataError: a file is missing, a folder has no text, something can't be fetched.
    """
    limits = (source.max_documents, source.max_bytes)
    if source.corpus:
        corpus = source.corpus
        try:
            found = named.find(corpus, progress, *limits)
        except NoNetwork as error:
            if source.explicit or corpus == FALLBACK:
                error.hint = f"check the network, or use what needs none: --corpus {FALLBACK}, or a file of your own."
                raise
            notice(
                f"no network to fetch {corpus} with, so {FALLBACK} is used: Python's own documentation. "
                f"Switch later with `microformer prepare --corpus {corpus}`."
            )
            corpus, found = FALLBACK, named.find(FALLBACK)
        split = () if any(limits) else named.named(corpus).split
        yield Text(tuple(found), corpus=corpus, split=split)
        return
    with ExitStack() as stack:
        found = []
        for path in source.inputs:
            if path == STANDARD_INPUT:
                if sum(one.path.name == "standard input" for one in found):
                    raise SettingsError("standard input is named twice.", "give `-` once.")
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="microformer-"))
                found.append(_standard_input(Path(folder)))
            elif path.startswith(hub.PREFIX):
                found += hub.fetched(path, *limits, progress)
            elif not _is_local(path):
                found += _files(fetch_once(path, progress))
            else:
                found += _files(Path(path))
        yield Text(
            tuple(found), source.encoding, kept=STANDARD_INPUT not in source.inputs, text_field=source.text_field
        )


def expanded(source: Source) -> tuple[Path, ...]:
    """The files that a source of local files means now, each once: folders and patterns replaced by what they hold.

    Raises:
        DataError: one is missing, or a folder has no text.
    """
    return tuple(dict.fromkeys(file.path for path in source.inputs for file in _files(Path(path))))


def _files(path: Path) -> list[File]:
    if path.is_dir():
        beneath = sorted(_texts_beneath(path), key=lambda file: file.relative_to(path).parts)
        if not beneath:
            raise DataError(
                f"the folder {shown(path)} has no text: no file beneath it ends in "
                f"{', '.join((*TEXT_SUFFIXES, *ROW_SUFFIXES))}, also with {', '.join(PACKED_SUFFIXES)}, or in .zip.",
                "name the files themselves, or another folder.",
            )
        return [file for found in beneath for file in _files(found)]
    if path.exists():
        return [File(path, member) for member in members(path)] if path.suffix.lower() == ".zip" else [File(path)]
    if matches := _matches(str(path)):
        return [file for found in matches for file in _files(Path(found))]
    if glob.has_magic(str(path)):
        raise DataError(
            f"no file matches {shown(path)}.", f"relative paths start at {Path.cwd()}; ** goes into folders."
        )
    raise DataError(f"there is no file {shown(path)}.", f"check the spelling; relative paths start at {Path.cwd()}.")


def _matches(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else []


def _is_local(path: str) -> bool:
    return path != STANDARD_INPUT and not path.startswith((hub.PREFIX, "http://", "https://"))


def _standard_input(folder: Path) -> File:
    path = folder / "standard input"
    with files.explained(path), open(path, "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, _BLOCK)
    return File(path)


def _texts_beneath(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if (is_text(path.name) or path.suffix.lower() == ".zip") and path.is_file() and not hidden:
            yield path


def _check_encoding(encoding: str) -> None:
    try:
        # Not empty: Python doesn't look at what it has nothing to decode with.
        b"a".decode(encoding, "ignore")
        codecs.getincrementaldecoder(encoding)
    except (LookupError, UnicodeError) as error:
        raise SettingsError(
            f'there is no text encoding "{encoding}".', "common ones are utf-8, utf-16, latin-1, cp1252 and gb18030."
        ) from error


def _stat(path: Path) -> os.stat_result:
    with files.explained(path, "read"):
        return path.stat()
