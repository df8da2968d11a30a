"""What a check is given, and what it says: a line, and what to do. Knows no check."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# ok: as it should be. note: it works, and could be better. mend: something fails. left: it could not be looked at.
State = Literal["ok", "note", "mend", "left"]


@dataclass(frozen=True)
class Around:
    """What a check is given.

    Args:
        scratch: a folder that it may write into; None where there is none.
        fatal: the checks that ended their program or never came to an end; what they looked at is to be left alone.
    """

    scratch: Path | None
    fatal: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Finding:
    """One line of what was found.

    Args:
        state: ok, note, mend or left.
        said: what is there, in a line.
        hint: what to do about it; "" where there is nothing to do.
        check: what was looked at, such as "torch"; "" for the check that says it.
    """

    state: State
    said: str
    hint: str = ""
    check: str = ""


def ok(said: str, check: str = "") -> Finding:
    """All is well."""
    return Finding("ok", said, check=check)


def note(said: str, hint: str, check: str = "") -> Finding:
    """It works, and here is what would make it better."""
    return Finding("note", said, hint, check)


def mend(said: str, hint: str, check: str = "") -> Finding:
    """It fails, or will."""
    return Finding("mend", said, hint, check)


def size(count: int | float) -> str:
    """Bytes in words: 1.1 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:,.1f} {unit}"
