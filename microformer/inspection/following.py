"""What is new in a run folder, told as it comes: server-sent events.

The folder is looked at about once a second, by times and sizes, so that nobody has to tell: it may be written by a
training, on another machine too, cut back by a resumed one, or deleted. Reads only. Knows no models.

    metrics      rows: those that came; reset: whether they take the place of all before
    checkpoints  checkpoints: their labels; folders: what best and last are now
    probe        step: the newest; probes: all steps
    ended        ended: how, or null while it goes on
    runs         as /api/runs
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio.to_thread

from microformer.errors import MicroformerError
from microformer.inspection import frames
from microformer.inspection.shelf import Shelf
from microformer.runs import Run

_PAUSE = 1.0
# A line without meaning, so often (in pauses), that a connection which nobody listens to any more is found out.
_SIGN_OF_LIFE = 15
# What a page draws of a row.
_SHOWN = ("step", "seconds", "train_loss", "val_loss")


class Follower:
    """Tells what became new since it was last asked.

    Args:
        shelf: where runs are found.
        name: the run; it need not be there yet, or any more.
    """

    def __init__(self, shelf: Shelf, name: str):
        self.shelf, self.name = shelf, name
        self._metrics = _Tail()
        self._told: dict[str, Any] = {}

    def news(self) -> list[tuple[str, Any]]:
        """The events since the last call, each a kind and what it says."""
        found: list[tuple[str, Any]] = []
        for kind, look in (
            ("runs", lambda: self.shelf.listing()),
            ("checkpoints", lambda: checkpoints(self._run())),
            ("probe", lambda: _probes(self._run())),
            ("ended", lambda: {"ended": (self._run().info["ended"] or {}).get("how")}),
        ):
            try:
                now = look()
            except (MicroformerError, OSError):
                continue  # deleted, or half-way to being replaced: it is looked at again
            if now is not None and self._told.get(kind) != now:
                self._told[kind] = now
                found.append((kind, now))
        try:
            rows, anew = self._metrics.read(self._run().folder / "metrics.jsonl")
        except (MicroformerError, OSError):
            rows, anew = [], False
        if rows or anew:
            found.append(("metrics", {"rows": [shown(row) for row in rows], "reset": anew}))
        return found

    def _run(self) -> Run:
        return self.shelf.run(self.name)


class _Tail:
    """The lines that a file got since it was last read."""

    def __init__(self):
        self._place, self._which, self._last = 0, None, b""

    def read(self, path: Path) -> tuple[list[dict[str, Any]], bool]:
        """New rows, and whether all before them are void, for the file is another one or was cut back."""
        try:
            found = path.stat()
        except FileNotFoundError:
            anew = self._which is not None
            self.__init__()
            return [], anew
        with open(path, "rb") as file:
            anew = self._which != found.st_ino or found.st_size < self._place
            if not anew and self._place:
                # A file may be written anew in its place: what was read last must be there still.
                file.seek(self._place - len(self._last))
                anew = file.read(len(self._last)) != self._last
            if anew:
                self._place, self._which = 0, found.st_ino
            file.seek(self._place)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # the rest is being written
        if whole:
            self._place += len(whole)
            self._last = whole[-100:]
        return rows_of(whole), anew


def rows_of(lines: bytes) -> list[dict[str, Any]]:
    """The rows in some lines of metrics.jsonl; a damaged one is left out, for the others can be drawn."""
    rows = []
    for line in lines.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Of a row what a page draws."""
    return {name: row[name] for name in _SHOWN if name in row}


def checkpoints(run: Run) -> dict[str, Any]:
    """The labels of a run's checkpoints, and the folders that best and last are now."""
    index = run.index
    labels = ["best"] if index["best"] or index["last"] or index["snapshots"] else []
    labels += ["last"] if index["last"] else []
    # Before the first validation the newest snapshot is the best there is.
    best = index["best"] or index["last"] or max(index["snapshots"], default=None)
    labels += [str(step) for step in snapshots(index)]
    return {"checkpoints": labels, "folders": {"best": best, "last": index["last"]}}


def snapshots(index: dict[str, Any]) -> list[int]:
    """The steps of the snapshots that an index names."""
    return sorted(int(one.removeprefix("step-")) for one in index["snapshots"])


def _probes(run: Run) -> dict[str, Any] | None:
    steps = run.probes
    return {"step": steps[-1], "probes": steps} if steps else None


async def events(follower: Follower, ended: Callable[[], bool], pause: float = _PAUSE) -> AsyncIterator[bytes]:
    """The stream of a follower's news, until the server ends or the page goes."""
    quiet = 0
    yield b"retry: 2000\n\n"
    while not ended():
        for kind, said in await anyio.to_thread.run_sync(follower.news):
            yield f"event: {kind}\ndata: {frames.to_json(said)}\n\n".encode()
            quiet = 0
        if quiet >= _SIGN_OF_LIFE:
            yield b": here\n\n"
            quiet = 0
        quiet += 1
        # In parts, so that the end of the server is not waited for.
        for _ in range(10):
            if ended():
                return
            await asyncio.sleep(pause / 10)
