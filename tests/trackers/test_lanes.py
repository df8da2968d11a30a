"""Trackers beside a training: one that fails or hangs is neither the training's affair nor the others'."""

import errno
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from microformer import trackers
from microformer.errors import SettingsError
from microformer.trackers import About, Tracker, Trackers, lanes

POINT = np.zeros((1, 1), np.uint8), np.zeros((1, 3), np.uint8)


class Kept(Tracker):
    """Keeps what it is told."""

    name = "kept"

    def __init__(self):
        self.calls = []

    def begin(self, about):
        self.calls.append(("begin", about.step))

    def scalars(self, step, values):
        self.calls.append(("scalars", step, dict(values)))

    def image(self, step, name, picture):
        self.calls.append(("image", step, name))

    def end(self, how):
        self.calls.append(("end", how))


class Failing(Kept):
    """Fails at a call."""

    name = "failing"

    def __init__(self, at, error):
        super().__init__()
        self.at, self.error = at, error

    def begin(self, about):
        super().begin(about)
        self._may_fail("begin")

    def scalars(self, step, values):
        super().scalars(step, values)
        self._may_fail("scalars")

    def end(self, how):
        super().end(how)
        self._may_fail("end")

    def _may_fail(self, call):
        if call == self.at:
            raise self.error


class Hanging(Kept):
    """Does not come back from `begin` until it is let go."""

    name = "hanging"

    def __init__(self):
        super().__init__()
        self.let_go = threading.Event()
        self.abandoned = False
        self.waited_out = False

    def begin(self, about):
        self.waited_out = not self.let_go.wait(60)

    def abandon(self):
        self.abandoned = True
        self.let_go.set()


def about(tmp_path, step=0):
    return About("r", tmp_path, {}, step)


def tell(all_of_them, tmp_path, steps=20):
    all_of_them.begin(about(tmp_path))
    for step in range(1, steps + 1):
        all_of_them.scalars(step, {"train_loss": 1 / step})


def test_each_is_told_all_of_it_in_order(tmp_path, capsys):
    one, other = Kept(), Kept()
    all_of_them = Trackers([one, other])
    tell(all_of_them, tmp_path)
    all_of_them.image(20, "attention", lambda: POINT)
    all_of_them.end("finished")

    wanted = [("scalars", step, {"train_loss": 1 / step}) for step in range(1, 21)]
    assert one.calls == [("begin", 0), *wanted, ("image", 20, "attention"), ("end", "finished")]
    assert other.calls == one.calls
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("at", ["begin", "scalars", "end"])
@pytest.mark.parametrize(
    "error", [ValueError("bad key"), OSError(errno.ENOSPC, "No space left on device"), SystemExit(1)]
)
def test_one_that_fails_is_told_once_and_the_other_goes_on(at, error, tmp_path, capsys):
    failing, well = Failing(at, error), Kept()
    all_of_them = Trackers([failing, well])
    tell(all_of_them, tmp_path)
    all_of_them.end("finished")

    told = capsys.readouterr().err
    assert told.count("\n") == told.count("failing failed and is off from here on: ") == 1
    assert str(error) in told
    assert [call for call in failing.calls if call[0] == at] == failing.calls[-1:]  # and never called again
    assert len(well.calls) == 22


def test_one_that_hangs_holds_up_nobody_and_is_left_at_the_end(tmp_path, capsys):
    hanging, well = Hanging(), Kept()
    all_of_them = Trackers([hanging, well])
    tell(all_of_them, tmp_path)
    began = time.monotonic()
    all_of_them.end("finished", limit=0.3)

    assert time.monotonic() - began >= 0.3
    assert not hanging.waited_out
    assert well.calls[-1] == ("end", "finished")
    assert hanging.abandoned
    assert hanging.calls == []  # what waited is not done after all
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "note: hanging has not taken everything within 0.3 s of the training's end, and is left; "
        "metrics.jsonl has all figures."
    ]


def test_a_long_wait_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lanes, "_PATIENT", 0.1)
    all_of_them = Trackers([Hanging()])
    tell(all_of_them, tmp_path)
    all_of_them.end("finished", limit=0.4)

    assert capsys.readouterr().err.splitlines()[0] == "note: waiting for hanging, 0.4 s at the most."


def test_ctrl_c_while_waiting_leaves_at_once(tmp_path, monkeypatch):
    hanging = Hanging()
    all_of_them = Trackers([hanging])
    tell(all_of_them, tmp_path)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(all_of_them.lanes[0].done, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        all_of_them.end("interrupted")

    assert hanging.abandoned


def test_a_queue_has_an_end_and_what_is_left_out_is_told_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lanes, "_MOST", 10)
    hanging = Hanging()
    all_of_them = Trackers([hanging])
    tell(all_of_them, tmp_path, steps=50)
    hanging.let_go.set()
    all_of_them.end("finished")

    told = capsys.readouterr().err.splitlines()
    assert told == ["note: hanging is too slow for this training, and will have gaps; metrics.jsonl has none."]
    assert 8 <= len([call for call in hanging.calls if call[0] == "scalars"]) <= 11
    assert hanging.calls[-1] == ("end", "finished")


def test_pictures_are_left_out_before_figures(tmp_path, capsys):
    hanging = Hanging()
    all_of_them = Trackers([hanging])
    all_of_them.begin(about(tmp_path))
    for step in range(1, 101):
        all_of_them.scalars(step, {"train_loss": 1.0})
        all_of_them.image(step, "attention", lambda: POINT)
    hanging.let_go.set()
    all_of_them.end("finished")

    assert len([call for call in hanging.calls if call[0] == "scalars"]) == 100
    assert len([call for call in hanging.calls if call[0] == "image"]) == 64


def test_calls_gather_but_the_first_and_the_last_are_taken_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(lanes, "_REST", 60.0)
    resting, rested = threading.Event(), threading.Event()

    class Watched(threading.Condition):
        """Tells when a tracker rests, and when it has rested to the end."""

        def wait_for(self, predicate, timeout=None):
            if timeout is not None and not predicate():
                resting.set()
            found = super().wait_for(predicate, timeout)
            if timeout is not None and not found:
                rested.set()
            return found

    monkeypatch.setattr(lanes.threading, "Condition", Watched)
    one = Kept()
    all_of_them = Trackers([one])
    all_of_them.begin(about(tmp_path))
    assert resting.wait(30)
    all_of_them.scalars(1, {"train_loss": 1.0})
    time.sleep(0.1)
    assert len(all_of_them.lanes[0].waiting) == 1
    all_of_them.end("finished")

    assert one.calls[-2:] == [("scalars", 1, {"train_loss": 1.0}), ("end", "finished")]
    assert not rested.is_set()


def test_many_calls_do_not_wait_for_a_rest_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(lanes, "_REST", 60.0)
    monkeypatch.setattr(lanes, "_MOST", 10)
    taken = threading.Event()

    class Counting(Tracker):
        def scalars(self, step, values):
            if step == 6:
                taken.set()

    all_of_them = Trackers([Counting()])
    all_of_them.begin(about(tmp_path))
    time.sleep(0.1)
    for step in range(1, 7):
        all_of_them.scalars(step, {})

    assert taken.wait(30)
    all_of_them.end("finished")


def test_none_of_them_is_no_case_of_its_own(tmp_path):
    none = Trackers()
    tell(none, tmp_path)
    none.end("finished")
    assert not none


def test_a_tracker_that_only_takes_figures_is_enough(tmp_path, capsys):
    class Printed(Tracker):
        def scalars(self, step, values):
            print(step, values["train_loss"])

    all_of_them = Trackers([Printed()])
    tell(all_of_them, tmp_path, steps=2)
    all_of_them.image(2, "attention", lambda: POINT)
    all_of_them.text(2, "sample", "x")
    all_of_them.histogram(2, "weights/embed", np.array([1]), np.array([0.0, 1.0]))
    all_of_them.end("finished")

    assert capsys.readouterr().out.splitlines() == ["1 1.0", "2 0.5"]


def test_the_tracker_of_the_docs_does_what_it_says(tmp_path, capsys):
    page = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text(encoding="utf-8")
    (block,) = [one for one in re.findall(r"```python\n(.*?)```", page, re.S) if "class Table" in one]
    made = {}
    exec(block.split("\n\n\ntrain(")[0], made)
    all_of_them = Trackers([made["Table"]()])
    all_of_them.begin(about(tmp_path))
    all_of_them.scalars(1, {"train_loss": 2.0})
    all_of_them.scalars(2, {"val_loss": 1.5})
    all_of_them.end("finished")

    assert (tmp_path / "table.csv").read_text() == "2,1.5\n"
    assert capsys.readouterr().err == ""


def test_a_package_that_is_missing_is_an_error_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(SettingsError) as refused:
        trackers.check(["wandb"])
    assert refused.value.sentence == "TRACKERS wandb takes the package wandb, which is not installed."
    assert refused.value.hint == 'pip install "microformer[wandb]"'
