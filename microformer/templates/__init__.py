"""A start for a component of one's own, one file a slot: each works, and says what may be changed. `microformer new`
copies one and gives its class the file's name. Knows nothing of where it is copied to.
"""

import re
from pathlib import Path

from microformer.errors import SettingsError, nearest

SLOTS = ("attention", "positions", "feedforward", "norm", "memory", "optimizer", "schedule")


def class_name(file: Path) -> str:
    """The class that a file is about: my_attention.py has MyAttention.

    Raises:
        SettingsError: the file's name makes no name of a class, or is not that of a file of Python.
    """
    name = "".join(word[:1].upper() + word[1:] for word in re.split(r"[^A-Za-z0-9]+", file.stem))
    if file.suffix != ".py" or not name.isidentifier() or re.search(r"[\s():*]", str(file)):
        raise SettingsError(
            f"{file} is no name for a component's file.", "letters, digits and _ do, and .py: my_attention.py."
        )
    return name


def start(slot: str, name: str) -> str:
    """The text of a start.

    Args:
        slot: what it is for, one of SLOTS.
        name: of its class.

    Raises:
        SettingsError: there is no such slot.
    """
    if slot not in SLOTS:
        meant = nearest(slot, SLOTS)
        hint = f"did you mean {meant}? " if meant else ""
        raise SettingsError(f"there is no slot {slot!r}.", f"{hint}There are: {', '.join(SLOTS)}.")
    text = (Path(__file__).parent / f"{slot}.py").read_text(encoding="utf-8")
    return text.replace(f"My{slot.capitalize()}", name)
