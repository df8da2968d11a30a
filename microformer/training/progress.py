"""The progress display: an observer that tells a person how training goes. Knows the terminal, and nothing of models.

On a terminal one living line with a bar; elsewhere (a file, a notebook, CI) a plain line now and then.
"""

import sys
import time
from typing import TextIO

from microformer.training.observers import Observer, Row

# Plain lines: this many in a run, and one more after ten steps, when the time it takes can be foreseen.
_LINES = 16


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
        self.shown = 0.0
        self.began: tuple[float, float] | None = None
        self.told = False
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
        if step == 10 and not self.told:
            self.told = True
            self._say(f"{'':>10}about {_duration(self._left(progress))} to go")
        if self.bar:
            self.bar.update(progress, f"step {step:,}{self._of()}", self._figures(), seconds, self._left(progress))
        elif self.latest and (progress >= 1 or int(progress * _LINES) > int(self.shown * _LINES)):
            self.shown = progress
            self._line(step, seconds, progress)

    def on_row(self, row: Row) -> None:
        self.latest = {**self.latest, **row}
        if self.bar and "val_loss" in row:
            self._say(f"step {int(row['step']):>7,}  {self._figures()}  {_duration(row['seconds'])}")

    def _line(self, step: int, seconds: float, progress: float) -> None:
        left = f", {_duration(self._left(progress))} left" if progress < 1 else ""
        self._say(f"step {step:>7,}{self._of()}  {self._figures()}  {_duration(seconds)}{left}")

    def _say(self, line: str) -> None:
        if self.bar:
            self.bar.say(line)
        else:
            print(line, file=self.stream, flush=True)

    def _of(self) -> str:
        return f" of {self.steps:,}" if self.steps else ""

    def _figures(self) -> str:
        row = self.latest
        parts = []
        if "train_loss" in row:
            parts.append(f"loss {row['train_loss']:.3f}")
        if "val_loss" in row:
            parts.append(f"validation {row['val_loss']:.4f} ({row['val_loss'] * self.bits_per_nat:.3f} bits/char)")
        if "tokens_per_second" in row:
            parts.append(f"{row['tokens_per_second'] / 1000:,.0f}k tokens/s")
        return "  ".join(parts)

    def _left(self, progress: float) -> float:
        """Seconds until the end, at the pace so far."""
        first, since = self.began or (0.0, time.perf_counter())
        gone = progress - first
        return (time.perf_counter() - since) * (1 - progress) / gone if gone > 0 else 0.0


class _Bar:
    """The living line."""

    def __init__(self, stream: TextIO):
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[clock]}"),
            TextColumn("{task.fields[figures]}"),
        )  # fmt: skip
        self.console = Console(file=stream, highlight=False)
        self.bar = Bar(*columns, console=self.console, refresh_per_second=8)
        self.task = self.bar.add_task("starting", total=1.0, clock="", figures="")

    def start(self) -> None:
        self.bar.start()

    def stop(self) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False)

    def update(self, progress: float, step: str, figures: str, seconds: float, left: float) -> None:
        clock = f"{_duration(seconds)} < {_duration(left)}"
        self.bar.update(self.task, completed=min(progress, 1.0), description=step, figures=figures, clock=clock)


def _duration(seconds: float) -> str:
    """1:05, or 2:03:09."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
