"""Checks in a process of their own: one that dies, hangs or raises takes no other with it. Knows no check.

torch that doesn't suit the processor ends the program that imports it, and a driver that doesn't suit the GPU may wait
for ever: neither can be caught where it happens.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

from microformer import devices
from microformer.errors import MicroformerError
from microformer.pipeline.doctor.findings import Around, Finding, mend, note

_PATIENCE = 2.0  # how long a process may take to end by itself, in seconds
REPORT = "put the report below into a bug report."


@dataclass(frozen=True)
class Check:
    """Something that is looked at.

    Args:
        name: as it is shown.
        look: yields what it finds.
        torch: whether it needs torch.
        writes: whether it needs a folder to write into.
        seconds: after which it is given up.
        hint: what to do where that happens, or where it ends the program.
        optional: whether nothing depends on it, so that even then nothing has to be mended.
    """

    name: str
    look: Callable[[Around], Iterable[Finding]]
    torch: bool = False
    writes: bool = False
    seconds: int | float = 60
    hint: str = REPORT
    optional: bool = False


def found_by(check: Check, around: Around) -> list[Finding]:
    """What a check finds, looked at in this process; an error is a finding too."""
    if check.torch:
        try:
            import torch

            _ = torch.nn, torch.__version__
        except Exception:  # its own check tells why
            return [_left(check, "torch can't be used")]
    if check.writes and around.scratch is None:
        return [_left(check, "there is no folder for temporary files")]
    found: list[Finding] = []
    try:
        found.extend(check.look(around))
    except MicroformerError as error:
        if around.scratch is not None and str(around.scratch) in error.sentence:
            reason = error.sentence.rpartition(": ")[2].rstrip(".")
            where = f"temporary files can't be written in {around.scratch.parent}: {reason}."
            found.append(mend(where, "free some space there, or name another folder in TMPDIR."))
        else:
            found.append(mend(error.sentence, error.hint))
    except ModuleNotFoundError as error:
        found.append(mend(f"the package {error.name} is missing.", "install what is needed: pip install -e ."))
    except Exception as error:  # whatever it is: the others go on
        found.append(_failed(error))
    return [replace(one, check=one.check or check.name) for one in found]


def _failed(error: BaseException) -> Finding:
    with_torch = hasattr(sys.modules.get("torch"), "cuda")
    if isinstance(error, MemoryError) or (with_torch and devices.out_of_memory(error)):
        return mend("memory ran out.", "close other programs.")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "microformer" in frame.filename]
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    lines = str(error).strip().splitlines() or ["it says no more"]
    return mend(f"{type(error).__name__}: {lines[0][:300].rstrip('.')}{at}.", REPORT)


def _lost(check: Check, said: str) -> list[Finding]:
    return [(note if check.optional else mend)(said, check.hint, check.name)]


def _left(check: Check, why: str) -> Finding:
    return Finding("left", f"not looked at: {why}", check=check.name)


class Apart:
    """Checks that are looked at one after another in a process of their own, begun anew where it dies.

    Args:
        checks: in their order.
        around: what they are given.
    """

    def __init__(self, checks: Sequence[Check], around: Around):
        self.around = around
        # What the process writes to its outputs: its last line may say why it died.
        self._output = None if around.scratch is None else around.scratch / f"{checks[0].name}.txt"
        self._waiting = list(checks)
        self._process: BaseProcess | None = None
        self._begin()

    def next(self) -> list[Finding]:
        """What the next check finds, waited for."""
        check = self._waiting.pop(0)
        if check.torch and "torch" in self.around.fatal:
            return [_left(check, "torch can't be used")]
        if self._process is None:
            return found_by(check, self.around)
        try:
            if not self._results.poll(check.seconds):
                self.end()
                found = _lost(check, f"nothing came of it in {check.seconds:g} s.")
            else:
                return self._results.recv()
        except (EOFError, OSError):
            self._process.join()
            found = _lost(
                check, f"the program ended while it was looked at: {_how(self._process.exitcode)}{self._said()}."
            )
        self.around = replace(self.around, fatal=self.around.fatal | {check.name})
        self._begin()
        return found

    def end(self) -> None:
        """Ends the process, whatever it is at."""
        if self._process is None:
            return
        self._results.close()
        if self._waiting or self._process.exitcode is not None:
            self._process.terminate()
        self._process.join(_PATIENCE)  # by itself, it gives back what the system lent it
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def _begin(self) -> None:
        """Starts a process for what is left."""
        self.end()
        left = [check for check in self._waiting if not (check.torch and "torch" in self.around.fatal)]
        if not left:
            self._process = None
            return
        # Spawned on every system: a fork would bring along what the caller has imported, and its threads' locks.
        context = multiprocessing.get_context("spawn")
        try:
            self._results, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_look, args=(left, self.around, self._output, theirs), daemon=True)
            process.start()
        except OSError:  # the system has no room for another: then they are looked at in this one
            self._process = None
            return
        theirs.close()  # so that the end of the process is the end of the pipe
        self._process = process

    def _said(self) -> str:
        """The last line that the process wrote."""
        if self._output is None or not self._output.is_file():
            return ""
        lines = self._output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f" ({lines[-1].strip()[:200]})" if lines else ""


def _look(checks: Sequence[Check], around: Around, output: Path | None, results: Connection) -> None:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to answer, who ends this
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    ending = threading.Thread(target=_end_with_the_caller, args=(around.scratch,), daemon=True)
    ending.start()
    said = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.close(said)
    if around.scratch is not None:
        # What libraries would keep in the user's folders.
        kept = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton", "MPLCONFIGDIR": "matplotlib"}
        for name, folder in kept.items():
            (around.scratch / folder).mkdir(exist_ok=True)
            os.environ[name] = str(around.scratch / folder)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # else it starts processes of its own
    devices.share_cores()
    for check in checks:
        try:
            results.send(found_by(check, around))
        except OSError:  # the caller has gone
            ending.join()  # it ends the process, when it has cleared up; to return would end it before
            return


def _end_with_the_caller(scratch: Path | None) -> None:
    """Where the caller is killed, nobody waits for what is found, and nobody else takes away what was written."""
    caller = multiprocessing.parent_process()
    if caller is None:
        return
    caller.join()
    for stream in (1, 2):
        os.close(stream)  # Windows removes no file that is open
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}" if sys.platform != "win32" or (code or 0) < 256 else f"exit code {code:#x}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, as where memory runs out" if name == "SIGKILL" else name
