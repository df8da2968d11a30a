"""The packages that sweeps and scaling laws take besides those that training does. Knows where they come from."""

import importlib
from types import ModuleType

from microformer.errors import SettingsError


def needed(name: str) -> ModuleType:
    """A package, imported.

    Raises:
        SettingsError: it is not there.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] != name.partition(".")[0]:
            raise  # it is there, and what it takes itself is not
        raise SettingsError(
            f"this takes the package {name.partition('.')[0]}.", 'pip install "microformer[experiments]"'
        ) from missing
