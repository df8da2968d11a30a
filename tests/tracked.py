"""What trackers wrote, read back by the libraries whose files they are; and W&B kept to itself."""

import json
import os
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from microformer.trackers import wandb_files

_ALL = {"scalars": 0, "images": 0, "tensors": 0, "histograms": 0}
_TIMES = ("_runtime", "_timestamp")


def alone(monkeypatch, home: Path) -> None:
    """Nothing of the user's is read or written by W&B, and nothing is sent."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home.mkdir()
    for name in ("HOME", "USERPROFILE", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def tensorboard(run: Path) -> EventAccumulator:
    """A run's event files."""
    found = EventAccumulator(str(run / "tensorboard"), size_guidance=_ALL)
    found.Reload()
    return found


def points(found: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    """A curve as TensorBoard has it, in float32."""
    return [(event.step, event.value) for event in found.Scalars(tag)]


def wandb_parts(run: Path) -> list[list[dict]]:
    """What each part of a run has logged to W&B, in the order in which they were begun; times aside."""
    found = []
    for path in sorted((run / "wandb").glob("offline-run-*/run-*.wandb")):
        logged = [items for _, items in wandb_files.history(path.read_bytes())]
        found.append([{k: json.loads(v) for k, v in one.items() if k not in _TIMES} for one in logged])
    return found
