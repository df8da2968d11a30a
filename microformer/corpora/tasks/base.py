"""What every task is: examples of one length, each made from a number, and the text that they are together."""

import hashlib
import random
from abc import ABC, abstractmethod
from dataclasses import fields
from typing import ClassVar

from microformer.errors import DataError

_EXAMPLES = 20_000
# The share that is held out: one in so many.
HELD_OUT = 1 / 10
_ONE_IN = 10
# How many times as many are made before a task is said to have too few different ones.
_TRIES = 20


class Task(ABC):
    """A kind of question with known answers. An example ends with its answer."""

    # What it is, in a line.
    about: ClassVar[str]

    @property
    @abstractmethod
    def example(self) -> int:
        """Characters an example."""

    @property
    @abstractmethod
    def answer(self) -> int:
        """Characters of an example's answer, its last ones."""

    @abstractmethod
    def made(self, draw: "Draw") -> str:
        """An example. draw: gives its random numbers."""

    @property
    def name(self) -> str:
        """The task and its arguments, as CORPUS names it."""
        arguments = ", ".join(f"{one.name}={getattr(self, one.name)}" for one in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__.lower()}({arguments})"

    def text(self) -> str:
        """All examples: those to learn from, then those held out.

        Raises:
            DataError: the task has too few different examples.
        """
        wanted = {False: _EXAMPLES - _EXAMPLES // _ONE_IN, True: _EXAMPLES // _ONE_IN}
        parts: dict[bool, list[str]] = {False: [], True: []}
        seen: set[str] = set()
        for number in range(_TRIES * _EXAMPLES):
            made = self.made(Draw(f"{self.name} {number}"))
            part = parts[held_out := _hash(made) % _ONE_IN == 0]
            if made not in seen and len(part) < wanted[held_out]:
                seen.add(made)
                part.append(made)
            if len(seen) == _EXAMPLES:
                return "".join(parts[False] + parts[True])
        raise DataError(
            f"{self.name} has only {len(seen):,} different examples, and {_EXAMPLES:,} are wanted.",
            "give it more symbols, or a greater length.",
        )


class Draw:
    """Random numbers that are the same for the same seed, in every Python."""

    def __init__(self, seed: str):
        self._generator = random.Random(seed)

    def below(self, n: int) -> int:
        """One of 0 … n − 1."""
        return int(self._generator.random() * n)  # of its methods, the one that is promised not to change

    def different(self, symbols: str, count: int) -> str:
        """So many symbols, no two alike, in random order."""
        left = list(symbols)
        return "".join(left.pop(self.below(len(left))) for _ in range(count))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
