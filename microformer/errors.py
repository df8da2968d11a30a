"""What a user is told: an error they can mend, and a notice they should see. Knows no other room.

An error is one sentence with the offending value and, under it, a hint of what to do. Everything a user can cause
derives from MicroformerError; whatever else reaches the top is a defect of ours and keeps its traceback.
"""

import difflib
import sys
from collections.abc import Iterable
from typing import Any

# The exit code of a check that found something broken.
BROKEN = 1
# The exit code of what Ctrl-C ended.
INTERRUPTED = 130


class MicroformerError(Exception):
    """Something a user can mend.

    Args:
        sentence: what is wrong, with the value that is.
        hint: what to do about it; may be left out only where the sentence already says it.
    """

    exit_code = 2

    def __init__(self, sentence: str, hint: str = ""):
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.sentence, self.hint)  # or another process would lose the hint

    def __str__(self) -> str:
        return f"{self.sentence}\nhint: {self.hint}" if self.hint else self.sentence


class SettingsError(MicroformerError):
    """A setting, a flag or a config file that can't be followed."""


class DataError(MicroformerError):
    """Text, a tokenizer or prepared data that can't be read or used."""


class RunError(MicroformerError):
    """A run folder or a checkpoint that is missing, taken, damaged or of another shape."""


class TrainingError(MicroformerError):
    """A training that can't go on: a loss that is not a number, memory that ran out."""


class DivergedError(TrainingError):
    """A loss or a gradient that is not a number."""


class GenerationError(MicroformerError):
    """A prompt or a sampling option that can't be used."""


class CodeError(MicroformerError):
    """A component in a file of the user's own that can't be used, or must not be run."""


class TrackerError(MicroformerError):
    """A tracker that can't go on; it ends no training."""


class FileError(MicroformerError):
    """A file that can't be read or written: a full disk, a folder that is not writable."""


def notice(line: str) -> None:
    """Tells the user one line that is neither an error nor a result, on standard error."""
    print(f"note: {line}", file=sys.stderr, flush=True)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be, if any is near."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None
