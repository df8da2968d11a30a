"""Shapes and types in signatures, checked where the tests run: the first thousand calls of each test. What comes
after these is mostly the same work again, of which checking would take five sixths."""

from collections.abc import Callable
from functools import wraps
from itertools import count

from beartype import beartype
from jaxtyping import config

_MOST = 1000
_calls = count()


def begin() -> None:
    """From here on calls are checked."""
    global _calls
    _calls = count()
    config.update("jaxtyping_disable", False)


def checked(function: Callable) -> Callable:
    """The function, with its arguments checked, and the last call to be checked counted."""
    checking = beartype(function)

    @wraps(checking)
    def call(*arguments, **named):
        if next(_calls) >= _MOST:
            config.update("jaxtyping_disable", True)
        return checking(*arguments, **named)

    return call
