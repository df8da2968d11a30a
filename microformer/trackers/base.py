"""What a tracker is: somewhere that a run's figures, texts and pictures go while it trains.

Another one is a subclass of `Tracker` with `begin` and `scalars`, and as many of the others as it can show. It may be
slow and it may fail: a thread of its own calls it (lanes.py). Knows no training, no models and no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from microformer.trackers.drawn import Drawn

Row = Mapping[str, int | float]


@dataclass(frozen=True)
class About:
    """The run that is tracked.

    Args:
        name: what it is called.
        folder: its run folder; a tracker's files lie in a folder of its own name in there.
        info: run.json: settings, model, data, versions.
        step: where it goes on; 0 for a new one. What the tracker has of later steps will be made again, and has to go.
        rows: what metrics.jsonl has until there. A tracker that lost some of them, or never saw them, can add them.
    """

    name: str
    folder: Path
    info: Mapping[str, Any]
    step: int = 0
    rows: Sequence[Row] = ()


class Tracker:
    """Takes what a run shows of itself; this one shows none of it to anyone. Each method may raise: then the tracker is
    off, and that is told once.

    Steps never fall, but several calls may be of one step. Names are words with at most one `/`, before which stands
    the group they belong to: `train_loss`, `grad_norm/blocks.0`.
    """

    name: ClassVar[str] = "tracker"

    def begin(self, about: About) -> None:
        """Called once, before all else."""

    def scalars(self, step: int, values: Mapping[str, int | float]) -> None:
        """Numbers measured at a step: a row of metrics.jsonl and what else was measured with it."""

    def text(self, step: int, name: str, text: str) -> None:
        """A text, such as a sample."""

    def image(self, step: int, name: str, picture: Drawn) -> None:
        """A picture: its `pixels`, [height width 3] of bytes, or `png`, a file's."""

    def histogram(self, step: int, name: str, counts: Int[np.ndarray, "bin"], edges: Float[np.ndarray, "edge"]) -> None:
        """How many numbers lie between each of the edges and the next; there is an edge more than counts."""

    def end(self, how: str) -> None:
        """Called last, with how the run ended: finished, interrupted, diverged, or why it stopped early."""

    def abandon(self) -> None:
        """Called from another thread, in the place of `end`, where it took too long: lets go of what would keep the
        program from ending."""
