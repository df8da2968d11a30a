"""Microformer: a small transformer language model to read in an afternoon, train in minutes and take apart.

    from microformer import train, generate
    run = train(max_minutes=1)
    print(generate(run, "ROMEO:"))

Names are brought in when they are first used, so that importing the package does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microformer.models.model import Microformer
    from microformer.models.spec import ModelSpec
    from microformer.pipeline import evaluate, generate, train
    from microformer.runs import load_run

__all__ = ["Microformer", "ModelSpec", "evaluate", "generate", "load_run", "train"]

_HOMES = {
    "Microformer": "microformer.models.model",
    "ModelSpec": "microformer.models.spec",
    "evaluate": "microformer.pipeline",
    "generate": "microformer.pipeline",
    "load_run": "microformer.runs",
    "train": "microformer.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'microformer' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
