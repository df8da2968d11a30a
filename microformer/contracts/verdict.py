"""What is said of a contract."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """What was seen of one contract.

    Args:
        contract: its name, a sentence.
        kept: whether it holds.
        detail: where it does not, and by how much; "" if it holds.
    """

    contract: str
    kept: bool
    detail: str = ""


def verdict(contract: Callable[..., Any], detail: str) -> Verdict:
    """What is said of a contract whose docstring is its sentence: kept where there is no detail."""
    return Verdict((contract.__doc__ or "").strip(), not detail, detail)
