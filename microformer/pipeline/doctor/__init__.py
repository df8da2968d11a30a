"""The doctor: is all well with this installation, this machine and this folder, and what is to be done?

findings      what a check says
installation  Python, Microformer, packages, torch
machine       devices, precision, cores, memory, a compiler
here          the folder we are in and the user's cache: settings, room, corpora, prepared data, runs
trial         a batch learned by heart, a training stopped and gone on with, text with and without the cache
apart         checks in a process of their own
paste         the findings as text for a bug report

Leaves nothing behind: what is written goes into a folder for temporary files that is removed at the end. The caller's
process imports neither torch nor anything else that may be what is broken.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from microformer.errors import FileError
from microformer.pipeline.doctor import paste
from microformer.pipeline.doctor.apart import Apart, Check
from microformer.pipeline.doctor.findings import Around, Finding, mend
from microformer.pipeline.doctor.installation import TORCH_AGAIN, versions

__all__ = ["CHECKS", "COMPILER", "Check", "Finding", "Report", "examine"]


def _look(where: str, around: Around) -> Iterator[Finding]:
    """Brings a check's module in when it is its turn."""
    module, _, function = where.partition(".")
    yield from getattr(import_module(f"{__name__}.{module}"), function)(around)


def _check(name: str, where: str, **how: Any) -> Check:
    return Check(name, partial(_look, where), **how)


CHECKS = (
    _check("python", "installation.python"),
    _check("microformer", "installation.itself"),
    _check("packages", "installation.packages"),
    _check("settings", "here.settings_file", hint="config.py ends the program, or never comes to its end: mend it."),
    _check("torch", "installation.torch", seconds=300, hint=TORCH_AGAIN),
    _check(
        "device", "machine.device", torch=True, seconds=120,
        hint='its driver may be at fault; set DEVICE = "cpu" until it is mended, or CUDA_VISIBLE_DEVICES="" outside.',
    ),
    _check("precision", "machine.precision", torch=True),
    _check("cores", "machine.cores", torch=True),
    _check("memory", "machine.memory"),
    _check("room", "here.room"),
    _check("corpus", "here.corpus", torch=True),
    _check("data", "here.data", torch=True, seconds=120),
    _check("runs", "here.all_runs"),
    _check("overfit", "trial.overfit", torch=True, seconds=180),
    _check("resume", "trial.resume", torch=True, writes=True),
)  # fmt: skip
# Takes as long as all others, mostly waiting for a compiler: it is looked at beside them, once the machine is timed.
COMPILER = _check(
    "compiler", "machine.compiler", torch=True, writes=True, seconds=90, optional=True,
    hint="nothing needs it; without --compile all runs as it is.",
)  # fmt: skip
_BESIDE_AFTER = "precision"


@dataclass(frozen=True)
class Report:
    """What was found.

    Args:
        findings: in the order of the checks.
        paste: all of it as text for a bug report, without names and folders of the user's.
    """

    findings: tuple[Finding, ...]
    paste: str

    @property
    def healthy(self) -> bool:
        """Whether nothing has to be mended."""
        return not any(one.state == "mend" for one in self.findings)

    @property
    def verdict(self) -> str:
        """How it stands, in words."""
        return paste.verdict(self.findings)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {"healthy": self.healthy, "findings": [asdict(one) for one in self.findings], "paste": self.paste}


def examine(
    begun: Callable[[str], None] = lambda name: None,
    found: Callable[[Finding], None] = lambda finding: None,
    checks: Sequence[Check] = CHECKS,
    beside: Check | None = COMPILER,
) -> Report:
    """Looks at everything, in the folder where we are. What goes wrong is found, and not raised.

    Args:
        begun: told the name of each check when it is its turn.
        found: told each finding when it is there.
        checks: looked at one after another.
        beside: looked at meanwhile, and told at the end.

    Raises:
        FileError: the folder where we are is gone, and in none no program can be started.
    """
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise FileError("the folder that you are in is gone.", "go into another one: cd ~") from error
    every: list[Finding] = []

    def tell(findings: Sequence[Finding]) -> None:
        for one in findings:
            every.append(one)
            found(one)

    with _scratch() as (scratch, refused):
        tell(refused)
        other = None
        try:
            with Apart(checks, Around(scratch)) as patient:
                for check in checks:
                    begun(check.name)
                    tell(patient.next())
                    if check.name == _BESIDE_AFTER and beside is not None:
                        other = Apart([beside], patient.around)
            if beside is not None:
                begun(beside.name)
                other = other or Apart([beside], patient.around)
                tell(other.next())
        finally:
            if other is not None:
                other.end()
    return Report(tuple(every), paste.text(every, versions()))


@contextmanager
def _scratch() -> Iterator[tuple[Path | None, list[Finding]]]:
    """A folder for temporary files; None, and a finding, where there is no room for one."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="microformer-doctor-"))
    except OSError as error:
        reason = (error.strerror or str(error)).rstrip(".")
        hint = "free some space there, or name another folder in TMPDIR."
        yield None, [mend(f"no folder for temporary files can be made: {reason}.", hint, "room")]
        return
    try:
        yield folder, []
    finally:
        shutil.rmtree(folder, ignore_errors=True)
