"""Fetching a file, so that it is whole and right or not there at all.

What broke off is tried again from where it broke, also by the next program; a server that can't take up in the middle
begins anew. Every wait is bounded: after 5 seconds without a byte, whatever the cause, the attempt is given up. Knows
nothing of what the file is for.
"""

import hashlib
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from microformer import files
from microformer.errors import DataError, MicroformerError

STALL_SECONDS = 5.0
ATTEMPTS = 4
_PAUSE_SECONDS = 0.2
_BLOCK = 1 << 16
# What a server says when it may do better a moment later.
_BUSY = (408, 429, 500, 502, 503, 504)

ByteProgress = Callable[[int, int], None]


class NoNetwork(DataError):
    """The server can't be reached, or fell silent, or the line broke. Whatever it *answered* is no NoNetwork."""


def fetch(url: str, path: Path, sha256: str = "", progress: ByteProgress | None = None) -> None:
    """Fetches `url` to `path`. Several processes may ask at once: one fetches, the others find it done.

    Args:
        url: http or https.
        path: where it goes, only once it is whole and its checksum right.
        sha256: the checksum that it must have, in hex; "" if none is known: then a file that is there is taken for it.
        progress: told the bytes that have come and the bytes expected (0 if unknown).

    Raises:
        NoNetwork: no connection, no answer, nothing new for 5 seconds, or a connection that breaks again and again.
        DataError: the server answered something else: an HTTP error such as 404, or another file.
        FileError: `path` can't be written.
    """
    with files.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if path.exists() and (not sha256 or files.sha256(path) == sha256):
                return
            # A folder of its own for each address: what is begun of one is not gone on with from another.
            folder = path.with_name(f"{path.name}.fetching")
            begun = folder / hashlib.sha256(url.encode()).hexdigest()[:16]
            began_before = begun.exists()
            _download(url, begun, progress)
            if sha256 and files.sha256(begun) != sha256 and began_before:
                begun.unlink()  # the file may have been replaced at its publisher's between the two halves
                _download(url, begun, progress)
            try:
                if sha256 and files.sha256(begun) != sha256:
                    size = begun.stat().st_size
                    raise DataError(
                        f"{url} is not the file that it should be: its {size:,} bytes have another SHA-256.",
                        "a proxy or a sign-in page may have answered; open the address in a browser, or try again.",
                    )
                with files.atomic_file(path) as partial:
                    begun.replace(partial)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def fetch_once(url: str, progress: ByteProgress | None = None) -> Path:
    """The file at an address, from the cache if it was fetched before. Errors as for `fetch`."""
    address = urlsplit(url)
    name = re.sub(r"[^\w.-]+", "-", unquote(address.path).rstrip("/").rpartition("/")[2]) or address.netloc
    path = files.cache_folder() / "corpora" / "addresses" / hashlib.sha256(url.encode()).hexdigest()[:16] / name
    fetch(url, path, progress=progress)
    return path


class _Broken(Exception):
    """An attempt that ended early, and may go on."""

    def __init__(self, told: MicroformerError):
        super().__init__(str(told))
        self.told = told


def _download(url: str, begun: Path, progress: ByteProgress | None) -> None:
    """Attempts, for as long as each brings something, or the server is only busy."""
    for attempt in range(1, ATTEMPTS + 1):
        before = begun.stat().st_size if begun.exists() else 0
        try:
            _attempt(url, begun, progress)
            return
        except _Broken as broken:
            after = begun.stat().st_size if begun.exists() else 0
            busy = not isinstance(broken.told, NoNetwork)
            if attempt == ATTEMPTS or (after == before and not busy):
                raise broken.told from broken
            time.sleep(_PAUSE_SECONDS * 2**attempt)


class _Watched:
    """A file that is written aside, and when the last bytes came. Once given up nothing more is written."""

    def __init__(self, path: Path, progress: ByteProgress | None):
        self.last = time.monotonic()
        self._path, self._progress = path, progress
        self._lock, self._given_up = threading.Lock(), False

    def heard(self) -> None:
        self.last = time.monotonic()

    def write(self, file: Any, data: bytes, done: int, total: int) -> None:
        with self._lock:
            if self._given_up:
                raise TimeoutError
            file.write(data)
        self.heard()
        if self._progress is not None:
            self._progress(min(done, total) if total else done, total)

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True


def _attempt(url: str, begun: Path, progress: ByteProgress | None) -> None:
    import requests

    begun.parent.mkdir(exist_ok=True)
    watched = _Watched(begun, progress)
    failures: list[Exception] = []

    def work() -> None:
        try:
            _receive(url, begun, watched)
        except Exception as error:  # handed to the waiting thread, which sorts it
            failures.append(error)

    # Name look-up has no timeout of its own, so the work is done aside and watched. A daemon doesn't keep Python alive.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(0.05)
        if worker.is_alive() and time.monotonic() - watched.last > STALL_SECONDS:
            watched.give_up()
            raise _Broken(
                NoNetwork(
                    f"{url} can't be fetched: nothing came for {STALL_SECONDS:g} seconds.",
                    "check the network, or try again: it goes on where it stopped.",
                )
            )
    if not failures:
        return
    match failures[0]:
        case requests.HTTPError(response=requests.Response() as answer) as error:
            told = DataError(
                f"{url} can't be fetched: the server answered {answer.status_code} {answer.reason}.",
                "try again later, or choose another corpus: `microformer corpora` lists them.",
            )
            raise _Broken(told) if answer.status_code in _BUSY else told from error
        case requests.ConnectionError() | requests.Timeout() | requests.exceptions.ChunkedEncodingError() as error:
            hint = "check the network, or try again: it goes on where it stopped."
            raise _Broken(NoNetwork(f"{url} can't be fetched: {_reason(error)}.", hint)) from error
        case requests.RequestException() as error:
            raise DataError(f"{url} can't be fetched: {error}.", "check the address.") from error
        case error:
            raise error


def _receive(url: str, begun: Path, watched: _Watched) -> None:
    """Takes up where the file that was begun ends, if the server can and the file there is still the same."""
    import requests

    # What the file was called by the server when it was begun: its mark, by which it tells one version from another.
    marked = begun.with_name(f"{begun.name}.mark")
    size = begun.stat().st_size if begun.exists() else 0
    mark = marked.read_text("utf-8") if size and marked.exists() else ""
    # A packed answer would have another length than it announces.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={size}-", "If-Range": mark} if mark else {})
    # A name may have two addresses, one of them dead: half of the patience each.
    patience = (STALL_SECONDS / 2, STALL_SECONDS)
    with requests.Session() as session, session.get(url, headers=headers, stream=True, timeout=patience) as answer:
        watched.heard()
        going_on = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {size}-")
        if answer.status_code == 416 or (answer.status_code == 206 and not going_on):
            begun.unlink(missing_ok=True)
            raise requests.exceptions.ChunkedEncodingError("there is nothing to go on with")
        answer.raise_for_status()
        done = size if going_on else 0
        announced = int(answer.headers.get("Content-Length") or 0)
        total = done + announced if announced else 0
        if not going_on:
            new_mark = answer.headers.get("ETag", "")
            marked.write_text("" if new_mark.startswith("W/") else new_mark or answer.headers.get("Last-Modified", ""))
        with open(begun, "ab" if going_on else "wb") as file:
            for data in answer.iter_content(_BLOCK):
                done += len(data)
                watched.write(file, data, done, total)
        if total and done != total:
            raise requests.exceptions.ChunkedEncodingError(f"{done} of {total} bytes came")


def _reason(error: Exception) -> str:
    import requests

    match error:
        case requests.exceptions.ProxyError():
            return "the proxy refused it"
        case requests.exceptions.SSLError():
            return "no secure connection to the server"
        case requests.Timeout():
            return "the server doesn't answer"
        case requests.exceptions.ChunkedEncodingError():
            return "the connection broke half-way"
        case _:
            return "no connection to the server"
