"""Trackers beside a training, and never in its way.

Each has a thread and a queue of its own, so that one that hangs holds up neither the training nor the others. Its first
failure is told, and that was all of it. Knows no particular tracker.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from microformer import devices
from microformer.errors import MicroformerError, notice
from microformer.trackers.base import About, Tracker
from microformer.trackers.drawn import Drawn

# The most calls that wait for a tracker, and the most pictures among them: some 20 MB of figures, and of pictures as
# much or, where heads are many, four times that.
_MOST = 4000
_MOST_PICTURES = 64
# Seconds for which a tracker that has done everything rests. Each time that it is woken takes some milliseconds of the
# training's cores, be it for one call or for many: a fifth of what trackers cost.
_REST = 5.0
# How long the end of a training waits for all trackers together, and after how much of it that is told: seconds.
LIMIT = 10.0
_PATIENT = 2.0

Call = Callable[[Tracker], Any]


class Lane:
    """One tracker with its thread.

    Args:
        tracker: whose methods are called, in the order of the calls, in that thread alone.
    """

    def __init__(self, tracker: Tracker):
        self.tracker = tracker
        self.failed = False
        self.gaps = False
        self.waiting: deque[tuple[Call, bool]] = deque()  # with whether it is a picture
        self.pictures = 0
        self.hurry = True
        self.changed = threading.Condition()
        self.done = threading.Event()
        # A program that ends waits for no daemon.
        self.thread = threading.Thread(target=self._work, name=f"tracker {tracker.name}", daemon=True)
        self.thread.start()

    def put(self, call: Call, picture: bool = False) -> None:
        """Has the tracker called when it is its turn; one above the most that may wait is left out, which is told."""
        with self.changed:
            if self.failed:
                return
            if len(self.waiting) < _MOST and not (picture and self.pictures >= _MOST_PICTURES):
                self._add(call, picture)
                return
            first, self.gaps = not self.gaps, True
        if first:
            notice(f"{self.tracker.name} is too slow for this training, and will have gaps; metrics.jsonl has none.")

    def put_last(self, call: Call) -> None:
        """The last call, for which there is always room."""
        with self.changed:
            self._add(call)
            self._add(lambda _: self.done.set())
            self.hurry = True
            self.changed.notify()

    def abandon(self) -> None:
        """Gives up on what still waits."""
        with self.changed:
            self.failed = True
            self.waiting.clear()
        try:
            self.tracker.abandon()
        except Exception as error:
            self._tell(error)

    def _add(self, call: Call, picture: bool = False) -> None:
        self.waiting.append((call, picture))
        self.pictures += picture
        self.hurry = self.hurry or len(self.waiting) > _MOST / 2
        if self.hurry or len(self.waiting) == 1:
            self.changed.notify()

    def _next(self) -> Call:
        """The call whose turn it is."""
        with self.changed:
            if not self.waiting:
                self.changed.wait_for(lambda: self.hurry, _REST)
            self.changed.wait_for(lambda: self.waiting)
            call, picture = self.waiting.popleft()
            self.pictures -= picture
            self.hurry = self.hurry and bool(self.waiting)
            return call

    def _work(self) -> None:
        devices.one_thread_here()
        while not self.done.is_set():
            call = self._next()
            try:
                call(self.tracker)
            except BaseException as error:  # whatever a library does, be it an exit: it is not the training's end
                with self.changed:
                    told, self.failed = self.failed, True
                    self.waiting.clear()
                if not told:
                    self._tell(error)
                self.done.set()

    def _tell(self, error: BaseException) -> None:
        said = error.sentence if isinstance(error, MicroformerError) else f"{type(error).__name__}: {error}"
        notice(f"{self.tracker.name} failed and is off from here on: {' '.join(said.split())[:300]}")


class Trackers:
    """All trackers of a run, as one. With none it does nothing.

    Args:
        trackers: which.
    """

    def __init__(self, trackers: Sequence[Tracker] = ()):
        self.trackers = list(trackers)
        self.lanes: list[Lane] = []

    def __bool__(self) -> bool:
        return bool(self.trackers)

    def begin(self, about: About) -> None:
        """Begins all of them, each in its own thread."""
        self.lanes = [Lane(one) for one in self.trackers]
        self._put(lambda one: one.begin(about))

    def scalars(self, step: int, values: Mapping[str, int | float]) -> None:
        """As a `Tracker`'s, like the next ones; `values` must not be changed any more."""
        self._put(lambda one: one.scalars(step, values))

    def text(self, step: int, name: str, text: str) -> None:
        self._put(lambda one: one.text(step, name, text))

    def image(self, step: int, name: str, draw: Callable[[], Any]) -> None:
        """draw: as a `Drawn`'s; called in a tracker's thread, since it takes a while."""
        picture = Drawn(draw)
        self._put(lambda one: one.image(step, name, picture), True)

    def histogram(self, step: int, name: str, counts: Any, edges: Any) -> None:
        self._put(lambda one: one.histogram(step, name, counts, edges))

    def end(self, how: str, limit: float | None = None) -> None:
        """Ends all that began, and waits until they have taken everything, or for so many seconds (LIMIT)."""
        limit = LIMIT if limit is None else limit
        for lane in self.lanes:
            lane.put_last(lambda one: one.end(how))
        until, told = time.monotonic() + limit, False
        try:
            for lane in self.lanes:
                while not lane.done.wait(min(_PATIENT, max(0.0, until - time.monotonic()))):
                    if time.monotonic() >= until:
                        notice(
                            f"{lane.tracker.name} has not taken everything within {limit:g} s of the training's end, "
                            "and is left; metrics.jsonl has all figures."
                        )
                        break
                    if not told:
                        told = True
                        notice(f"waiting for {lane.tracker.name}, {limit:g} s at the most.")
        finally:
            for lane in self.lanes:
                if not lane.done.is_set():
                    lane.abandon()
        self.lanes = []

    def _put(self, call: Call, picture: bool = False) -> None:
        for lane in self.lanes:
            lane.put(call, picture)
