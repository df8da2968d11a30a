"""From a text to prepared data, in two passes over chunks: the text is never held in memory, however long it is.

The first pass counts, hashes and finds the vocabulary; the second encodes. Whatever instant it is stopped at, the
folder holds the old set whole, the new set whole, or what is recognised as unfinished.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from filelock import FileLock, Timeout
from jaxtyping import Integer
from torch import Tensor

from microformer import files, tokenization
from microformer.corpora import tasks
from microformer.corpora.prepared import (
    FORMAT,
    MANIFEST,
    TRAIN,
    VAL,
    VOCAB,
    Prepared,
    load_prepared,
    read_manifest,
    torch_dtype,
)
from microformer.corpora.reading import STANDARD_INPUT, Source, Text, expanded, opened, shown
from microformer.errors import DataError, MicroformerError, SettingsError, nearest, notice
from microformer.tokenization import KINDS, LEARNED, Tokenizer
from microformer.tokenization.char import CharTokenizer

CORPUS_FILE = "corpus.txt"
# Below this there is nothing to learn, and the last tenth is no validation. A corpus of 5 KB is fine.
FEWEST_CHARACTERS = 100

# stage ("fetching", "reading", "encoding"), bytes done, bytes in all (0 if unknown)
Progress = Callable[[str, int, int], None]


def prepare(
    folder: str | Path,
    source: Source,
    *,
    tokenizer: str = "char",
    vocab_size: int | None = None,
    val_fraction: float = 0.1,
    progress: Progress | None = None,
) -> Prepared:
    """Reads a text, finds its vocabulary, and writes its tokens, the last part of the text as validation.

    The split is by characters: of n, validation has n − floor(n · (1 − val_fraction)). The two parts are encoded apart.

    Args:
        folder: where the set goes; it replaces the one that is there.
        source: what to read.
        tokenizer: one of `tokenization.KINDS`, or a path. What has to be learned is learned from the training part.
        vocab_size: for tokenizers that can choose; None lets the text decide.
        val_fraction: from 0, which makes no validation part, to below 1.
        progress: told the stage, the bytes done and the bytes in all.

    Raises:
        SettingsError: a tokenizer, size, fraction, encoding or corpus that there is not.
        DataError: a text that is missing, empty, too short or in another encoding; see also `named.find`.
        FileError: a file that can't be read or written; what was there before is untouched or recognised as unfinished.
    """
    folder = Path(folder)
    settings = _settings(tokenizer, vocab_size, val_fraction)
    with _locked(folder):
        return _prepare(folder, source, settings, progress)


def ensure_prepared(
    folder: str | Path,
    *,
    explicit: Source | None,
    default_corpus: str,
    tokenizer: str = "char",
    vocab_size: int | None = None,
    val_fraction: float = 0.1,
    progress: Progress | None = None,
) -> Prepared:
    """The prepared data in `folder`, made first if there is none or if it is not what is asked for now.

    Says in one line of notice that it prepares, and why. Arguments as for `why_prepare`, errors as for `prepare` and
    `load_prepared`: damaged data is an error, and is not replaced unasked.
    """
    folder = Path(folder)
    settings = _settings(tokenizer, vocab_size, val_fraction)
    if _decide(folder, explicit, default_corpus, settings)[1] is not None:
        with _locked(folder):
            # Another process may have done it while this one waited.
            source, reason = _decide(folder, explicit, default_corpus, settings)
            if reason is not None:
                if read_manifest(folder) is not None and source.inputs == (STANDARD_INPUT,) and explicit is None:
                    raise DataError(
                        f"{reason}, but its text came from standard input and can't be read again.",
                        "pipe it in once more: microformer prepare --input -.",
                    )
                notice(f"preparing {source}: {reason}.")
                return _prepare(folder, source, settings, progress)
    return load_prepared(folder)


def why_prepare(
    folder: str | Path,
    *,
    explicit: Source | None,
    default_corpus: str,
    tokenizer: str = "char",
    vocab_size: int | None = None,
    val_fraction: float = 0.1,
) -> str | None:
    """Why the set in `folder` is not the one that is asked for, in a few words; None if it is.

    Looks at names, sizes, times and, where those leave doubt, hashes; it doesn't open the tensors.

    Args:
        folder: of the prepared data.
        explicit: the corpus that a flag or the config names; None if neither does. Then a corpus that was once asked
            for stays, as long as it is unchanged or gone; without such it is `corpus.txt` in the folder, else the
            default.
        default_corpus: the named corpus to take when nothing else is there.
        tokenizer, vocab_size, val_fraction: as for `prepare`.
    """
    return _decide(Path(folder), explicit, default_corpus, _settings(tokenizer, vocab_size, val_fraction))[1]


def choose_source(folder: str | Path, explicit: Source | None, default_corpus: str) -> Source:
    """What `microformer prepare` reads: what is asked for, else `corpus.txt` in the folder, else what the prepared set
    there was made from on request, else the default."""
    folder = Path(folder)
    if explicit is not None:
        return explicit
    source = _unasked(folder, default_corpus)
    manifest = read_manifest(folder)
    if source.corpus and manifest is not None:
        remembered = Source.from_dict(manifest["source"], folder)
        if remembered.explicit and remembered.inputs != (STANDARD_INPUT,):
            return remembered
    return source


def _settings(tokenizer: str, vocab_size: int | None, val_fraction: float) -> dict[str, Any]:
    if tokenizer not in KINDS and not files.is_path(tokenizer):
        meant = nearest(tokenizer, KINDS)
        known = f"the kinds are {', '.join(KINDS)}."
        raise SettingsError(
            f'there is no tokenizer "{tokenizer}".', f'did you mean "{meant}"? {known}' if meant else known
        )
    if not 0 <= val_fraction < 1:
        raise SettingsError(
            f"VAL_FRACTION {val_fraction} is no part of a text that leaves something to train on.",
            "use a number from 0 (no validation) to below 1, such as 0.1.",
        )
    return {"tokenizer": tokenizer, "vocab_size": vocab_size, "val_fraction": val_fraction}


def _unasked(folder: Path, default_corpus: str) -> Source:
    corpus_file = folder / CORPUS_FILE
    if corpus_file.exists():
        return Source.files(corpus_file, explicit=False)
    return Source.named(default_corpus, explicit=False)


def _decide(
    folder: Path, explicit: Source | None, default_corpus: str, settings: dict[str, Any]
) -> tuple[Source, str | None]:
    """The source that holds now, and why it has to be prepared, if it has to."""
    unasked = _unasked(folder, default_corpus)
    manifest = read_manifest(folder)
    if manifest is None:
        unfinished = "the last preparation was not finished" if (folder / TRAIN).exists() else "no prepared data yet"
        return explicit or _interrupted(folder) or unasked, unfinished
    remembered = Source.from_dict(manifest["source"], folder)
    if explicit is not None:
        if explicit.inputs == (STANDARD_INPUT,):
            return explicit, "standard input is read anew"
        fell_back = explicit.corpus != "" and manifest["corpus"] != explicit.corpus
        if not explicit.same_text(remembered) or fell_back:
            return explicit, "another corpus was asked for"
        source = explicit
    elif remembered.explicit or remembered.inputs == unasked.inputs:
        source = remembered
    elif unasked.inputs:
        return unasked, f"{shown(folder / CORPUS_FILE)} is there now"
    elif remembered.corpus and remembered.corpus != unasked.corpus:
        return unasked, "another corpus was asked for"
    else:
        source = remembered
    if not (folder / TRAIN).exists():
        # Of a text that can't be read again nothing is left: then it is as if nothing had been prepared.
        again = explicit is not None or source.corpus or all(os.path.exists(path) for path in source.inputs)
        return source if again else unasked, f"{shown(folder / TRAIN)} is missing"
    return source, _changed_settings(manifest["settings"], settings) or _changed_files(manifest, source)


def _interrupted(folder: Path) -> Source | None:
    """What a preparation that was stopped was asked for, if it was and can be read again."""
    try:
        source = Source.from_dict(files.read_json(folder / MANIFEST)["source"], folder)
    except (MicroformerError, KeyError, TypeError):  # there is no such file, or another program's
        return None
    again = source.corpus or (source.inputs and all(os.path.exists(path) for path in source.inputs))
    return source if source.explicit and again else None


def _changed_settings(then: dict[str, Any], now: dict[str, Any]) -> str | None:
    for name, spelt in (("tokenizer", "TOKENIZER"), ("vocab_size", "VOCAB_SIZE"), ("val_fraction", "VAL_FRACTION")):
        if name == "vocab_size" and now["tokenizer"] not in LEARNED:
            continue
        if then[name] != now[name]:
            old, new = ("left alone" if value is None else value for value in (then[name], now[name]))
            return f"{spelt} was {old} when it was last prepared and is {new} now"
    return None


def _changed_files(manifest: dict[str, Any], source: Source) -> str | None:
    # What was deleted since stays as it was prepared: nothing else is known of it.
    if source.corpus or not all(os.path.exists(path) for path in source.inputs):
        return None
    then = manifest["read"]
    now = expanded(source)
    if len(then) != len(now) or any(Path(old["path"]).name != new.name for old, new in zip(then, now, strict=True)):
        return f"{source} holds other files than when it was last prepared"
    for old, new in zip(then, now, strict=True):
        stat = new.stat()
        if stat.st_size == old["bytes"] and (stat.st_mtime_ns == old["mtime_ns"] or files.sha256(new) == old["sha256"]):
            continue
        return f"{shown(new)} changed since it was last prepared"
    return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            notice(f"another preparation is at work in {shown(folder)}; waiting for it.")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _prepare(folder: Path, source: Source, settings: dict[str, Any], progress: Progress | None) -> Prepared:
    began = time.perf_counter()
    files.sweep(folder)

    def fetching(done: int, total: int) -> None:
        if progress is not None:
            progress("fetching", done, total)

    with opened(source, fetching) as text:
        survey = _Survey(text, progress)
        task = tasks.find(text.corpus)
        if task is not None:
            _check_task(task, settings)
        tokenizer, train_characters = _vocabulary(text, survey, source, settings)
        parts = {TRAIN: train_characters, VAL: survey.characters - train_characters}
        counts: dict[str, dict[str, int]] = {}
        records: dict[str, dict[str, Any]] = {}
        with ExitStack() as stack:
            rest = _Rest(text.chunks(_observer(progress, "encoding", text.size)))
            for name, characters in parts.items():
                if characters:
                    raw = folder / f"{name}.tokens.{os.getpid()}.partial"
                    stack.callback(raw.unlink, missing_ok=True)
                    counts[name] = _encode(tokenizer, rest, characters, raw)
                    partial = stack.enter_context(files.atomic_file(folder / name))
                    records[name] = _write(raw, counts[name]["tokens"], tokenizer, partial)
            rest.must_be_empty()
            # From here until the manifest is written anew, the set is seen to be unfinished.
            marker = {"format": FORMAT, "unfinished": True, "source": source.to_dict(folder)}
            files.write_json(folder / MANIFEST, marker)
    tokenization.save(tokenizer, folder / VOCAB)
    records[VOCAB] = {"bytes": (folder / VOCAB).stat().st_size, "sha256": files.sha256(folder / VOCAB)}
    if VAL not in counts:
        with files.explained(folder / VAL, "remove"):
            (folder / VAL).unlink(missing_ok=True)
    for name in records:
        records[name]["mtime_ns"] = (folder / name).stat().st_mtime_ns
    content = [FORMAT, survey.sha256, tokenizer.to_dict(), train_characters]
    files.write_json(
        folder / MANIFEST,
        {
            "format": FORMAT,
            "fingerprint": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
            "source": source.to_dict(folder),
            "corpus": text.corpus,
            "read": survey.read if text.kept else [],
            "settings": settings,
            "task": {"example": task.example, "answer": task.answer, "entropy": task.entropy} if task else None,
            "text": {"characters": survey.characters, "bytes": survey.bytes, "sha256": survey.sha256},
            "vocab_size": tokenizer.vocab_size,
            "train": counts[TRAIN],
            "val": counts.get(VAL),
            "files": records,
            "seconds": round(time.perf_counter() - began, 3),
        },
    )
    return load_prepared(folder)


def _check_task(task: tasks.Task, settings: dict[str, Any]) -> None:
    if settings["tokenizer"] in LEARNED:
        raise SettingsError(
            f"{task.name} counts its answers in characters, and TOKENIZER {settings['tokenizer']!r} joins them.",
            "use TOKENIZER = 'char' or 'byte'.",
        )
    if settings["val_fraction"] != tasks.HELD_OUT:
        raise SettingsError(
            f"{task.name} holds out {tasks.HELD_OUT:g} of its examples, whatever else VAL_FRACTION says.",
            f"leave VAL_FRACTION at {tasks.HELD_OUT:g}.",
        )


class _Survey:
    """Reads a text once, passing it on; afterwards knows its size and hashes.

    `bytes` and `sha256` are those of the text in UTF-8, whatever encoding its files have.
    """

    def __init__(self, text: Text, progress: Progress | None):
        self.characters = 0
        self.bytes = 0
        self._text = text
        self._digest = hashlib.sha256()
        self._digests = {path: hashlib.sha256() for path in text.paths}
        self._observe = _observer(progress, "reading", text.size)

    def chunks(self) -> Iterator[str]:
        for chunk in self._text.chunks(self._observe_and_hash):
            self.characters += len(chunk)
            data = _in_utf8(chunk)
            self.bytes += len(data)
            self._digest.update(data)
            yield chunk

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def read(self) -> list[dict[str, Any]]:
        return [
            {
                "path": str(path),
                "bytes": stat.st_size,
                "mtime_ns": stat.st_mtime_ns,
                "sha256": self._digests[path].hexdigest(),
            }
            for path, stat in zip(self._text.paths, self._text.stats, strict=True)
        ]

    def _observe_and_hash(self, path: Path, block: bytes) -> None:
        self._digests[path].update(block)
        self._observe(path, block)


class _Rest:
    """What of a text has not been taken yet."""

    def __init__(self, chunks: Iterator[str]):
        self._chunks = chunks
        self._begun = ""
        self.bytes = 0

    def take(self, characters: int) -> Iterator[str]:
        """The next so many characters, in chunks. Counts their bytes in UTF-8."""
        self.bytes = 0
        while characters:
            chunk = self._begun or next(self._chunks, "")
            if not chunk:
                raise _changed_meanwhile()
            part, self._begun = chunk[:characters], chunk[characters:]
            characters -= len(part)
            self.bytes += len(part) if part.isascii() else len(_in_utf8(part))
            yield part

    def must_be_empty(self) -> None:
        if self._begun or next(self._chunks, ""):
            raise _changed_meanwhile()


def _vocabulary(text: Text, survey: _Survey, source: Source, settings: dict[str, Any]) -> tuple[Tokenizer, int]:
    """Surveys the text. Gives the tokenizer, and how many characters the training part has."""
    kind = settings["tokenizer"]
    if text.size == 0:
        raise DataError(f"{source} is empty.", "put the text to learn from into it, or name another.")
    whole = survey.chunks()
    # Of what is learned in characters the alphabet is the whole text's, or validation could not be encoded.
    tokenizer = None if kind == "bpe" else tokenization.train("char" if kind in LEARNED else kind, whole)
    for _ in whole:
        pass  # what the tokenizer had no need to see is counted all the same
    if survey.characters < FEWEST_CHARACTERS:
        raise DataError(
            f"{source} is too short: it has {survey.characters} characters, and {FEWEST_CHARACTERS} are the least.",
            "a few thousand characters are enough to see a model learn, a million to see it write.",
        )
    # Exact, where a product of floats could miss a whole number by a hair.
    train_characters = int(survey.characters * (1 - Fraction(str(settings["val_fraction"]))))
    if train_characters == 0:
        raise SettingsError(
            f"VAL_FRACTION {settings['val_fraction']} leaves none of {survey.characters} characters to train on.",
            "use less, such as 0.1.",
        )
    if kind in LEARNED:
        training_part = _Rest(text.chunks()).take(train_characters)
        alphabet = tokenizer.alphabet if isinstance(tokenizer, CharTokenizer) else ""
        tokenizer = tokenization.train(kind, training_part, settings["vocab_size"], alphabet)
    assert tokenizer is not None
    return tokenizer, train_characters


def _encode(tokenizer: Tokenizer, rest: _Rest, characters: int, raw: Path) -> dict[str, int]:
    """Writes the ids of the next characters as they are in memory, without a header."""
    tokens = 0
    with files.explained(raw), open(raw, "wb") as file:
        for ids in tokenizer.encode_chunks(rest.take(characters)):
            tokens += len(ids)
            file.write(ids.data)
    return {"characters": characters, "bytes": rest.bytes, "tokens": tokens}


def _write(raw: Path, tokens: int, tokenizer: Tokenizer, partial: Path) -> dict[str, Any]:
    """Writes a file of raw ids as a tensor that torch can open memory-mapped."""
    ids: Integer[Tensor, "token"] = torch.from_file(str(raw), size=tokens, dtype=torch_dtype(tokenizer.dtype))
    with open(partial, "wb") as file:
        hashed = _Hashed(file)
        try:
            # Given a file and not a path, torch writes the same bytes whatever the path is.
            torch.save(ids, cast(IO[bytes], hashed))
        except RuntimeError as error:
            # torch hides what the file said under an error of its own.
            raise hashed.refusal or error from None
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": hashed.bytes, "sha256": hashed.digest.hexdigest()}


class _Hashed:
    """A file for torch.save that knows the hash of what went through it."""

    def __init__(self, file: BinaryIO):
        self.bytes = 0
        self.digest = hashlib.sha256()
        self.refusal: OSError | None = None
        self._file = file

    def write(self, data: bytes | memoryview) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            self.refusal = error
            raise
        size = memoryview(data).nbytes
        self.digest.update(data)
        self.bytes += size
        return size

    def flush(self) -> None:
        self._file.flush()


def _observer(progress: Progress | None, stage: str, total: int) -> Callable[[Path, bytes], None]:
    done = 0

    def observe(path: Path, block: bytes) -> None:
        nonlocal done
        done += len(block)
        if progress is not None:
            progress(stage, done, total)

    return observe


def _in_utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text has half a character, U+{ord(text[error.start]):04X}, which no text may have.",
            "it was decoded with the wrong encoding: find out the right one and say it with --encoding.",
        ) from error


def _changed_meanwhile() -> DataError:
    return DataError("the text changed while it was read.", "wait until it is complete and try again.")
