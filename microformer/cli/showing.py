"""What several verbs show: tables, a progress, and output that nobody may be reading. Knows no verb."""

import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from microformer.errors import notice

if TYPE_CHECKING:
    from rich.console import Console

# The narrowest that a column of words is folded to, in letters, and what stands between two columns.
_WORDS = 20
_BETWEEN = 2


def table(rows: list[dict[str, Any]], formats: dict[str, str]) -> None:
    """Prints rows under the names of their columns; those that have a format stand to the right. What is too wide for
    the window comes in parts below one another, the first column in each."""
    from rich.table import Table

    texts = [
        {name: "–" if value is None else format(value, formats.get(name, "")) for name, value in row.items()}
        for row in rows
    ]
    screen, drawn = console(160)
    cells = {name: [name, *(row[name] for row in texts)] for name in texts[0]}
    widest = {name: max(map(len, each)) for name, each in cells.items()}
    # Of words, none is broken.
    least = {
        name: widest[name]
        if name in formats
        else max(min(widest[name], _WORDS), *(len(word) for cell in each for word in cell.split()))
        for name, each in cells.items()
    }
    for number, part in enumerate(_parts(least, screen.width)):
        widths = _widths({name: (least[name], widest[name]) for name in part}, screen.width)
        drawn_up = Table(box=None, pad_edge=False)
        for name in part:
            right = "right" if name in formats else "left"
            drawn_up.add_column(name, justify=right, overflow="fold", width=widths[name])
        for row in texts:
            drawn_up.add_row(*(row[name] for name in part))
        screen.print(*["\n"] * bool(number), drawn_up, markup=False, sep="")
    print(drawn.getvalue(), end="")


def _parts(least: dict[str, int], width: int) -> list[list[str]]:
    """The columns in parts that fit a width as far as can be, the first one in each."""
    first, *others = least
    parts, taken = [[first]], least[first]
    for name in others:
        if len(parts[-1]) > 1 and taken + _BETWEEN + least[name] > width:
            parts.append([first])
            taken = least[first]
        parts[-1].append(name)
        taken += _BETWEEN + least[name]
    return parts


def _widths(ranges: dict[str, tuple[int, int]], width: int) -> dict[str, int | None]:
    """A width for each column, from its least to its widest; None where even the least are too many."""
    found = {name: widest for name, (_, widest) in ranges.items()}
    excess = sum(found.values()) + _BETWEEN * (len(found) - 1) - width
    for name in sorted(found, key=lambda name: ranges[name][0] - ranges[name][1]):  # the one with most to give first
        cut = max(0, min(excess, found[name] - ranges[name][0]))
        found[name] -= cut
        excess -= cut
    return dict(found) if excess <= 0 else dict.fromkeys(found)


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
