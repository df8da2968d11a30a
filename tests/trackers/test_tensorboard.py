"""TensorBoard's files, read back by TensorBoard's own reader."""

import errno
import io
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator
from tracked import points, tensorboard

from microformer.errors import FileError
from microformer.trackers import About
from microformer.trackers.drawn import Drawn
from microformer.trackers.tensorboard import TensorBoard


def of_the_page(folder):
    """As TensorBoard's page reads it, to which everything is a tensor."""
    found = plugin_event_accumulator.EventAccumulator(str(folder / "tensorboard"), tensor_size_guidance={})
    found.Reload()
    return found


def begun(folder, step=0, rows=()):
    tracker = TensorBoard()
    tracker.begin(About("r", folder, {"settings": {"seed": 1}, "model": {"layers": [{}, {}]}}, step, rows))
    return tracker


def test_what_is_written_is_what_tensorboard_reads(tmp_path):
    numbers, palette = (np.random.default_rng(0).integers(0, 255, of).astype(np.uint8) for of in ((12, 8), (256, 3)))
    tracker = begun(tmp_path)
    tracker.scalars(1, {"train_loss": 4.0, "grad_norm/embed": 0.5})
    tracker.scalars(2, {"train_loss": 3.5})
    tracker.text(2, "sample", "# Not a heading\n<b>")
    tracker.image(2, "attention", Drawn(lambda: (numbers, palette)))
    tracker.histogram(2, "weights/embed", np.array([1, 3]), np.array([0.0, 1.0, 2.0]))
    tracker.end("finished")

    found = tensorboard(tmp_path)
    assert points(found, "metrics/train_loss") == [(1, 4.0), (2, 3.5)]
    assert points(found, "grad_norm/embed") == [(1, 0.5)]
    assert found.Tensors("sample")[0].tensor_proto.string_val == [b"    # Not a heading\n    <b>"]
    assert found.Tensors("settings")[0].tensor_proto.string_val == [b"    SEED  1"]
    image = found.Images("attention")[0]
    assert (image.height, image.width) == (12, 8)
    assert (np.asarray(Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB")) == palette[numbers]).all()
    histogram = found.Histograms("weights/embed")[0].histogram_value
    assert (list(histogram.bucket), list(histogram.bucket_limit)) == ([1, 3], [1.0, 2.0])
    assert (histogram.num, histogram.sum) == (4, 0.5 + 3 * 1.5)


def test_what_came_after_the_step_that_is_resumed_is_gone_and_what_got_lost_is_there_again(tmp_path):
    first = begun(tmp_path)
    for step in (1, 2, 4, 5):
        first.scalars(step, {"train_loss": float(step), "tokens": step})
    first.text(5, "sample", "late")
    rows = [{"step": step, "tokens": step, "train_loss": float(step)} for step in (1, 2, 3)]

    second = begun(tmp_path, 3, rows)
    second.scalars(4, {"train_loss": 40.0})

    found = tensorboard(tmp_path)
    assert points(found, "metrics/train_loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert points(found, "metrics/tokens") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    shown = of_the_page(tmp_path)
    assert "sample" not in shown.Tags()["tensors"] or not shown.Tensors("sample")
    assert [event.step for event in shown.Tensors("settings")] == [0]
    assert [event.step for event in shown.Tensors("metrics/train_loss")] == [1, 2, 3, 4]


def test_a_record_that_a_kill_cut_short_is_made_again(tmp_path):
    first = begun(tmp_path)
    first.scalars(1, {"train_loss": 1.0})
    first.scalars(2, {"train_loss": 2.0})
    first.path.write_bytes(first.path.read_bytes()[:-3])

    begun(tmp_path, 2, [{"step": 1, "train_loss": 1.0}, {"step": 2, "train_loss": 2.0}])

    assert points(tensorboard(tmp_path), "metrics/train_loss") == [(1, 1.0), (2, 2.0)]


def test_one_that_begins_in_the_middle_of_a_run_has_the_figures_from_before(tmp_path):
    tracker = begun(tmp_path, 2, [{"step": 1, "train_loss": 1.0}, {"step": 2, "train_loss": 2.0}])
    tracker.scalars(3, {"train_loss": 3.0})

    assert points(tensorboard(tmp_path), "metrics/train_loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_resumed_from_the_very_beginning_nothing_is_there_twice(tmp_path):
    begun(tmp_path).scalars(1, {"train_loss": 9.0})
    begun(tmp_path, 0).scalars(1, {"train_loss": 1.0})

    assert points(tensorboard(tmp_path), "metrics/train_loss") == [(1, 1.0)]


def test_a_full_disk_is_an_error_at_once(tmp_path, monkeypatch):
    tracker = begun(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(vars(sys.modules[TensorBoard.__module__]), "open", full)
    with pytest.raises(FileError, match="No space left"):
        tracker.scalars(1, {"train_loss": 1.0})


def test_a_folder_that_is_gone_is_told(tmp_path):
    tracker = begun(tmp_path)
    tracker.path.unlink()
    tracker.path.parent.rmdir()

    with pytest.raises(FileError, match="can't write"):
        tracker.scalars(1, {"train_loss": 1.0})
