"""The progress display: an observer that tells a person how training goes. Knows the terminal, and nothing of models.

A table that grows by a row with each validation (without any: 16 times in a run), and, on a terminal, one living line
with a bar under it. No line is wider than 80 columns.
"""

import sys
import time
from typing import TextIO

from microformer.training.observers import Observer, Row

_ROWS = 16
# After so many steps the time they take can be foreseen.
_SETTLED = 10


class Progress(Observer):
    """Shows step, loss, validation loss, bits a character, speed, time gone and time left.

    Args:
        steps: how many there will be; None where the clock decides.
        bits_per_nat: what a loss in nats a token is in bits a character.
        stream: where to; standard output if left out.
    """

    def __init__(self, steps: int | None, bits_per_nat: float, stream: TextIO | None = None):
        self.steps = steps
        self.bits_per_nat = bits_per_nat
        self.stream = stream or sys.stdout
        self.latest: Row = {}
        self.progress = 0.0
        self.steps_seen = 0
        self.shown: float | None = None  # the progress at the last row of the table; None before the first
        self.began: tuple[float, float] | None = None
        self.bar = _Bar(self.stream) if self.stream.isatty() else None

    def __enter__(self) -> "Progress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def on_step(self, step: int, progress: float, seconds: float) -> None:
        if self.began is None:
            self.began = (progress, time.perf_counter())
        self.progress = progress
        self.steps_seen += 1
        if self.steps_seen == _SETTLED and progress < 1:
            self._say(f"about {_duration(self._left())} to go at this pace")
        if self.bar:
            of = f"/{self.steps:,}" if self.steps else ""
            self.bar.update(progress, f"step {step:,}{of}", _duration(seconds), _duration(self._left()), self.latest)

    def on_row(self, row: Row) -> None:
        self.latest = {**self.latest, **row}
        since = 0.0 if self.shown is None else self.shown
        if "val_loss" in row or self.progress >= 1 or int(self.progress * _ROWS) > int(since * _ROWS):
            if self.shown is None:
                self._say(_row("step", "loss", "validation", "bits/char", "tokens/s", "elapsed", "left"))
            self.shown = self.progress
            self._say(self._figures(row))

    def _figures(self, row: Row) -> str:
        val = row.get("val_loss")
        return _row(
            f"{int(row['step']):,}",
            f"{self.latest['train_loss']:.4f}" if "train_loss" in self.latest else "–",
            "–" if val is None else f"{val:.4f}",
            "–" if val is None else f"{val * self.bits_per_nat:.3f}",
            _thousands(self.latest["tokens_per_second"]) if "tokens_per_second" in self.latest else "–",
            _duration(row["seconds"]),
            _duration(self._left()) if self.progress < 1 else "",
        )

    def _say(self, line: str) -> None:
        if self.bar:
            self.bar.say(line)
        else:
            print(line, file=self.stream, flush=True)

    def _left(self) -> float:
        """Seconds until the end, at the pace so far."""
        first, since = self.began or (0.0, time.perf_counter())
        gone = self.progress - first
        return max(0.0, (time.perf_counter() - since) * (1 - self.progress) / gone) if gone > 0 else 0.0


class _Bar:
    """The living line."""

    def __init__(self, stream: TextIO):
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"), BarColumn(bar_width=12), TextColumn("{task.fields[clock]}"),
            TextColumn("{task.fields[figures]}"),
        )  # fmt: skip
        self.console = Console(file=stream, highlight=False)
        # Gone when it ends: the table's last row says the same.
        self.bar = Bar(*columns, console=self.console, refresh_per_second=8, transient=True)
        self.task = self.bar.add_task("starting", total=1.0, clock="", figures="")

    def start(self) -> None:
        self.bar.start()

    def stop(self) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False)

    def update(self, progress: float, step: str, gone: str, left: str, latest: Row) -> None:
        parts = [f"loss {latest['train_loss']:.3f}"] if "train_loss" in latest else []
        if "tokens_per_second" in latest:
            parts.append(f"{_thousands(latest['tokens_per_second'])} tokens/s")
        clock, figures = f"{gone}, {left} left ", "  ".join(parts)
        self.bar.update(self.task, completed=min(progress, 1.0), description=step, clock=clock, figures=figures)


def _row(*cells: str) -> str:
    """Cells under one another, each as wide as its widest content can be."""
    widths = (9, 9, 12, 11, 10, 9, 9)
    # A loss of a diverging run may be wider than its column: a blank between all the same.
    return "".join(f" {cell:>{width - 1}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _thousands(number: float) -> str:
    """950, 9.5k, 95k."""
    if number < 1000:
        return f"{number:.0f}"
    return f"{number / 1000:.1f}k" if number < 9950 else f"{number / 1000:,.0f}k"


def _duration(seconds: float) -> str:
    """1:05, or 2:03:09."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
