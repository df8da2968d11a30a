"""Runs before every test: shapes and types in signatures are checked while the tests run, and nowhere else."""

import os

# One thread is faster for models this small, and the same numbers come out on every machine's CPU count.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import checked_types
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("microformer", "checked_types.checked")

# A busy machine is no fault of the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_runtest_setup() -> None:
    checked_types.begin()


def pytest_collection_modifyitems(items: list) -> None:
    """The file whose tests take longest comes first: begun last, it would be waited for while a core is idle."""
    items.sort(key=lambda item: item.path.name != "test_killed.py")
