"""Where heads looked while a model was trained: small pictures of its probes. Reads probes, and runs no model."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from microformer.errors import MicroformerError
from microformer.runs import Run

# Steps side by side, and the most pictures that a run gets.
_STEPS = 5
_MOST = 160
# One colour whose depth is the share: it stands out on white and on black alike.
_INK = (38, 118, 204)
_SCORES = {
    "previous_token": "previous token", "induction": "induction", "duplicate_token": "same token before",
    "first_token": "first token",
}  # fmt: skip


@dataclass(frozen=True)
class Head:
    """A head through time.

    Args:
        name: as L0H2.
        does: the score that stands out at the last step, in words; "" where none does.
        pictures: a PNG a step, as a data address; "" where there is none.
    """

    name: str
    does: str
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class Looks:
    """What is shown.

    Args:
        steps: of each column.
        heads: a row each.
        text: what the model was shown.
        missing: why there is nothing, or what is left out, in a sentence.
    """

    steps: tuple[int, ...] = ()
    heads: tuple[Head, ...] = ()
    text: str = ""
    missing: str = ""


def seen(run: Run) -> Looks:
    """The pictures of a run; without any where it has no probes, or no head that shows where it looks."""
    from microformer.inspection import probes

    there = run.probes
    if not there:
        return Looks(missing="there are no probes: PROBE_STEPS was 0, or it was imported.")
    try:
        found = [probes.read(run, step) for step in _spread(there)]
    except (MicroformerError, KeyError, ValueError) as error:
        return Looks(
            missing=f"the probes can't be read: {error.sentence if isinstance(error, MicroformerError) else error}"
        )
    last = found[-1]
    if "pattern" not in last.tensors:
        return Looks(text=last.text, missing="no head of this model shows a pattern.")
    layers, heads = last.patterns.shape[:2]
    shown = [layer for layer in range(layers) if layer not in last.missing]
    left_out = len(shown) - max(1, _MOST // (heads * len(found)))
    said = []
    if last.missing:
        said.append(f"layers without a pattern: {', '.join(map(str, last.missing))}")
    if left_out > 0:
        kept = sorted(
            {
                round(place * (len(shown) - 1) / max(1, len(shown) - left_out - 1))
                for place in range(len(shown) - left_out)
            }
        )
        shown = [shown[place] for place in kept]
        said.append(f"of {layers} layers these {len(shown)}: {', '.join(map(str, shown))}")
    patterns = [probe.patterns.numpy() for probe in found]
    rows = [
        Head(
            f"L{layer}H{head}",
            _does(last.head_scores, layer, head),
            tuple(picture(one[layer, head]) for one in patterns),
        )
        for layer in shown
        for head in range(heads)
    ]
    return Looks(tuple(probe.step for probe in found), tuple(rows), last.text, "; ".join(said))


def _spread(steps: list[int]) -> list[int]:
    """A few of the steps, the first and the last among them, as even in their logarithms as can be."""
    if len(steps) <= _STEPS:
        return steps
    wanted = np.geomspace(max(1, steps[0]), max(1, steps[-1]), _STEPS)
    return sorted({min(steps, key=lambda step: abs(np.log(max(1, step) / one))) for one in wanted})


def _does(scores: dict, layer: int, head: int) -> str:
    known = {name: float(scores[name][layer, head]) for name in _SCORES if name in scores}
    known = {name: score for name, score in known.items() if score == score}
    if not known:
        return ""
    name = max(known, key=lambda one: known[one])
    return f"{_SCORES[name]} {known[name]:.2f}" if known[name] >= 0.3 else ""


def picture(pattern: Float[np.ndarray, "query key"]) -> str:
    """A head's pattern as a PNG, one pixel a cell: its colour as deep as the root of the share. As a data address."""
    import matplotlib.image

    shares = np.clip(np.nan_to_num(pattern), 0, None)
    top = shares.max(initial=0)
    depth = np.sqrt(shares / top) if top > 0 else shares
    cells = np.empty((*pattern.shape, 4), np.uint8)
    cells[..., :3] = _INK
    cells[..., 3] = np.round(255 * depth)
    file = io.BytesIO()
    words: dict[str, Any] = {"Software": None}  # its version would be in it
    matplotlib.image.imsave(file, cells, format="png", metadata=words)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
