"""Datasets of the Hugging Face hub: their rows, streamed by the library `datasets` and kept here as JSON lines.

    hf:owner/name                    its split "train", its column "text"
    hf:owner/name:validation:story   another split and column
    hf:owner/name/config             a configuration of it

Rows come from Parquet files; a dataset that would run a script of its own is not read. What came is kept in files of
64 MB, and an interrupted download goes on after the last whole one.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from microformer import files
from microformer.corpora.fetching import STALL_SECONDS, ByteProgress, NoNetwork
from microformer.corpora.formats import EXTRA, File
from microformer.errors import DataError, MicroformerError, SettingsError

PREFIX = "hf:"
_SPELT = re.compile(
    r"hf:(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<config>[\w.-]+))?(?::(?P<split>[\w.-]*))?(?::(?P<column>.+))?"
)
# Bytes of text that are kept in a file, and so the most that is fetched twice.
_SHARD = 1 << 26
_BEGUN, _DONE = "begun.json", "done.json"

# Rows → documents.
Joined = Callable[[Iterable[str]], Iterator[str]]


def fetched(
    spelt: str,
    max_documents: int = 0,
    max_bytes: int = 0,
    progress: ByteProgress | None = None,
    part: str = "",
    joined: Joined | None = None,
) -> list[File]:
    """The rows of a dataset, as files on this machine; fetched first if they are not there.

    Args:
        spelt: as at the top of this file.
        max_documents, max_bytes: where to stop; 0 for the end. A document is taken whole or not at all.
        progress: told the bytes of text that have come; how many there are is not known.
        part: of the split, for the files.
        joined: makes documents of rows, where they are no documents. Then an interrupted download begins anew.

    Raises:
        SettingsError: another spelling.
        NoNetwork: the hub can't be reached.
        DataError: there is no such dataset, split or column, or the package `datasets` is missing.
    """
    if not (match := _SPELT.fullmatch(spelt)):
        raise SettingsError(f"{spelt!r} names no dataset.", "write hf:owner/name:split:column.")
    folder = _folder(spelt, max_documents, max_bytes)
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not (folder / _DONE).exists():
                config, split, column = match["config"], match["split"] or "train", match["column"] or "text"
                _fetch(folder, match["name"], config, split, column, (max_documents, max_bytes), progress, joined)
    return [File(path, part=part) for path in sorted(folder.glob("*.jsonl"))]


def stored(spelt: str, max_documents: int = 0, max_bytes: int = 0) -> Path | None:
    """Where a dataset lies on this machine, if it does."""
    folder = _folder(spelt, max_documents, max_bytes)
    return folder if (folder / _DONE).exists() else None


def articles(rows: Iterable[str]) -> Iterator[str]:
    """The documents of WikiText, whose rows are lines: each article from its title, ` = Title = `, to the next."""
    lines: list[str] = []
    for row in rows:
        if re.fullmatch(r" = [^=].* = \n", row) and lines:
            yield "".join(lines)
            lines = []
        lines.append(row or " \n")  # the published file's empty lines, which the dataset leaves out
    if lines:
        yield "".join(lines)


def _folder(spelt: str, max_documents: int, max_bytes: int) -> Path:
    limits = "".join(f"-{word}{limit}" for word, limit in (("d", max_documents), ("b", max_bytes)) if limit)
    return files.cache_folder() / "corpora" / "hub" / (re.sub(r"[^\w.]+", "-", spelt.removeprefix(PREFIX)) + limits)


def _fetch(
    folder: Path, name: str, config: str | None, split: str, column: str, limits: tuple[int, int],
    progress: ByteProgress | None, joined: Joined | None,
) -> None:  # fmt: skip
    fresh = {"shards": 0, "documents": 0, "bytes": 0, "rows": None}
    begun = files.read_json(folder / _BEGUN) if joined is None and (folder / _BEGUN).exists() else fresh
    for left in folder.glob("*.jsonl"):
        if int(left.stem) >= begun["shards"]:
            left.unlink()  # written, but not yet written down
    with _explained(name):
        rows = _opened(name, config, split)
        if begun["rows"] is not None:
            rows.load_state_dict(begun["rows"])
        texts = _texts(rows, name, column)
        documents = _within(joined(texts) if joined else texts, limits, begun, progress)
        while shard := list(_shard(documents)):
            with files.atomic_file(folder / f"{begun['shards']:05}.jsonl") as partial:
                lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in shard)
                partial.write_text("".join(lines), encoding="utf-8", newline="\n")
            begun["shards"] += 1
            begun["rows"] = rows.state_dict() if joined is None else None
            files.write_json(folder / _BEGUN, begun)
    files.write_json(folder / _DONE, {"documents": begun["documents"], "bytes": begun["bytes"]})


def _opened(name: str, config: str | None, split: str) -> Any:
    # Its reader waits a hundred seconds where a server doesn't answer; ours gives up sooner.
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "5")
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataError("datasets of the hub need the package datasets.", EXTRA) from error
    from datasets import config as waiting

    waiting.STREAMING_READ_MAX_RETRIES, waiting.STREAMING_READ_RETRY_INTERVAL = 4, 1
    datasets.disable_progress_bars()
    _check_network(waiting.HF_ENDPOINT, name)
    datasets.utils.logging.set_verbosity_error()
    return datasets.load_dataset(name, config, split=split, streaming=True)


def _check_network(address: str, name: str) -> None:
    """Raises NoNetwork where the hub doesn't answer at all; the library would try for half a minute."""
    import requests

    try:
        requests.head(address, timeout=(STALL_SECONDS / 2, STALL_SECONDS))
    except requests.RequestException as error:
        raise NoNetwork(f"the hub can't be reached to fetch {name}.", "check the network, or try again.") from error


def _texts(rows: Iterable[dict[str, Any]], name: str, column: str) -> Iterator[str]:
    for row in rows:
        if column not in row:
            raise DataError(
                f'the dataset {name} has no column "{column}": its columns are {", ".join(row)}.',
                f"say which one has the text: hf:{name}:train:{next(iter(row))}.",
            )
        if not isinstance(row[column], str):
            kind = type(row[column]).__name__
            raise DataError(f'the column "{column}" of {name} is no text but a {kind}.', "name another column.")
        yield row[column]


def _within(
    documents: Iterable[str], limits: tuple[int, int], begun: dict[str, Any], progress: ByteProgress | None
) -> Iterator[str]:
    """Documents up to the limits, counted."""
    most_documents, most_bytes = limits
    for document in documents:
        size = len(document.encode("utf-8", "replace"))
        if (most_documents and begun["documents"] >= most_documents) or (
            most_bytes and begun["bytes"] + size > most_bytes
        ):
            return
        begun["documents"] += 1
        begun["bytes"] += size
        if progress is not None:
            progress(begun["bytes"], most_bytes)
        yield document


def _shard(documents: Iterator[str]) -> Iterator[str]:
    size = 0
    for document in documents:
        yield document
        size += len(document)
        if size >= _SHARD:
            return


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """What the library raises, in a sentence."""
    try:
        yield
    except MicroformerError:
        raise
    except Exception as error:
        causes = [type(one).__name__ for one in _chain(error)]
        said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if "DatasetNotFoundError" in causes or "RepositoryNotFoundError" in causes:
            raise DataError(f"there is no public dataset {name} on the hub.", "check the spelling.") from error
        if any("Connect" in cause or "Timeout" in cause or "Offline" in cause for cause in causes):
            raise NoNetwork(f"the hub can't be reached to fetch {name}: {said}.", "check the network.") from error
        if "scripts are no longer supported" in said:
            raise DataError(
                f"the dataset {name} is made by a script of its own, which is not run here.",
                "choose one that is kept as Parquet files.",
            ) from error
        raise DataError(
            f"the dataset {name} can't be read: {said}.", "check its name, configuration and split."
        ) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
