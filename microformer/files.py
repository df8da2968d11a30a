"""Writing files so that no instant of a crash leaves half of one, and reading them with clear errors.

A file is written beside its target, flushed, fsynced and renamed; a folder likewise, whole. Knows nothing of what
the files hold.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microformer.errors import FileError

_PARTIAL = ".partial"


@contextmanager
def explained(path: Path, doing: str = "write") -> Iterator[None]:
    """Turns the operating system's refusal at `path` into a FileError that says what to do."""
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: "free some space on that disk; what was saved before is untouched.",
            errno.EDQUOT: "your disk quota is used up; what was saved before is untouched.",
            errno.EACCES: "the permissions there don't allow it; choose another folder or change them.",
            errno.EPERM: "the permissions there don't allow it; choose another folder or change them.",
            errno.EROFS: "that file system is read-only; choose another folder.",
            errno.ENOENT: "check the spelling of the path.",
            errno.ENOTDIR: "part of that path is a file; choose another folder.",
            errno.EISDIR: "that is a folder, and a file is wanted.",
        }
        hint = hints.get(error.errno or 0, "what was saved before is untouched.")
        raise FileError(f"can't {doing} {path}: {error.strerror or error}.", hint) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; on leaving it becomes `path` at once, or, after an error, is removed."""
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _beside(path)
        try:
            yield partial
            _sync(partial)
            _replace(partial, path)
            _sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a folder beside `path` to fill; on leaving it becomes `path` whole. `path` must not exist yet."""
    path = Path(path)
    with explained(path):
        partial = _beside(path)
        partial.mkdir(parents=True)
        try:
            yield partial
            for file in sorted(partial.rglob("*")):
                _sync(file)
            _sync(partial)
            _replace(partial, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Removes what a killed writer left half-made in `folder`. Only for who holds the lock on it."""
    for left in folder.glob(f"*{_PARTIAL}"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8, newlines untouched, all at once."""
    with atomic_file(path) as partial:
        partial.write_bytes(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON, all at once."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # A file name that is not UTF-8 reaches Python as lone surrogates, which can only be written escaped.
    if any("\ud800" <= character <= "\udfff" for character in text):
        text = json.dumps(value, indent=2)
    write_text(path, text + "\n")


def read_text(path: Path) -> str:
    """Reads UTF-8, newlines untouched.

    Raises:
        FileError: it can't be read, or is not UTF-8.
    """
    with explained(path, "read"):
        data = Path(path).read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not UTF-8: byte 0x{data[error.start]:02X} at offset {error.start}.") from error


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        FileError: it can't be read, or is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        # Beside a wrong character: a number of 5,000 digits, a list nested a thousand deep.
        where = f"line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise FileError(
            f"{path} is damaged: it is not JSON ({where}).",
            "it was cut short or edited; restore it or make it again.",
        ) from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex, read in pieces."""
    digest = hashlib.sha256()
    with explained(path, "read"), open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def held(lock: Path) -> bool | None:
    """Whether somebody holds a lock; None where that can't be told. To ask, it is held for an instant."""
    from filelock import FileLock, Timeout

    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # it may not be written
        return None


def shown(path: str | Path) -> str:
    """A path as a user would write it: relative where it lies under the working folder."""
    path = Path(path)
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):
        return str(path)


def is_path(name: str) -> bool:
    """Whether a name that may also be a word is meant as a path: it has a folder or a suffix in it."""
    return any(mark in name for mark in "/\\.")


def cache_folder() -> Path:
    """Where this user keeps what can be fetched or measured again (XDG_CACHE_HOME and the like are followed)."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("microformer", appauthor=False))


def _beside(path: Path) -> Path:
    # Random too: two containers that share a disk may both be process 7.
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(3)}{_PARTIAL}")


def _sync(path: Path) -> None:
    if path.is_dir():
        _sync_folder(path)
        return
    # Windows flushes only what is open for writing; elsewhere a file may be read-only by now.
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    # A folder can't be opened on Windows, nor one that may be written but not read, and some network file systems
    # refuse to sync one: its files are synced.
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise


def _replace(partial: Path, path: Path, pause: Callable[[float], None] = time.sleep) -> None:
    # On Windows a target that a reader or a virus scanner has open refuses for a moment, then lets go.
    for attempt in range(10):
        try:
            os.replace(partial, path)
            return
        except PermissionError:
            if sys.platform != "win32" or attempt == 9:
                raise
            pause(0.05 * (attempt + 1))
