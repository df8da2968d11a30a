"""A long text in parts, each done apart: read, then encoded, by as many processes as wanted, and never twice.

    survey   the text is read once; each part of some 16 million characters is counted and hashed
    spans    the parts, cut where train ends and val begins
    encoded  each span's ids in a file of its own

What is done is written down beside the prepared data until the set is whole, so that a preparation that was killed goes
on after the last part. Where parts begin depends on the text alone: the ids are the same however many processes made
them and however often they were interrupted. Knows no torch; each process starts without it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from microformer import files, tokenization
from microformer.corpora.reading import Piece, Place, Text
from microformer.errors import DataError, FileError
from microformer.tokenization import Tokenizer, Unknown
from microformer.tokenization.char import CharTokenizer

# Characters of a part, about: it ends with the piece that reaches so many.
PART = 1 << 24
VOCAB = "vocab.json"
# Stands between documents where text is kept: a byte that UTF-8 never has.
_END = b"\xff"
Observe = Callable[[Path, bytes], None]


@dataclass(frozen=True)
class Part:
    """A stretch of the text, and what was found in it.

    Args:
        start: where it begins.
        after: where the next one does.
        characters, bytes, documents: how many it has; bytes of UTF-8, documents that end in it.
        sha256: of its UTF-8, with a byte 0xFF after each document.
        alphabet: its different characters, where they were asked for.
        first_end, last_end: the characters before the first and the last end of a document in it; -1 where none ends.
        label: the part of a published split (train, val, test) that it is of; "" where the split is ours.
        empty: documents without a character, which were left out.
    """

    start: Place
    after: Place
    characters: int
    bytes: int
    documents: int
    sha256: str
    alphabet: str
    first_end: int
    last_end: int
    label: str
    empty: int

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Part":
        return cls(**{**data, "start": Place(*data["start"]), "after": Place(*data["after"])})


class Span(NamedTuple):
    """Characters of a part that go into one file.

    Args:
        part: which.
        skip: its characters before them.
        characters: how many.
    """

    part: int
    skip: int
    characters: int

    @property
    def name(self) -> str:
        return f"{self.part:05}-{self.skip}"


class Work:
    """What a preparation has done so far, in a folder that is gone when it is finished.

    Args:
        folder: of the prepared data.
        key: what is prepared and how. What is found of another key is thrown away.
    """

    def __init__(self, folder: Path, key: dict[str, Any]):
        self._folder = Path(os.path.abspath(folder / ".preparing"))
        self._key = json.loads(json.dumps({**key, "part": PART}))
        self._begun = False
        if self.path("key.json").exists():
            self._begun = self._known() == self._key
            if not self._begun:
                self.finish()

    def _known(self) -> Any:
        try:
            return self.read("key.json")
        except FileError:
            return None  # no JSON, so none of ours

    def path(self, name: str) -> Path:
        """Where a file of that name goes."""
        return self._folder / name

    def begin(self) -> None:
        """Makes the folder: from here on there is something to go on with."""
        if not self._begun:
            self.finish()
            self._folder.mkdir()
            files.write_json(self._folder / "key.json", self._key)
            self._begun = True

    def has(self, name: str) -> bool:
        return self._begun and self.path(name).exists()

    def read(self, name: str) -> Any:
        return files.read_json(self.path(name))

    def write(self, name: str, value: Any) -> None:
        self.begin()
        files.write_json(self.path(name), value)

    def joined(self, name: str, spans: Sequence[Span], itemsize: int) -> Path:
        """The ids of spans in one file. Killed meanwhile, it goes on where it was: a span's own file is gone once it is
        in."""
        if len(spans) == 1:
            return self.path(f"{spans[0].name}.tokens")
        whole, size = self.path(f"{name}.tokens"), 0
        with files.explained(whole), open(whole, "ab") as file:
            for span in spans:
                own = self.path(f"{span.name}.tokens")
                if own.exists():
                    file.truncate(size)
                    with open(own, "rb") as part:
                        shutil.copyfileobj(part, file, 1 << 22)
                    file.flush()
                    os.fsync(file.fileno())
                    own.unlink()
                size += itemsize * self.read(f"{span.name}.json")["tokens"]
        return whole

    def finish(self) -> None:
        """Forgets what was done."""
        # First the key: a folder without one is rubbish, however much of it is left.
        self.path("key.json").unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._begun = False


@dataclass(frozen=True)
class Limits:
    """Where reading stops: 0 for the end. A row is read whole or not at all, a file to the last character that fits."""

    documents: int = 0
    bytes: int = 0


def survey(text: Text, work: Work, limits: Limits, alphabet: bool, observe: Observe | None = None) -> list[Part]:
    """Reads a text and gives its parts.

    Args:
        work: where parts are written down, once there are two. Text that can't be read from the middle is kept there.
        alphabet: whether the characters of each part are wanted.
        observe: is shown the bytes of each file as they are read.

    Raises:
        DataError, FileError: as `Text.pieces` does.
    """
    parts: list[Part] = []
    while work.has(name := f"{len(parts):05}.part.json"):
        parts.append(Part.from_dict(work.read(name)))
    if work.has("surveyed.json"):
        return parts
    start = parts[-1].after if parts else Place()
    empty = 0

    def left_out() -> None:
        nonlocal empty
        empty += 1

    pieces = _Limited(text.pieces(start, observe, left_out), limits, parts)
    while (piece := next(pieces, None)) is not None:
        part = _Reading(text, start, piece)
        kept = work.path(f"{len(parts):05}.text")
        if text.seekable:
            found = part.read(pieces, alphabet)
        else:
            work.begin()
            with files.atomic_file(kept) as partial, open(partial, "wb") as file:
                found = part.read(pieces, alphabet, file.write)
        found, empty = replace(found, empty=empty), 0
        start = found.after
        parts.append(found)
        if len(parts) == 2:
            work.write("00000.part.json", asdict(parts[0]))
        if len(parts) > 1:
            work.write(f"{len(parts) - 1:05}.part.json", asdict(found))
    if len(parts) > 1:
        work.write("surveyed.json", {"parts": len(parts)})
    return parts


class _Limited:
    """Pieces up to the limits. One can be put back."""

    def __init__(self, pieces: Iterator[Piece], limits: Limits, parts: list[Part]):
        self._pieces, self._limits = pieces, limits
        self._documents, self._bytes = sum(part.documents for part in parts), sum(part.bytes for part in parts)
        self._back: Piece | None = None
        self._ended = False

    def put_back(self, piece: Piece) -> None:
        self._back = piece

    def __iter__(self) -> "_Limited":
        return self

    def __next__(self) -> Piece:
        if self._back is not None:
            piece, self._back = self._back, None
            return piece
        if self._ended:
            raise StopIteration
        piece = next(self._pieces)
        if not (self._limits.bytes or self._limits.documents):
            return piece
        data = in_utf8(piece.text)
        room = self._limits.bytes - self._bytes if self._limits.bytes else len(data)
        full = self._limits.documents > 0 and self._documents == self._limits.documents
        a_row = piece.ends and piece.text
        if full or len(data) > room:
            self._ended = True
            if full or a_row:
                raise StopIteration
            # The last character may not fit whole.
            piece = piece._replace(text=data[:room].decode("utf-8", "ignore"))
        self._bytes += min(room, len(data))
        self._documents += piece.ends
        return piece


class _Reading:
    """A part while it is read."""

    def __init__(self, text: Text, start: Place, first: Piece):
        self._text, self._start, self._first = text, start, first

    def read(self, pieces: _Limited, alphabet: bool, keep: Callable[[bytes], Any] | None = None) -> Part:
        digest, label = hashlib.sha256(), self._label(self._first)
        characters = size = documents = 0
        ends = [-1, -1]
        after = self._start

        def texts() -> Iterator[str]:
            nonlocal characters, size, documents, after
            piece: Piece | None = self._first
            while piece is not None:
                if self._label(piece) != label:
                    pieces.put_back(piece)
                    return
                data = in_utf8(piece.text) + (_END if piece.ends else b"")
                digest.update(data)
                if keep is not None:
                    keep(data)
                characters += len(piece.text)
                size += len(data) - piece.ends
                if piece.ends:
                    documents += 1
                    ends[:] = ends[0] if ends[0] >= 0 else characters, characters
                after = piece.after
                if piece.text:
                    yield piece.text
                piece = next(pieces, None)
                if characters >= PART and piece is not None and (piece.text or not piece.ends):
                    pieces.put_back(piece)  # an end goes with what it ends
                    return

        found = ""
        if alphabet:
            found = _alphabet(texts())
        else:
            for _ in texts():
                pass
        return Part(
            self._start, after, characters, size, documents, digest.hexdigest(), found, ends[0], ends[1], label, 0
        )

    def _label(self, piece: Piece) -> str:
        # After the end of a plain file the next one begins, and the end belongs to what it ends.
        return self._text.files[piece.after.file - (piece.ends and not piece.text)].part


def _alphabet(texts: Iterator[str]) -> str:
    first = next(texts, "")
    if not first:
        return ""

    def all_of_them() -> Iterator[str]:
        yield first
        yield from texts

    return CharTokenizer.train(all_of_them()).alphabet


def read_part(text: Text, work: Work, part: int, found: Part) -> Iterator[Piece]:
    """The pieces of a part, from where they lie."""
    if not text.seekable:
        yield from _kept(work.path(f"{part:05}.text"))
        return
    left = found.characters
    for piece in text.pieces(found.start):
        taken = piece.text[:left]  # the last one may go over a limit
        left -= len(taken)
        yield piece._replace(text=taken)
        if piece.after == found.after:
            break
    text.check_unchanged()


def _kept(path: Path) -> Iterator[Piece]:
    """What a survey kept: a text, or documents with a byte 0xFF after each."""
    with files.explained(path, "read"), open(path, "rb") as file:
        begun = b""
        while block := file.read(1 << 20):
            *ended, begun = (begun + block).split(_END)
            for document in ended:
                yield Piece(document.decode("utf-8"), True, Place())
        if begun:
            yield Piece(begun.decode("utf-8"), False, Place())


def read_span(text: Text, work: Work, found: Part, span: Span) -> Iterator[Piece]:
    """The pieces of a span: its characters, and the ends of documents after each of them."""
    at, stop = 0, span.skip + span.characters
    for piece in read_part(text, work, span.part, found):
        taken = piece.text[max(0, span.skip - at) : max(0, stop - at)]
        at += len(piece.text)
        ends = piece.ends and span.skip < at <= stop
        if taken or ends:
            yield Piece(taken, ends, piece.after)
        if at > stop:
            return
    if at < stop:
        raise changed_meanwhile()


def encode_span(
    text: Text, work: Work, found: Part, span: Span, tokenizer: Tokenizer, unknown: Unknown = "error",
    told: Callable[[int], None] | None = None,
) -> dict[str, int]:  # fmt: skip
    """Writes the ids of a span as they are in memory, without a header, and gives its characters, bytes and tokens.

    Args:
        unknown: what becomes of characters that the tokenizer lacks.
        told: hears of the characters as they are encoded.
    """
    counts = {"characters": 0, "bytes": 0, "tokens": 0}

    def counted() -> Iterator[Piece]:
        for piece in read_span(text, work, found, span):
            counts["characters"] += len(piece.text)
            if told is not None:
                told(len(piece.text))
            counts["bytes"] += len(piece.text) if piece.text.isascii() else len(in_utf8(piece.text))
            yield piece

    with files.atomic_file(work.path(f"{span.name}.tokens")) as partial, open(partial, "wb") as file:
        for ids in tokenizer.encode_documents(((piece.text, piece.ends) for piece in counted()), unknown):
            counts["tokens"] += len(ids)
            file.write(ids.data)
    work.write(f"{span.name}.json", counts)
    return counts


def encode_apart(
    text: Text, work: Work, parts: Sequence[Part], spans: Sequence[Span], tokenizer: Tokenizer, unknown: Unknown,
    workers: int,
) -> Iterator[dict[str, int]]:  # fmt: skip
    """Encodes spans in processes of their own, and gives the counts of each when it is done."""
    from joblib import Parallel, delayed

    vocab = work.path(VOCAB)
    tokenization.save(tokenizer, vocab)
    jobs = (delayed(_encode_in_a_process)(text, work, parts[span.part], span, vocab, unknown) for span in spans)
    yield from Parallel(n_jobs=workers, return_as="generator_unordered")(jobs)  # type: ignore[misc]


def _encode_in_a_process(
    text: Text, work: Work, found: Part, span: Span, vocab: Path, unknown: Unknown
) -> dict[str, int]:
    # The processes share the cores among them, and the library would have each take all.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return encode_span(text, work, found, span, _loaded(vocab, vocab.stat().st_mtime_ns), unknown)


@lru_cache(maxsize=1)
def _loaded(vocab: Path, _: int) -> Tokenizer:
    """The words that were met in one span are known in the next."""
    return tokenization.load(vocab)


def in_utf8(text: str) -> bytes:
    """UTF-8 of a text that a file had.

    Raises:
        DataError: it has half a character.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text has half a character, U+{ord(text[error.start]):04X}, which no text may have.",
            "it was decoded with the wrong encoding: find out the right one and say it with --encoding.",
        ) from error


def changed_meanwhile() -> DataError:
    return DataError("the text changed while it was read.", "wait until it is complete and try again.")


def digest_of(parts: Sequence[Part]) -> str:
    """The SHA-256 of a text: of its UTF-8 where it is one part, else of its parts' one after the other."""
    if len(parts) == 1:
        return parts[0].sha256
    return hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
