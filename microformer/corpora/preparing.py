"""From a text to prepared data, in two passes over its parts: it is never held in memory, however long it is.

The first pass counts, hashes and finds the alphabet; the second encodes. Whatever instant it is stopped at, the folder
holds the old set whole, the new set whole, or what is recognised as unfinished, and what was done is not done again.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, cast

import torch
from filelock import FileLock, Timeout
from jaxtyping import Integer
from torch import Tensor

from microformer import files, tokenization
from microformer.corpora import overlap, room, splitting, tasks
from microformer.corpora.parts import (
    Limits,
    Part,
    Span,
    Work,
    digest_of,
    encode_apart,
    encode_span,
    read_span,
    survey,
)
from microformer.corpora.prepared import (
    FORMAT,
    MANIFEST,
    VOCAB,
    Prepared,
    load_prepared,
    read_manifest,
    torch_dtype,
)
from microformer.corpora.reading import STANDARD_INPUT, Source, Text, expanded, opened
from microformer.corpora.splitting import TEST, TRAIN, USUAL_VAL_FRACTION, VAL
from microformer.errors import DataError, MicroformerError, SettingsError, nearest, notice
from microformer.files import shown
from microformer.tokenization import KINDS, LEARNED, Tokenizer, Unknown
from microformer.tokenization.char import CharTokenizer
from microformer.tokenization.documents import WithEnd

CORPUS_FILE = "corpus.txt"
# Below this there is nothing to learn, and the last tenth is no validation. A corpus of 5 KB is fine.
FEWEST_CHARACTERS = 100

# stage, done, in all (0 if unknown): "fetching" and "reading" in bytes, "learning" and "encoding" in characters
Progress = Callable[[str, int, int], None]


def prepare(
    folder: str | Path,
    source: Source,
    *,
    tokenizer: str = "char",
    vocab_size: int | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    unknown: Unknown = "error",
    workers: int | Literal["auto"] = "auto",
    progress: Progress | None = None,
) -> Prepared:
    """Reads a text, finds its vocabulary, and writes its tokens, the last part of the text as validation.

    What is held out: splitting.py. The parts are encoded apart.

    Args:
        folder: where the set goes; it replaces the one that is there.
        source: what to read.
        tokenizer: one of `tokenization.KINDS`, or a path. What has to be learned is learned from the training part.
        vocab_size: for tokenizers that can choose; None lets the text decide.
        val_fraction, test_fraction: from 0, which makes no such part, to together below 1; None for what is usual for
            the corpus: 0.1 and 0, or what is agreed on.
        unknown: what becomes of characters that a published vocabulary lacks.
        workers: how many processes encode; the ids are the same whatever their number. "auto" for what suits the kind.
        progress: told the stage, the bytes done and the bytes in all.

    Raises:
        SettingsError: a tokenizer, size, fraction, encoding or corpus that there is not.
        DataError: a text that is missing, empty, too short or in another encoding; see also `named.find`.
        FileError: a file that can't be read or written; what was there before is untouched or recognised as unfinished.
    """
    folder = Path(folder)
    settings = _settings(tokenizer, vocab_size, val_fraction, test_fraction, unknown)
    with locked(folder):
        return _prepare(folder, source, settings, workers, progress)


def ensure_prepared(
    folder: str | Path,
    *,
    explicit: Source | None,
    default_corpus: str,
    tokenizer: str = "char",
    vocab_size: int | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    unknown: Unknown = "error",
    workers: int | Literal["auto"] = "auto",
    progress: Progress | None = None,
) -> Prepared:
    """The prepared data in `folder`, made first if there is none or if it is not what is asked for now.

    Says in one line of notice that it prepares, and why. Arguments as for `what_to_prepare`, errors as for `prepare`
    and `load_prepared`: damaged data is an error, and is not replaced unasked.
    """
    folder = Path(folder)
    settings = _settings(tokenizer, vocab_size, val_fraction, test_fraction, unknown)
    if _decide(folder, explicit, default_corpus, settings)[1] is not None:
        with locked(folder):
            # Another process may have done it while this one waited.
            source, reason = _decide(folder, explicit, default_corpus, settings)
            if reason is not None:
                if read_manifest(folder) is not None and STANDARD_INPUT in source.inputs and explicit is None:
                    raise not_again(reason)
                notice(f"preparing {source}: {reason}.")
                return _prepare(folder, source, settings, workers, progress)
    return load_prepared(folder)


def not_again(reason: str) -> DataError:
    """What is said where a text would have to be read once more and can't be."""
    return DataError(
        f"{reason}, but its text came from standard input and can't be read again.",
        "pipe it in once more: microformer prepare --input -.",
    )


def what_to_prepare(
    folder: str | Path,
    *,
    explicit: Source | None,
    default_corpus: str,
    tokenizer: str = "char",
    vocab_size: int | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    unknown: Unknown = "error",
) -> tuple[Source, str | None]:
    """What `ensure_prepared` would read, and in a few words why; None if the set in `folder` is what is asked for.

    Looks at names, sizes, times and, where those leave doubt, hashes; it doesn't open the tensors.

    Args:
        folder: of the prepared data.
        explicit: the corpus that a flag or the config names; None if neither does. Then a corpus that was once asked
            for stays, as long as it is unchanged or gone; without such it is `corpus.txt` in the folder, else the
            default.
        default_corpus: the named corpus to take when nothing else is there.
        tokenizer, vocab_size, val_fraction, test_fraction, unknown: as for `prepare`.
    """
    settings = _settings(tokenizer, vocab_size, val_fraction, test_fraction, unknown)
    return _decide(Path(folder), explicit, default_corpus, settings)


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
        if remembered.explicit and STANDARD_INPUT not in remembered.inputs:
            return remembered
    return source


def _settings(
    tokenizer: str, vocab_size: int | None, val_fraction: float | None, test_fraction: float | None, unknown: Unknown
) -> dict[str, Any]:
    if tokenizer not in KINDS and not files.is_path(tokenizer):
        meant = nearest(tokenizer, KINDS)
        known = f"the kinds are {', '.join(KINDS)}."
        raise SettingsError(
            f'there is no tokenizer "{tokenizer}".', f'did you mean "{meant}"? {known}' if meant else known
        )
    if unknown != "error" and tokenizer in KINDS:
        raise SettingsError(
            f"UNKNOWN is set to {unknown!r}, and nothing reads it with TOKENIZER = {tokenizer!r}: it lacks nothing.",
            "leave UNKNOWN at 'error', or name a vocabulary that is there already.",
        )
    if not 0 <= (val_fraction or 0) < 1:
        raise SettingsError(
            f"VAL_FRACTION {val_fraction} is no part of a text that leaves something to train on.",
            "use a number from 0 (no validation) to below 1, such as 0.1.",
        )
    if not 0 <= (test_fraction or 0) < 1 - (USUAL_VAL_FRACTION if val_fraction is None else val_fraction):
        raise SettingsError(
            f"TEST_FRACTION {test_fraction} and what is kept for validation leave nothing to train on.",
            "use less of both, such as 0.05.",
        )
    return {
        "tokenizer": tokenizer,
        "vocab_size": vocab_size,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "unknown": unknown,
    }


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
        if STANDARD_INPUT in explicit.inputs:
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
        again = explicit is not None or source.corpus or source.again
        return source if again else unasked, f"{shown(folder / TRAIN)} is missing"
    return source, _changed_settings(folder, manifest["settings"], settings) or _changed_files(manifest, source)


def _interrupted(folder: Path) -> Source | None:
    """What a preparation that was stopped was asked for, if it was and can be read again."""
    try:
        source = Source.from_dict(files.read_json(folder / MANIFEST)["source"], folder)
    except (MicroformerError, KeyError, TypeError):  # there is no such file, or another program's
        return None
    again = source.corpus or (source.inputs and source.again)
    return source if source.explicit and again else None


def _changed_settings(folder: Path, then: dict[str, Any], now: dict[str, Any]) -> str | None:
    for name in ("tokenizer", "vocab_size", "val_fraction", "test_fraction", "unknown"):
        # What a path led to that is gone stays as it was prepared.
        if name == "tokenizer" and now["tokenizer"] not in KINDS and Path(now["tokenizer"]).exists():
            if _holds(folder / VOCAB, Path(now["tokenizer"])):
                continue
            if then["tokenizer"] == now["tokenizer"]:
                return f"{now['tokenizer']} is another tokenizer than when it was last prepared"
        if name == "vocab_size" and now["tokenizer"] not in LEARNED:
            continue
        usual = {"val_fraction": USUAL_VAL_FRACTION, "test_fraction": 0.0, "unknown": "error"}.get(name)
        old, new = (usual if had.get(name) is None else had[name] for had in (then, now))
        if old != new:
            old, new = ("left alone" if value is None else value for value in (old, new))
            return f"{name.upper()} was {old} when it was last prepared and is {new} now"
    return None


def _holds(vocab: Path, path: Path) -> bool:
    """Whether the prepared tokenizer is the one at a path."""
    prepared, there = tokenization.load(vocab), tokenization.load_published(path)
    if isinstance(prepared, WithEnd) and not isinstance(there, WithEnd):
        prepared = prepared.inner  # the documents of a corpus ask for it, whatever was published
    return prepared.to_dict() == there.to_dict()


def _changed_files(manifest: dict[str, Any], source: Source) -> str | None:
    # What was deleted since stays as it was prepared: nothing else is known of it.
    if not source.local or not source.again:
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
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder for one preparation; another waits, and says so.

    Raises:
        FileError: it can't be written to.
    """
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


def _prepare(
    folder: Path, source: Source, settings: dict[str, Any], workers: int | Literal["auto"], progress: Progress | None
) -> Prepared:
    began = time.perf_counter()
    files.sweep(folder)

    def fetching(done: int, total: int) -> None:
        if progress is not None:
            progress("fetching", done, total)

    with opened(source, fetching) as text:
        if text.size == 0:
            raise DataError(f"{source} is empty.", "put the text to learn from into it, or name another.")
        task = tasks.find(text.corpus)
        if task is not None:
            _check_task(task, settings)
        room.check(folder, text.size, settings["tokenizer"], not text.seekable, say=True)
        key = {"format": FORMAT, "source": source.to_dict(folder), "settings": settings, "files": _stats(text)}
        work = Work(folder, key)
        hashes = _Hashes(text, _observer(progress, "reading", text.size))
        try:
            parts = _surveyed(text, source, work, settings, hashes)
            cut = splitting.cut(text, work, parts, settings)
            tokenizer = _tokenizer(text, work, parts, cut, settings, progress)
        except (DataError, SettingsError):
            work.finish()  # there is nothing to go on with in what can't be used
            raise
        size = sum(part.bytes for part in parts)
        room.check(folder, size, settings["tokenizer"], packed=False)
        counts = _encode(text, work, parts, cut, tokenizer, settings["unknown"], workers, progress)
        ids = {
            name: _mapped(work.joined(name, spans, tokenizer.dtype.itemsize), counts[name]["tokens"], tokenizer)
            for name, spans in cut.items()
        }
        shared = overlap.shared(ids[TRAIN], ids[VAL], tokenizer.kind) if VAL in ids and task is None else None
        records: dict[str, dict[str, Any]] = {}
        with ExitStack() as stack:
            for name in cut:
                records[name] = _write(ids[name], stack.enter_context(files.atomic_file(folder / name)))
            # From here until the manifest is written anew, the set is seen to be unfinished.
            marker = {"format": FORMAT, "unfinished": True, "source": source.to_dict(folder)}
            files.write_json(folder / MANIFEST, marker)
    tokenization.save(tokenizer, folder / VOCAB)
    records[VOCAB] = {"bytes": (folder / VOCAB).stat().st_size, "sha256": files.sha256(folder / VOCAB)}
    for name in {VAL, TEST} - counts.keys():
        with files.explained(folder / name, "remove"):
            (folder / name).unlink(missing_ok=True)
    for name in records:
        records[name]["mtime_ns"] = (folder / name).stat().st_mtime_ns
    characters = [counts[name]["characters"] for name in counts]
    content = [FORMAT, digest_of(parts), tokenizer.to_dict(), *(characters[:1] if TEST not in counts else characters)]
    content += [] if settings["unknown"] == "error" else [settings["unknown"]]
    files.write_json(
        folder / MANIFEST,
        {
            "format": FORMAT,
            "fingerprint": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
            "source": source.to_dict(folder),
            "corpus": text.corpus,
            "read": hashes.read if text.kept else [],
            "settings": settings,
            "task": {"example": task.example, "answer": task.answer, "entropy": task.entropy} if task else None,
            "text": {
                "characters": sum(part.characters for part in parts),
                "bytes": size,
                "documents": sum(part.documents for part in parts),
                "sha256": digest_of(parts),
            },
            "vocab_size": tokenizer.vocab_size,
            "train": counts[TRAIN],
            "val": counts.get(VAL),
            "test": counts.get(TEST),
            "shared": shared,
            "files": records,
            "seconds": round(time.perf_counter() - began, 3),
        },
    )
    work.finish()
    return load_prepared(folder)


def _surveyed(text: Text, source: Source, work: Work, settings: dict[str, Any], hashes: "_Hashes") -> list[Part]:
    """The text's parts, once it is known to be long enough."""
    # What came from the hub by name was limited when it was fetched.
    limited = not any(file.part for file in text.files)
    limits = Limits(source.max_documents, source.max_bytes) if limited else Limits()
    # Of what is learned in characters the alphabet is the whole text's, or validation could not be encoded.
    alphabet = settings["tokenizer"] in ("char", "wordpiece", "unigram")
    parts = survey(text, work, limits, alphabet, hashes.observe)
    if empty := sum(part.empty for part in parts):
        notice(f"{empty:,} of the documents of {source} are empty: they are left out.")
    characters = sum(part.characters for part in parts)
    if characters < FEWEST_CHARACTERS:
        raise DataError(
            f"{source} is too short: it has {characters} characters, and {FEWEST_CHARACTERS} are the least.",
            "a few thousand characters are enough to see a model learn, a million to see it write.",
        )
    return parts


def _stats(text: Text) -> list[list[Any]]:
    return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in zip(text.paths, text.stats, strict=True)]


def _check_task(task: tasks.Task, settings: dict[str, Any]) -> None:
    if settings["tokenizer"] in LEARNED:
        raise SettingsError(
            f"{task.name} counts its answers in characters, and TOKENIZER {settings['tokenizer']!r} joins them.",
            "use TOKENIZER = 'char' or 'byte'.",
        )
    if settings["val_fraction"] not in (None, tasks.HELD_OUT) or settings["test_fraction"]:
        raise SettingsError(
            f"{task.name} holds out {tasks.HELD_OUT:g} of its examples, whatever else VAL_FRACTION says.",
            f"leave VAL_FRACTION at {tasks.HELD_OUT:g}, and TEST_FRACTION at 0.",
        )


class _Hashes:
    """The SHA-256 of each file, of what is read of it from its beginning to its end."""

    def __init__(self, text: Text, observe: Callable[[Path, bytes], None]):
        self._text, self._observe = text, observe
        self._digests = {path: (hashlib.sha256(), 0) for path in text.paths}

    def observe(self, path: Path, block: bytes) -> None:
        digest, count = self._digests[path]
        digest.update(block)
        self._digests[path] = digest, count + len(block)
        self._observe(path, block)

    @property
    def read(self) -> list[dict[str, Any]]:
        found = []
        for path, stat in zip(self._text.paths, self._text.stats, strict=True):
            digest, count = self._digests[path]
            # Of what was gone on with, or not read to its end, only size and time are known.
            sha256 = digest.hexdigest() if count == stat.st_size else ""
            found.append({"path": str(path), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256})
        return found


def _tokenizer(
    text: Text, work: Work, parts: Sequence[Part], cut: dict[str, list[Span]], settings: dict[str, Any],
    progress: Progress | None,
) -> Tokenizer:  # fmt: skip
    """What encodes the text, learned from its training part where it has to be learned."""
    kind = settings["tokenizer"]
    alphabet = "".join(sorted(set().union(*(part.alphabet for part in parts))))
    if work.has(VOCAB):
        return tokenization.load(work.path(VOCAB))
    if kind == "char":
        found: Tokenizer = CharTokenizer(alphabet)
        return WithEnd(found) if text.documents else found
    size = sum(span.characters for span in cut[TRAIN])
    done = 0

    def learned_from() -> Iterator[str]:
        nonlocal done
        for span in cut[TRAIN] if kind in LEARNED else ():
            for piece in read_span(text, work, parts[span.part], span):
                done += len(piece.text)
                if progress is not None:
                    progress("learning", done, size)
                yield piece.text

    found = tokenization.train(kind, learned_from(), settings["vocab_size"], alphabet, text.documents)
    if kind in LEARNED:
        work.write(VOCAB, found.to_dict())
    return found


def _encode(
    text: Text, work: Work, parts: Sequence[Part], cut: dict[str, list[Span]], tokenizer: Tokenizer, unknown: Unknown,
    workers: int | Literal["auto"], progress: Progress | None,
) -> dict[str, dict[str, int]]:  # fmt: skip
    """Encodes what is not encoded yet. Gives characters, bytes and tokens of each part of the split."""
    work.begin()
    every = [span for spans in cut.values() for span in spans]
    left = [span for span in every if not work.has(f"{span.name}.json")]
    if workers == "auto":
        # Looking up characters takes less than handing them to another process, and so does a short text.
        workers = 1 if tokenizer.kind in ("char", "byte") or len(parts) == 1 else os.cpu_count() or 1
    total = sum(span.characters for span in every)
    done = total - sum(span.characters for span in left)

    def told(characters: int) -> None:
        nonlocal done
        done += characters
        if progress is not None:
            progress("encoding", done, total)

    if min(workers, len(left)) > 1:
        for counts in encode_apart(text, work, parts, left, tokenizer, unknown, min(workers, len(left))):
            told(counts["characters"])
    else:
        for span in left:
            encode_span(text, work, parts[span.part], span, tokenizer, unknown, told)
    found = {}
    for name, spans in cut.items():
        counts = [work.read(f"{span.name}.json") for span in spans]
        found[name] = {what: sum(one[what] for one in counts) for what in ("characters", "bytes", "tokens")}
    return found


def _mapped(raw: Path, tokens: int, tokenizer: Tokenizer) -> Integer[Tensor, "token"]:
    """A file of raw ids, as they are in memory."""
    return torch.from_file(str(raw), size=tokens, dtype=torch_dtype(tokenizer.dtype))


def _write(ids: Integer[Tensor, "token"], partial: Path) -> dict[str, Any]:
    """Writes ids as a tensor that torch can open memory-mapped."""
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
