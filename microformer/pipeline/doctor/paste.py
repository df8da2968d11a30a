"""The findings as text for a bug report, from which nobody can tell whose machine it is.

Paths are cut to their last part, the user's name and passwords in addresses are taken out, and of the environment only
what changes how the program computes is told. Knows no check.
"""

import getpass
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from microformer.devices import SPINS
from microformer.pipeline.doctor.findings import Finding

# Of the environment what changes how the program computes; nothing else of it is told.
_TOLD = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_NUM_THREADS", "KMP_AFFINITY", "CUDA_VISIBLE_DEVICES",
    "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ENABLE_MPS_FALLBACK", "CXX", "CC", "MICROFORMER_CORPORA", "PYTHONUTF8",
)  # fmt: skip


def text(findings: Sequence[Finding], versions: Mapping[str, str]) -> str:
    """All findings, versions and what of the environment matters, as a block that a bug report shows as it is."""
    told = [f"{name}={os.environ[name]}" for name in _TOLD if name in os.environ]
    told = [one for one in told if one != f"GOMP_SPINCOUNT={SPINS}"]  # the command's own
    width = max((len(one.check) for one in findings), default=0)
    lines = [
        f"microformer doctor: {verdict(findings)}",
        f"Python {platform.python_version()} on {platform.platform()}",
        f"packages: {' '.join(f'{name} {version}' for name, version in versions.items())}",
        f"environment: {' '.join(told) or 'nothing that matters is set'}",
        *(f"{one.state:4}  {one.check:{width}}  {one.said}" for one in findings),
    ]
    return "```\n" + "\n".join(without_names(line).replace("`", "'") for line in lines) + "\n```"


def verdict(findings: Sequence[Finding]) -> str:
    """How it stands, in words."""
    counts = {state: sum(one.state == state for one in findings) for state in ("mend", "note", "left")}
    words = {
        "mend": f"{counts['mend']} to mend",
        "note": f"{counts['note']} to know" if counts["note"] != 1 else "1 thing to know",
        "left": f"{counts['left']} not looked at",
    }
    return ", ".join(words[state] for state in words if counts[state]) or "all well"


def without_names(line: str) -> str:
    """A line without the user's name, folders, and passwords in addresses."""
    line = re.sub(r"(\w+://)[^/@\s]*@", r"\1…@", line)
    line = re.sub(r"(\w+://[^\s?]+)\?\S+", r"\1?…", line)
    line = re.sub(r"file:/+", "/", line)
    for folder, name in _folders():
        line = re.sub(rf"{re.escape(folder)}(?=[/\\]|\b|$)", lambda _, name=name: name, line)
    line = re.sub(r"(?:[A-Za-z]:)?[/\\](?:home|Users)[/\\][^\s/\\:,;'\"]+", "<home>", line)
    # Whatever else begins at a root: the last part is what a reader wants.
    line = re.sub(r"(?<![\w:/.~<>…])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:,;'\"]+[/\\])+([^\s/\\:,;'\"]+)", r"…/\1", line)
    user = _user()
    return re.sub(rf"(?<!\w){re.escape(user)}(?!\w)", "<user>", line) if len(user) > 2 else line


def _folders() -> list[tuple[str, str]]:
    """Folders that are called something else, the longest first: what lies in one is not the other's."""
    named = {sys.prefix: "<python>", sys.base_prefix: "<python>", str(Path.home()): "~"}
    with suppress(FileNotFoundError):  # it may have been deleted under us
        named = {str(Path.cwd()): "."} | named
    found = {path: name for path, name in named.items() if len(path) > 1}
    found |= {os.path.realpath(path): name for path, name in found.items()}
    return sorted(found.items(), key=lambda pair: -len(pair[0]))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container whose user has no name
        return ""
