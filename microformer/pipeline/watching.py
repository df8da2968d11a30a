"""The page beside a training: a server in a process of its own, which takes what the training leaves over.

It reads the run folder like anyone else, so that neither can harm the other: what fails here is one line of notice.
Its standard input is a pipe that it watches: when the training is gone, however it went, the pipe ends, and the server
with it.
"""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any

from microformer.errors import notice
from microformer.runs import Run

# How long the server may take to end by itself, in seconds.
_PATIENCE = 5


class Watching:
    """Opens the page when a training begins, and ends it with the training.

    Args:
        browser: whether to open the page in a browser.
    """

    def __init__(self, browser: bool = True):
        self.browser = browser
        self.address = ""
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None

    def open(self, run: Run) -> None:
        """Starts the server of a run; its address is printed when it is there."""
        command = [sys.executable, "-m", "microformer", "inspect", str(run.folder), "--beside-training"]
        command += [] if self.browser else ["--no-browser"]
        # Ctrl-C is the training's alone: in a group of its own the server does not get it.
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            low = subprocess.BELOW_NORMAL_PRIORITY_CLASS
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | low}
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                encoding="utf-8", errors="replace", **apart,
            )  # fmt: skip
        except OSError as error:
            notice(f"the page could not be started ({error}); the training goes on without it.")
            return
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()

    def stay(self) -> None:
        """After a training, at a terminal: leaves the page where it is until Ctrl-C."""
        at_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
        if self._process is None or self._process.poll() is not None or not at_terminal:
            return
        print(f"look inside {self.address} · it stays until Ctrl-C", flush=True)
        try:
            self._process.wait()
        except KeyboardInterrupt:
            print()

    def __enter__(self) -> "Watching":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        with suppress(OSError):  # it has gone already
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._listener is not None and self._process.stdout is not None:
            self._listener.join(_PATIENCE)
            self._process.stdout.close()

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        """Reads what the server says; the first address is told, and why there is none."""
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said = line.strip() or said
            if not self.address and line.startswith("inspect "):
                self.address = line.split()[1]
                print(f"inside    {self.address}", flush=True)
        if not self.address and process.stdin is not None and not process.stdin.closed:
            notice(f"the page could not be started ({said or 'it said nothing'}); the training goes on without it.")


def give_way() -> None:
    """Makes this process take only what others leave: lowest priority, one thread."""
    import torch

    torch.set_num_threads(1)
    if hasattr(os, "nice"):
        os.nice(10)


def end_with_input(end: Any) -> None:
    """Calls `end` when standard input ends: whoever holds its other end has gone."""

    def wait() -> None:
        # Not the buffer's read: Python, when it ends, waits for the buffer, and gives up with a crash.
        while os.read(sys.stdin.fileno(), 1):
            pass
        end()

    threading.Thread(target=wait, daemon=True).start()
