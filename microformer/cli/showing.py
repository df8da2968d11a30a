"""What several verbs show: tables, a progress, and output that nobody may be reading. Knows no verb."""

import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from microformer.errors import notice

if TYPE_CHECKING:
    from rich.console import Console

# The longest word of a row's name that is not broken, in letters.
_NAMED = 32


def table(rows: list[dict[str, Any]], formats: dict[str, str]) -> None:
    """Prints rows under the names of their columns; those that have a format stand to the right."""
    from rich.table import Table

    drawn_up = Table(box=None, pad_edge=False)
    first = next(iter(rows[0]))
    # In a narrow window the others give way before what a row is called is cut up.
    named = max((len(word) for row in rows for word in str(row[first]).split()), default=0)
    for name in rows[0]:
        least = min(named, _NAMED) if name == first else None
        drawn_up.add_column(name, justify="right" if name in formats else "left", overflow="fold", min_width=least)
    for row in rows:
        drawn_up.add_row(
            *("–" if value is None else format(value, formats.get(name, "")) for name, value in row.items())
        )
    screen, drawn = console(160)
    screen.print(drawn_up, markup=False)
    print(drawn.getvalue(), end="")


def console(width: int) -> "tuple[Console, io.StringIO]":
    """A console for standard output, as wide as the terminal, and what it draws: ours to print, for rich answers a
    closed pipe in a way of its own."""
    from rich.console import Console

    on_terminal, drawn = sys.stdout.isatty(), io.StringIO()
    return Console(file=drawn, force_terminal=on_terminal, width=None if on_terminal else width, highlight=False), drawn


class BytesShown:
    """Shows, on a terminal, how much of a text was fetched, read and encoded."""

    def __enter__(self) -> Callable[[str, int, int], None] | None:
        if not sys.stderr.isatty():
            self.bar = None
            return None
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True), transient=True)
        self.bar.start()
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            assert self.bar is not None
            if stage not in tasks:
                tasks[stage] = self.bar.add_task(stage, total=total or None)
            self.bar.update(tasks[stage], completed=done, total=total or None)

        return show

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()


class GoesOn(io.TextIOBase):
    """Standard output for work that goes on when nobody reads it any more, or there is no room for it."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        return self._tried(self.stream.write, text) or len(text)

    def flush(self) -> None:
        self._tried(self.stream.flush)

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    def _tried(self, what: Callable[..., Any], *words: Any) -> Any:
        try:
            return what(*words)
        except OSError as error:
            drop_output()
            notice(f"the output can't be written any more ({error.strerror}); the training goes on without it.")
            return None


def drop_output() -> None:
    """What is still buffered, and what comes, goes nowhere; it must not raise again when Python closes the stream."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def asked(question: str) -> str:
    """A line from standard input; "" at its end. The question goes to standard error, so that output is text alone."""
    print(question, end="", file=sys.stderr, flush=True)
    if sys.stdin.isatty():
        line = sys.stdin.readline()
    else:  # UTF-8 as in every file; a byte that is none becomes a character that no vocabulary has
        line = sys.stdin.buffer.readline().decode("utf-8", "surrogateescape")
        print(file=sys.stderr)
    return line.rstrip("\r\n")
