"""What run.json says of a run when it begins."""

import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from microformer import corpora
from microformer.models.spec import ModelSpec
from microformer.settings import BUDGETS, Settings


def described(
    chosen: Settings, model: ModelSpec, parameters: int, data: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """run.json as it is at first.

    Args:
        parameters: how many numbers the model has.
        data: what it is trained on, from `data_described`.
        more: what else it says.
    """
    return {
        "created": now(),
        "settings": chosen.flat(),
        "model": model.to_json(),
        "code": {},
        "parameters": parameters,
        "data": dict(data),
        "versions": versions(),
        "replays_schedule": False,
        "legs": [{"from_step": 0, "from_seconds": 0.0, **budgets(chosen)}],
        "ended": None,
        **more,
    }


def data_described(data: corpora.Prepared) -> dict[str, Any]:
    """What run.json says of prepared data."""
    splits = {split: data.manifest.get(split) for split in ("train", "val", "test")}
    return {"fingerprint": data.fingerprint, "corpus": data.corpus, **splits}


def budgets(chosen: Settings) -> dict[str, float | int]:
    """The settings that end a training."""
    return {name: getattr(chosen.training, name) for name in BUDGETS}


def versions() -> dict[str, str]:
    """Of this program and what it stands on."""
    try:
        own = version("microformer")
    except PackageNotFoundError:  # run from a folder, not installed
        own = "unknown"
    return {
        "microformer": own,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def now() -> str:
    """The time as run.json has it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
