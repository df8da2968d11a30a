"""TensorBoard: event files in the run folder, `tensorboard --logdir runs` shows them.

Records are written in this thread and handed to the system one by one, so that a kill loses none of them and a full
disk is noticed; TensorBoard's own writer does both later and elsewhere. A record is a protobuf `Event` between its
length and checksums. What came after the step that is resumed stays in the older file, and `SessionLog.START` tells
readers to leave it out.
"""

import io
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from microformer.files import explained
from microformer.trackers.base import About, Tracker
from microformer.trackers.drawn import Drawn

_STRING = 7  # DT_STRING, among a tensor's kinds


class TensorBoard(Tracker):
    """Writes event files into `<run folder>/tensorboard`."""

    name: ClassVar[str] = "tensorboard"

    def begin(self, about: About) -> None:
        folder = about.folder / "tensorboard"
        there = _steps(folder) if folder.is_dir() else {}
        with explained(folder):
            folder.mkdir(exist_ok=True)
        # Readers take the files in the order of their names.
        self.path = folder / f"events.out.tfevents.{len(_files(folder)):04d}.microformer"
        self._write(file_version="brain.Event:2")
        # Readers heed it from the second one on, so that the first file has one too.
        self._write(step=about.step + 1, session_log={"status": _protobufs().SessionLog.START})
        if not there:
            self.text(0, "settings", _table(about.info.get("settings", {})))
            self._charts(_depth(about.info.get("model", {})))
        for row in about.rows:  # what a kill kept from the older file, or all where there was none
            step = int(row["step"])
            values = {name: value for name, value in row.items() if name != "step"}
            self.scalars(step, {name: one for name, one in values.items() if step not in there.get(_tag(name), ())})

    def scalars(self, step: int, values: Mapping[str, int | float]) -> None:
        if values:
            self._show(step, *({"tag": _tag(name), "simple_value": value} for name, value in values.items()))

    def text(self, step: int, name: str, text: str) -> None:
        from tensorboard.plugins.text import metadata

        about = metadata.create_summary_metadata(display_name="", description="")
        # TensorBoard reads Markdown, in which a sample must not become headings and lists.
        words = "\n".join(f"    {line}" for line in text.splitlines())
        self._show(step, {"tag": name, "metadata": about, "tensor": _tensor(words.encode("utf-8"))})

    def image(self, step: int, name: str, picture: Drawn) -> None:
        height, width = picture.size
        image = {"height": height, "width": width, "colorspace": 3, "encoded_image_string": picture.png}
        self._show(step, {"tag": name, "image": image})

    def histogram(self, step: int, name: str, counts: Int[np.ndarray, "bin"], edges: Float[np.ndarray, "edge"]) -> None:
        middles = (edges[1:] + edges[:-1]) / 2
        histogram = {
            "min": edges[0], "max": edges[-1], "num": counts.sum(), "sum": (counts * middles).sum(),
            "sum_squares": (counts * middles**2).sum(), "bucket_limit": edges[1:].tolist(), "bucket": counts.tolist(),
        }  # fmt: skip
        self._show(step, {"tag": name, "histo": histogram})

    def _charts(self, layers: int) -> None:
        """What "Custom scalars" shows: curves that belong together, in one chart."""
        from tensorboard.plugins.custom_scalar import metadata

        charts = {
            "run": {
                "loss, nats a token": "^metrics/(train|val)_loss$", "gradient norms": "^grad_norm/",
                "weight norms": "^weight_norm/",
            },
            "entropy of attention, nats": {f"layer {i}": f"^attention_entropy/L{i}H" for i in range(layers)},
        }  # fmt: skip
        category = [
            {"title": name, "chart": [{"title": title, "multiline": {"tag": [tags]}} for title, tags in each.items()]}
            for name, each in charts.items()
        ]
        layout = _tensor(_protobufs().Layout(category=category).SerializeToString())
        about = metadata.create_summary_metadata()
        self._show(0, {"tag": metadata.CONFIG_SUMMARY_TAG, "metadata": about, "tensor": layout})

    def _show(self, step: int, *values: Mapping[str, Any]) -> None:
        self._write(step=step, summary={"value": list(values)})

    def _write(self, **event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        packed = io.BytesIO()
        RecordWriter(packed).write(_protobufs().Event(wall_time=time.time(), **event).SerializeToString())
        # Opened each time: where a run is moved or deleted while it trains, that should be told.
        with explained(self.path), open(self.path, "ab") as file:
            file.write(packed.getvalue())


@cache
def _protobufs() -> Any:
    """TensorBoard's messages. They are made when they are imported: no checker of types knows them."""
    from tensorboard.compat.proto import event_pb2, tensor_pb2
    from tensorboard.plugins.custom_scalar import layout_pb2

    found = {}
    for module in (event_pb2, tensor_pb2, layout_pb2):
        found |= vars(module)
    return SimpleNamespace(**found)


def _tensor(content: bytes) -> Any:
    return _protobufs().TensorProto(dtype=_STRING, string_val=[content])


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def _steps(folder: Path) -> dict[str, set[int]]:
    """The steps of which the event files here have each scalar."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    there: dict[str, set[int]] = {}
    for path in _files(folder):
        for raw in RawEventFileLoader(str(path)).Load():
            event = _protobufs().Event.FromString(raw)
            if event.HasField("session_log"):
                for steps in there.values():
                    steps.difference_update([step for step in steps if step >= event.step])
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    there.setdefault(value.tag, set()).add(event.step)
    return there


def _depth(model: Mapping[str, Any]) -> int:
    return len(model.get("layers", ())) * model.get("loops", 1)


def _tag(name: str) -> str:
    """A scalar's tag: those of metrics.jsonl in a group of their own."""
    return name if "/" in name else f"metrics/{name}"


def _table(values: Mapping[str, Any]) -> str:
    width = max(map(len, values), default=0)
    return "\n".join(f"{name.upper():{width}}  {value!r}" for name, value in values.items())
