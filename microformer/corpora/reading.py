"""Where a text comes from, and reading it in chunks: never the whole at once, newlines untouched.

A byte-order mark at the start of a file is dropped. Between two files a newline is put where the first doesn't end
with one. Knows nothing of tokens.
"""

import codecs
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from microformer import files
from microformer.corpora.fetching import NoNetwork
from microformer.corpora.named import FALLBACK, find
from microformer.errors import DataError, SettingsError, notice

STANDARD_INPUT = "-"
TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
# Bytes read at a time: large enough for full speed, small beside the interpreter itself.
_BLOCK = 1 << 22

ByteProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Source:
    """What to read: files, or a corpus that has a name.

    Args:
        inputs: absolute paths of files and folders, or "-" for standard input; () for a named corpus.
        corpus: the name; "" for files.
        encoding: of the files.
        explicit: whether a user asked for it; otherwise it is what is taken when nothing is asked.
    """

    inputs: tuple[str, ...] = ()
    corpus: str = ""
    encoding: str = "utf-8"
    explicit: bool = True

    @classmethod
    def files(cls, *inputs: str | os.PathLike[str], encoding: str = "utf-8", explicit: bool = True) -> "Source":
        """Files, folders, or "-": one or several, read in this order.

        Raises:
            SettingsError: an empty path, such as a shell makes of a variable that is not set.
        """
        spelt = [os.fspath(path) for path in inputs]
        if "" in spelt:
            raise SettingsError("the path of the text is empty.", "name a file or a folder; `.` is the one you are in.")
        absolute = (path if path == STANDARD_INPUT else os.path.abspath(path) for path in spelt)
        return cls(inputs=tuple(absolute), encoding=encoding, explicit=explicit)

    @classmethod
    def named(cls, corpus: str, explicit: bool = True) -> "Source":
        """A corpus by name. An unknown name is refused when it is read."""
        return cls(corpus=corpus, explicit=explicit)

    def same_text(self, other: "Source") -> bool:
        """Whether both mean the same text, whoever asked for it."""
        return (self.inputs, self.corpus, self.encoding) == (other.inputs, other.corpus, other.encoding)

    def __str__(self) -> str:
        if self.corpus:
            return self.corpus
        return ", ".join("standard input" if path == STANDARD_INPUT else shown(path) for path in self.inputs)

    def to_dict(self, base: Path) -> dict[str, Any]:
        """For JSON. What lies under `base` is written relative to it, so that the folder can be moved."""
        root = os.path.join(os.path.abspath(base), "")
        return {**asdict(self), "inputs": [path.removeprefix(root) for path in self.inputs]}

    @classmethod
    def from_dict(cls, data: dict[str, Any], base: Path) -> "Source":
        """The opposite of `to_dict`."""
        root = os.path.abspath(base)
        inputs = (path if path == STANDARD_INPUT else os.path.join(root, path) for path in data["inputs"])
        return cls(**{**data, "inputs": tuple(inputs)})


@dataclass(frozen=True)
class Text:
    """Files that are there, to be read as one text, as often as wanted.

    Args:
        paths: in the order of reading.
        encoding: of all of them.
        corpus: the name of the corpus that they are; "" for a user's own.
        kept: whether they are still there afterwards, as standard input isn't.
    """

    paths: tuple[Path, ...]
    encoding: str = "utf-8"
    corpus: str = ""
    kept: bool = True
    stats: tuple[os.stat_result, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self):
        _check_encoding(self.encoding)
        object.__setattr__(self, "stats", tuple(_stat(path) for path in self.paths))

    @property
    def size(self) -> int:
        """The size of the files, in bytes."""
        return sum(stat.st_size for stat in self.stats)

    def chunks(self, observe: Callable[[Path, bytes], None] | None = None) -> Iterator[str]:
        """The text, in parts of a few million characters.

        Args:
            observe: is shown the bytes of each file as they are read.

        Raises:
            FileError: a file can't be read.
            DataError: a file is not in the encoding, or is another since this object was made.
        """
        ends_line = True
        for path, stat in zip(self.paths, self.stats, strict=True):
            begun = False
            for chunk in self._decoded(path, observe):
                if not begun and not ends_line:
                    yield "\n"
                begun = True
                ends_line = chunk.endswith("\n")
                yield chunk
            if (stat.st_size, stat.st_mtime_ns) != ((now := _stat(path)).st_size, now.st_mtime_ns):
                raise DataError(f"{shown(path)} changed while it was read.", "wait until it is complete and try again.")

    def _decoded(self, path: Path, observe: Callable[[Path, bytes], None] | None) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self.encoding)()
        position = 0
        at_start = True
        with files.explained(path, "read"), open(path, "rb", buffering=0) as file:
            while True:
                block = file.read(_BLOCK)
                position += len(block)
                if observe is not None and block:
                    observe(path, block)
                try:
                    chunk = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    # What the decoder was given ends where we are, whatever it had kept from the block before.
                    raise self._misread(path, error, position - len(error.object) + error.start) from error
                if at_start and chunk:
                    at_start = False
                    chunk = chunk.removeprefix("\ufeff")
                if chunk:
                    yield chunk
                if not block:
                    return

    def _misread(self, path: Path, error: UnicodeDecodeError, offset: int) -> DataError:
        with open(path, "rb") as file:
            likely = "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "latin-1"
        name = "UTF-8" if codecs.lookup(self.encoding).name == "utf-8" else self.encoding
        hint = "if it is in another encoding, say so" if self.encoding != likely else "find out its encoding and say it"
        example = f": --encoding {likely}." if self.encoding != likely else ", with --encoding."
        return DataError(
            f"{shown(path)} is not {name}: byte 0x{error.object[error.start]:02X} at offset {offset}.", hint + example
        )


@contextmanager
def opened(source: Source, progress: ByteProgress | None = None) -> Iterator[Text]:
    """Finds the files of a source; standard input is kept in a temporary file until leaving.

    A named corpus that nobody asked for, and that can't be fetched for want of a network, is replaced by `pydocs`,
    with one line of notice. Nothing else is ever replaced.

    Args:
        source: what to read.
        progress: told the bytes that came and those expected, where something is fetched.

    Raises:
        SettingsError: an unknown corpus or encoding.
        DataError: a file is missing, a folder has no text, a named corpus can't be fetched.
    """
    if source.corpus:
        corpus = source.corpus
        try:
            path = find(corpus, progress)
        except NoNetwork as error:
            if source.explicit or corpus == FALLBACK:
                error.hint = f"check the network, or use what needs none: --corpus {FALLBACK}, or a file of your own."
                raise
            notice(
                f"no network to fetch {corpus} with, so {FALLBACK} is used: Python's own documentation. "
                f"Switch later with `microformer prepare --corpus {corpus}`."
            )
            corpus, path = FALLBACK, find(FALLBACK)
        yield Text((path,), corpus=corpus)
    elif STANDARD_INPUT in source.inputs:
        if source.inputs != (STANDARD_INPUT,):
            raise SettingsError("standard input can't be mixed with files.", "give either `-` or paths to --input.")
        with tempfile.TemporaryDirectory(prefix="microformer-") as folder:
            path = Path(folder) / "standard input"
            with files.explained(path), open(path, "wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file, _BLOCK)
            yield Text((path,), source.encoding, kept=False)
    else:
        yield Text(expanded(source), source.encoding)


def expanded(source: Source) -> tuple[Path, ...]:
    """The files that a source of files means now, folders replaced by the text files beneath them, sorted by name.

    Raises:
        DataError: one is missing, or a folder has no text.
    """
    found: list[Path] = []
    for path in map(Path, source.inputs):
        if path.is_dir():
            beneath = sorted(_texts_beneath(path), key=lambda file: file.relative_to(path).parts)
            if not beneath:
                raise DataError(
                    f"the folder {shown(path)} has no text: no file beneath it ends in {', '.join(TEXT_SUFFIXES)}.",
                    "name the files themselves, or another folder.",
                )
            found += beneath
        elif path.exists():
            found.append(path)
        else:
            raise DataError(
                f"there is no file {shown(path)}.", f"check the spelling; relative paths start at {Path.cwd()}."
            )
    return tuple(found)


def shown(path: str | Path) -> str:
    """A path as a user would write it: relative where it lies under the working folder."""
    path = Path(path)
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):
        return str(path)


def _texts_beneath(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in TEXT_SUFFIXES and path.is_file() and not hidden:
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
