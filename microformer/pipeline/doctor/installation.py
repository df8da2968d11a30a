"""The installation: Python, Microformer, its packages, torch. Knows no folder of the user's and trains nothing."""

import importlib
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import microformer
from microformer.pipeline.doctor.findings import Around, Finding, mend, note, ok

OLDEST_PYTHON = (3, 10)
_AGAIN = "install what it needs: pip install -e . (or pip install --upgrade microformer)."
TORCH_AGAIN = (
    "install it anew: pip install --force-reinstall torch; https://pytorch.org/get-started has the line for a GPU."
)


def python(around: Around) -> Iterator[Finding]:
    """Which Python, and on what."""
    bits = 64 if sys.maxsize > 2**32 else 32
    where = "in a virtual environment" if sys.prefix != sys.base_prefix else "in no virtual environment"
    system = f"{platform.system()} {platform.machine()}"
    said = f"{platform.python_version()}, {bits} bit, {where}; {system}"
    if sys.version_info < OLDEST_PYTHON or bits == 32:
        wanted = "a Python of 64 bits, " + ".".join(map(str, OLDEST_PYTHON)) + " or newer"
        yield mend(f"{said}: PyTorch is not made for it.", f"use {wanted}.")
    else:
        yield ok(said)


def itself(around: Around) -> Iterator[Finding]:
    """Which Microformer."""
    home = Path(microformer.__file__).parents[1]
    try:
        found = metadata.distribution("microformer")
    except metadata.PackageNotFoundError:
        yield note(f"runs from {home}, and is not installed.", "install it: pip install -e . in that folder.")
        return
    commit = _commit(home)
    editable = '"editable": true' in (found.read_text("direct_url.json") or "")
    how = "editable, from a clone" if editable else "installed"
    yield ok(f"{found.version}, {how}{f', at {commit}' if commit else ''}")


def packages(around: Around) -> Iterator[Finding]:
    """The packages that Microformer needs, and those that it can use: there, new enough, and to be imported."""
    wanted = requirements()
    if not wanted:
        yield note("which are needed is not known, for Microformer is not installed.", "install it: pip install -e .")
        return
    needed, broken = wanted.pop(""), 0
    for name, least in needed.items():
        # torch has a check of its own
        if name != "torch" and (wrong := _wrong_with(name, least)):
            broken += 1
            yield mend(wrong, _AGAIN)
    if not broken:
        yield ok(f"all {len(needed)} that are needed are there")
    there, absent = [], []
    for extra, parts in wanted.items():
        wrong = [found for name, least in parts.items() if (found := _wrong_with(name, least, imported=False))]
        missing = sum("is missing" in one for one in wrong)
        (absent if missing else there).append(extra)
        if wrong and not missing:
            yield note(wrong[0], f'pip install --upgrade "microformer[{extra}]"', "extras")
    said = f"of those for single purposes there are: {', '.join(there) or 'none'}"
    if absent:
        said += f'; not there: {", ".join(absent)} (pip install "microformer[{absent[0]}]" where you want it)'
    yield ok(said, "extras")


def torch(around: Around) -> Iterator[Finding]:
    """Whether torch can be imported, is new enough, and goes together with NumPy."""
    least = requirements().get("", {}).get("torch", "")
    try:
        import torch
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "torch"
        why = "is missing" if missing else f"can't be imported: {_first_line(error)}"
        yield mend(f"torch {why}.", "install it: pip install torch." if missing else TORCH_AGAIN)
        return
    if not hasattr(torch, "nn") or not hasattr(torch, "__version__"):
        where = getattr(torch, "__file__", None) or next(iter(getattr(torch, "__path__", [])), "an unknown place")
        yield mend(f"what is imported as torch is no PyTorch: {where}.", "rename that file or folder, or take it away.")
        return
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    if getattr(torch.version, "hip", None):
        built = f"built for ROCm {torch.version.hip}"
    said = f"{torch.__version__}, {built}"
    if older(torch.__version__, least):
        yield mend(f"{said}: it is too old, {least} is the least.", "pip install --upgrade torch.")
        return
    try:
        torch.from_numpy(torch.zeros(2).numpy())
    except (RuntimeError, TypeError) as error:
        yield mend(
            f"{said}: it and NumPy {_version('numpy')} don't go together: {_first_line(error)}.",
            "install both anew: pip install --upgrade torch numpy.",
        )
        return
    yield ok(said)


def requirements() -> dict[str, dict[str, str]]:
    """For each extra ("" for what is always needed, and without "dev") the packages and their least versions; empty
    where that is written nowhere."""
    found: dict[str, dict[str, str]] = {}
    for extra, line in _written():
        name = re.match(r"[A-Za-z0-9._-]+", line)
        least = re.search(r">=\s*([\d.]+)", line.partition(";")[0])
        newest = re.search(r"python_version\s*<\s*['\"]([\d.]+)", line)
        if name is None or extra == "dev" or (newest and not older(platform.python_version(), newest[1])):
            continue
        found.setdefault(extra, {})[name[0]] = least[1] if least else ""
    return found


def _written() -> Iterator[tuple[str, str]]:
    """(extra, requirement) as pyproject.toml has them in a clone, which may be newer than what was installed from it;
    else as the installed package has them."""
    project = Path(microformer.__file__).parents[1] / "pyproject.toml"
    if project.is_file() and (tables := _toml(project)):
        yield from (("", line) for line in tables["project"]["dependencies"])
        for extra, lines in tables["project"]["optional-dependencies"].items():
            yield from ((extra, line) for line in lines)
        return
    try:
        lines = metadata.requires("microformer") or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", line)
        yield extra[1] if extra else "", line


def _toml(path: Path) -> dict[str, Any]:
    """Empty where this Python can't read it: it can from 3.11 on."""
    try:
        tomllib = importlib.import_module("tomllib")
    except ImportError:
        return {}
    return tomllib.loads(path.read_text(encoding="utf-8"))


def versions() -> dict[str, str]:
    """The versions of all packages that are needed or can be used, of those that are there."""
    names = dict.fromkeys(name for parts in requirements().values() for name in parts) or {"torch": None}
    return {name: found for name in names if (found := _version(name))}


def older(version: str, least: str) -> bool:
    """Whether a version is below another. Only the numbers before any letter count: 2.4.0a1 is as new as 2.4.0."""

    def numbers(word: str) -> tuple[int, ...]:
        return tuple(int(one) for one in re.findall(r"\d+", re.match(r"[\d.]*", word)[0]))  # type: ignore[index]

    there, wanted = numbers(version), numbers(least)
    length = max(len(there), len(wanted))
    return there + (0,) * (length - len(there)) < wanted + (0,) * (length - len(wanted))


def _wrong_with(name: str, least: str, imported: bool = True) -> str:
    """What is wrong with a package, in a sentence; "" for nothing."""
    version = _version(name)
    if not version:
        return f"the package {name} is missing."
    if older(version, least):
        return f"the package {name} {version} is too old: {least} is the least."
    if not imported:
        return ""
    module = name.replace("-", "_")
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return "" if error.name == module else f"the package {name} {version} can't be imported: {_first_line(error)}."
    except Exception as error:  # a package that is broken can raise anything
        return f"the package {name} {version} can't be imported: {_first_line(error)}."
    return ""


def _version(name: str) -> str:
    """A package's version; "" where it is not there, or half there."""
    try:
        return metadata.version(name) or ""
    except metadata.PackageNotFoundError:
        return ""


def _commit(home: Path) -> str:
    """The commit that a clone is at, which says more than a version; "" where there is no clone, or no git."""
    if not (home / ".git").exists():
        return ""
    command = ["git", "-C", str(home), "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
