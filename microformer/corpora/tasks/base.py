"""What every task is: examples of one length, each made from a number, and the text that they are together."""

import hashlib
import random
from abc import ABC, abstractmethod
from dataclasses import fields
from typing import ClassVar

from microformer.errors import DataError

# The share that is held out: one in so many.
HELD_OUT = 1 / 10
_ONE_IN = 10
# How many times as many are made as there should be, to find those that are rare.
_TRIES = 20
_FEWEST = 100
# What a task's name in CORPUS begins with.
PREFIX = "task:"


class Task(ABC):
    """A kind of question with known answers. An example ends with its answer."""

    # What it is, in a line.
    about: ClassVar[str]
    # How many different examples its text has, where there are as many.
    examples: ClassVar[int] = 20_000

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
    def entropy(self) -> float | None:
        """The least mean loss that anyone could have on its answers, in nats a token: 0 where they are certain; None
        where it is not known."""
        return 0.0

    @property
    def name(self) -> str:
        """The task and its arguments, as CORPUS names it."""
        arguments = ", ".join(f"{one.name}={getattr(self, one.name)}" for one in fields(self))  # type: ignore[arg-type]
        return f"{PREFIX}{type(self).__name__.lower()}({arguments})"

    def text(self) -> str:
        """All examples: those to learn from, then a tenth as many held out. Where a task has fewer different ones than
        it should, as many as were found.

        Raises:
            DataError: the task has too few different examples.
        """
        wanted = {False: self.examples - self.examples // _ONE_IN, True: self.examples // _ONE_IN}
        parts: dict[bool, list[str]] = {False: [], True: []}
        seen: set[str] = set()
        seed, since_new = self.name.removeprefix(PREFIX), 0
        for number in range(_TRIES * self.examples):
            made = self.made(Draw(f"{seed} {number}"))
            part = parts[held_out := _hash(made) % _ONE_IN == 0]
            if made not in seen and len(part) < wanted[held_out]:
                seen.add(made)
                part.append(made)
                since_new = 0
            since_new += 1
            if len(seen) == self.examples or since_new > self.examples:
                break
        tenth = min(len(parts[True]), len(parts[False]) // (_ONE_IN - 1))
        if tenth * _ONE_IN < _FEWEST:
            raise DataError(
                f"{self.name} has only {len(seen):,} different examples, and {_FEWEST:,} are the least.",
                "give it more symbols, or a greater length.",
            )
        return "".join(parts[False][: tenth * (_ONE_IN - 1)] + parts[True][:tenth])


class Draw:
    """Random numbers that are the same for the same seed, in every Python."""

    def __init__(self, seed: str):
        self._generator = random.Random(seed)

    def below(self, n: int) -> int:
        """One of 0 … n − 1."""
        return int(self._generator.random() * n)  # of its methods, the one that is promised not to change

    def some(self, symbols: str, count: int) -> str:
        """So many symbols, each any of them."""
        return "".join(symbols[self.below(len(symbols))] for _ in range(count))

    def different(self, symbols: str, count: int) -> str:
        """So many symbols, no two alike, in random order."""
        left = list(symbols)
        return "".join(left.pop(self.below(len(left))) for _ in range(count))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
