"""Fetching a file whose SHA-256 is known, so that it is whole and right or not there at all.

Every wait is bounded: after 5 seconds without a byte, whatever the cause, the attempt is given up. Knows nothing of
what the file is for.
"""

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from filelock import FileLock

from microformer import files
from microformer.errors import DataError

STALL_SECONDS = 5.0
_BLOCK = 1 << 13


class NoNetwork(DataError):
    """The server can't be reached, or fell silent, or the line broke. Whatever it *answered* is no NoNetwork."""


def fetch(url: str, path: Path, sha256: str, progress: Callable[[int, int], None] | None = None) -> None:
    """Fetches `url` to `path`. Several processes may ask at once: one fetches, the others find it done.

    Args:
        url: http or https.
        path: where it goes, only once it is whole and its checksum right.
        sha256: the checksum that it must have, in hex.
        progress: told the bytes that have come and the bytes expected (0 if unknown).

    Raises:
        NoNetwork: no connection, no answer, nothing new for 5 seconds, or a connection that broke half-way.
        DataError: the server answered something else: an HTTP error such as 404, or another file.
        FileError: `path` can't be written.
    """
    with files.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f"{path.name}.lock"))
        with lock:
            if path.exists() and files.sha256(path) == sha256:
                return
            # A folder of its own: an attempt that was given up may still hold its file open, or be about to open it.
            folder = path.with_name(f"{path.name}.fetching")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            arrived = folder / f"{time.monotonic_ns()}.partial"
            try:
                _download(url, arrived, progress)
                if files.sha256(arrived) != sha256:
                    size = arrived.stat().st_size
                    raise DataError(
                        f"{url} is not the file that it should be: its {size:,} bytes have another SHA-256.",
                        "a proxy or a sign-in page may have answered; open the address in a browser, or try again.",
                    )
                with files.atomic_file(path) as partial:
                    arrived.replace(partial)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


class _Heartbeat:
    """Stands where pooch expects a progress bar, and notes when the last bytes came."""

    def __init__(self, progress: Callable[[int, int], None] | None):
        self.total = 0
        self.last = time.monotonic()
        self.given_up = False
        self._done = 0
        self._progress = progress

    def update(self, count: int) -> None:
        if self.given_up:
            raise TimeoutError
        self.last = time.monotonic()
        self._done += count
        if self._progress is not None:
            self._progress(min(self._done, self.total) if self.total else self._done, self.total)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


def _download(url: str, arrived: Path, progress: Callable[[int, int], None] | None) -> None:
    import pooch
    import requests

    heartbeat = _Heartbeat(progress)
    failures: list[Exception] = []

    def work() -> None:
        with ExitStack() as answers:

            def close_at_the_end(answer: requests.Response, *args: Any, **kwargs: Any) -> None:
                # pooch leaves connections to the garbage collector.
                answers.callback(answer.close)

            try:
                # A name may have two addresses, one of them dead: half of the patience each.
                patience = (STALL_SECONDS / 2, STALL_SECONDS)
                hooks = {"response": close_at_the_end}
                download = pooch.HTTPDownloader(cast(bool, heartbeat), _BLOCK, timeout=patience, hooks=hooks)
                download(url, str(arrived), None)
            except Exception as error:  # handed to the waiting thread, which sorts it
                failures.append(error)

    # Name look-up has no timeout of its own, so the work is done aside and watched. A daemon doesn't keep Python alive.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(0.05)
        if worker.is_alive() and time.monotonic() - heartbeat.last > STALL_SECONDS:
            heartbeat.given_up = True
            raise NoNetwork(
                f"{url} can't be fetched: nothing came for {STALL_SECONDS:g} seconds.",
                "check the network, or try again.",
            )
    if not failures:
        return
    match failures[0]:
        case requests.HTTPError(response=requests.Response() as answer) as error:
            raise DataError(
                f"{url} can't be fetched: the server answered {answer.status_code} {answer.reason}.",
                "try again later, or choose another corpus: `microformer corpora` lists them.",
            ) from error
        case requests.ConnectionError() | requests.Timeout() | requests.exceptions.ChunkedEncodingError() as error:
            raise NoNetwork(f"{url} can't be fetched: {_reason(error)}.", "check the network, or try again.") from error
        case requests.RequestException() as error:
            raise DataError(f"{url} can't be fetched: {error}.", "check the address.") from error
        case error:
            raise error


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
