"""Weights & Biases, online or offline, as its own environment says (WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY …).

The library works in a process of its own (wandb_process.py) that is told what to do in lines of JSON: it may ask for a
key, wait for a network or hang at the end of a program, and none of that is the training's. Files lie in
`<run folder>/wandb`, and `run_id` beside them: a run that is resumed is the same run there.
"""

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from microformer.errors import TrackerError, notice
from microformer.files import explained, shown, write_text
from microformer.trackers.base import About, Tracker
from microformer.trackers.drawn import Drawn


class WandB(Tracker):
    """Hands everything to a process that has W&B's library."""

    name: ClassVar[str] = "wandb"

    def __init__(self):
        self.process: subprocess.Popen[str] | None = None
        self.abandoned = False

    def begin(self, about: About) -> None:
        folder = about.folder / "wandb"
        with explained(folder):
            folder.mkdir(exist_ok=True)
            given = folder / "run_id"
            if not given.is_file():
                write_text(given, secrets.token_hex(4))
        config = {name: about.info.get(name) for name in ("parameters", "data", "versions")}
        message = {
            "folder": str(about.folder.resolve()), "id": given.read_text(encoding="utf-8"), "name": about.name,
            "config": {**about.info.get("settings", {}), **config}, "rows": list(about.rows),
        }  # fmt: skip
        self._start(folder)
        self._send("begin", about.step, **message)
        answer = self._answer()
        if why := answer.get("unreachable"):
            self._close()
            where = shown(folder / "offline-run-*")
            notice(f"wandb keeps this run offline ({why}); `wandb sync {where}` sends it.")
            self._start(folder, WANDB_MODE="offline")
            self._send("begin", about.step, **message)
            answer = self._answer()
        if answer["url"]:
            notice(f"wandb shows this run at {answer['url']}")

    def _start(self, folder: Path, **environment: str) -> None:
        # Ctrl-C is for the training, which ends this one when it is done: in a group of its own it does not get it.
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        # Where the package lies, for a clone that is not installed.
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment}
        with explained(folder), open(folder / "messages.txt", "a", encoding="utf-8") as messages:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "microformer.trackers.wandb_process"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=messages, encoding="utf-8", env=environment, **apart,
            )  # fmt: skip
        if self.abandoned:
            self.abandon()

    def scalars(self, step: int, values: Mapping[str, int | float]) -> None:
        self._send("scalars", step, values=values)

    def text(self, step: int, name: str, text: str) -> None:
        self._send("text", step, name=name, text=text)

    def image(self, step: int, name: str, picture: Drawn) -> None:
        self._send("image", step, name=name, png=base64.b64encode(picture.png).decode("ascii"))

    def histogram(self, step: int, name: str, counts: Int[np.ndarray, "bin"], edges: Float[np.ndarray, "edge"]) -> None:
        self._send("histogram", step, name=name, counts=counts.tolist(), edges=edges.tolist())

    def end(self, how: str) -> None:
        assert self.process is not None
        self._send("end", 0, how=how)
        self._answer()
        self._close()

    def abandon(self) -> None:
        self.abandoned = True
        if self.process is not None:
            self.process.kill()
            self._close()

    def _send(self, what: str, step: int, **rest: Any) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"what": what, "step": step, **rest}) + "\n")
            self.process.stdin.flush()
        except OSError:
            self._answer()  # says why it is gone
            raise

    def _answer(self) -> dict[str, Any]:
        """What the process answers: to `begin`, to `end`, and where it fails.

        Raises:
            TrackerError: it failed.
        """
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"failed": f"its process ended with exit code {self.process.wait()}"}
        if "failed" in answer:
            self._close()
            raise TrackerError(answer["failed"])
        return answer

    def _close(self) -> None:
        assert self.process is not None
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:
                pass  # what was to be flushed into it
        self.process.wait()
