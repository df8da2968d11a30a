"""`doctor`: is all well with this installation, this machine and this folder, and what is to be done?"""

import argparse
import json
import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from microformer.errors import BROKEN

if TYPE_CHECKING:
    from microformer.pipeline.doctor import Finding

_WORDS = {"ok": "ok", "note": "note", "mend": "MEND", "left": "–"}
_COLOURS = {"ok": "32", "note": "33", "mend": "1;31", "left": "2"}  # as terminals number them
_INDENT = 19
_WIDEST = 120


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="as JSON")


def act(args: argparse.Namespace) -> int:
    from microformer.pipeline import doctor

    with _ended_in_order():
        if args.json:
            report = doctor.examine()
            print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
            return 0 if report.healthy else BROKEN
        with _Waiting() as waiting:
            report = doctor.examine(waiting.show, lambda finding: print(waiting.cleared(_line(finding)), flush=True))
    print(f"\n{report.verdict[0].upper()}{report.verdict[1:]}. For a bug report, paste this into it:\n\n{report.paste}")
    return 0 if report.healthy else BROKEN


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """While inside, a closed window or a termination takes away first what was begun, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may take signals
        return

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    ending = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, leave) for number in ending}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _line(finding: "Finding") -> str:
    """A finding as it is printed, wrapped to the terminal. By Python alone: what else draws may be what is broken."""
    on_terminal = sys.stdout.isatty()
    width = min(_WIDEST, shutil.get_terminal_size().columns) if on_terminal else _WIDEST
    hint = f"\n→ {finding.hint}" if finding.hint else ""
    lines = [
        line
        for part in (finding.said + hint).split("\n")
        for line in textwrap.wrap(part, max(20, width - _INDENT), break_on_hyphens=False, break_long_words=False)
        or [""]
    ]
    word = f"{_WORDS[finding.state]:<6}"
    if on_terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb":
        word = f"\x1b[{_COLOURS[finding.state]}m{word}\x1b[0m"
    head = f"{word}{finding.check:<{_INDENT - 6}}"
    return head + ("\n" + " " * _INDENT).join(lines)


class _Waiting:
    """Says, on a terminal, what is being looked at, on a line that goes when it was."""

    def __init__(self) -> None:
        self.shown = sys.stdout.isatty()

    def __enter__(self) -> "_Waiting":
        return self

    def __exit__(self, *_: object) -> None:
        print(self.cleared(""), end="", flush=True)

    def show(self, name: str) -> None:
        if self.shown:
            print(self.cleared(f"…     {name}"), end="", flush=True)

    def cleared(self, line: str) -> str:
        """A line to print in the place of what is shown."""
        return f"\r\x1b[K{line}" if self.shown else line
