"""What a request says, checked: every value is of its kind and in its range before anything is done with it.

Knows what a request may say in general; what a view wants of it, the view says.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from microformer.errors import MicroformerError, nearest

# The longest text that is cut into tokens, in characters: many times what any context holds.
MOST_TEXT = 100_000
_MOST_EDITS = 1000
_MOST_WORDS = 100


class AskedError(MicroformerError):
    """A request that can't be answered as it is.

    Args:
        status: HTTP's number for it.
    """

    def __init__(self, sentence: str, hint: str = "", status: int = 400):
        super().__init__(sentence, hint)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.sentence, self.hint, self.status)


class Words:
    """The fields of a request; each way to read one raises AskedError where it can't be."""

    def __init__(self, fields: Mapping[str, Any]):
        self.fields = fields

    @staticmethod
    def read(body: bytes) -> "Words":
        """The fields of a request's body, a JSON object."""
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            raise AskedError("the request is not JSON.", "send an object of fields.") from None
        if not isinstance(fields, dict):
            raise AskedError("the request is no object of fields.", "send one, such as {}.")
        return Words(fields)

    def text(self, name: str, usual: str | None = None, most: int = MOST_TEXT) -> str:
        """A string of at most so many characters."""
        value = self._of(name, usual)
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        if len(value) > most:
            raise AskedError(f"{name} has {len(value):,} characters, more than {most:,}.", "give a shorter one.")
        return value

    def whole(self, name: str, least: int, most: int, usual: int | None = None) -> int:
        """A whole number in a range, both ends allowed."""
        value = self._of(name, usual)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, "a whole number")
        if not least <= value <= most:
            raise AskedError(f"{name} {value} can't be: it is from {least} to {most}.", "choose one of these.")
        return value

    def number(self, name: str, usual: float) -> float:
        """A number, which is finite."""
        value = self._of(name, usual)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self._wrong(name, "a number")
        return float(value)

    def one_of(self, name: str, choices: Sequence[str], usual: str | None = None) -> str:
        """One of some words."""
        value = self.text(name, usual, most=_MOST_WORDS)
        if value not in choices:
            meant = nearest(value, choices)
            hint = f"did you mean {meant!r}? " if meant else ""
            raise AskedError(f"{name} {value!r} is not known.", f"{hint}There are: {', '.join(choices)}.")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of short strings, which may be missing."""
        value = self._of(name, ())
        if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
            raise self._wrong(name, "a list of texts")
        if len(value) > _MOST_EDITS or any(len(one) > _MOST_WORDS for one in value):
            raise AskedError(f"{name} is too long.", f"give at most {_MOST_EDITS:,}, of {_MOST_WORDS} characters each.")
        return tuple(value)

    def ids(self, name: str, vocab_size: int, most: int) -> list[int]:
        """A list of token ids, which may be missing."""
        value = self._of(name, [])
        whole = isinstance(value, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in value)
        if not whole:
            raise self._wrong(name, "a list of ids")
        if len(value) > most:
            raise AskedError(f"{name} has {len(value):,} ids, more than {most:,}.", "give fewer.")
        if outside := [one for one in value if not 0 <= one < vocab_size]:
            raise AskedError(f"{name} has {outside[0]}, and ids are from 0 to {vocab_size - 1}.", "take it out.")
        return value

    def has(self, name: str) -> bool:
        """Whether a field is there, and not null."""
        return self.fields.get(name) is not None

    def checkpoint(self) -> str:
        """Which checkpoint: `best`, `last`, a step, or `probe-` and a step."""
        value = self.text("checkpoint", "best", most=_MOST_WORDS)
        if not re.fullmatch(r"best|last|(probe-)?[0-9]{1,12}", value):
            raise AskedError(f"there is no checkpoint {value!r}.", "best, last, a step, or probe- and a step.")
        return value

    def _of(self, name: str, usual: Any) -> Any:
        value = self.fields.get(name)
        value = usual if value is None else value
        if value is None:
            raise AskedError(f"the request lacks {name!r}.", "reload the page.")
        return value

    def _wrong(self, name: str, what: str) -> AskedError:
        shown = repr(self.fields[name])
        return AskedError(f"{name} {shown[:60]} is not {what}.", "reload the page.")
