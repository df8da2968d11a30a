"""One thread that computes, so that questions don't fight over the cores; whoever has gone is not computed for.

Short questions come first: a long one, each time it asks whether to stop, lets the short ones that wait go by. Knows
nothing of what is computed.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from microformer.inspection.words import AskedError

Answer = TypeVar("Answer")
Stop = Callable[[], bool]

# How often it is looked whether the asker is still there, in seconds.
_LOOK = 0.1
# Questions that may wait: more than several pages ask for at once.
_MOST = 500


class Stopped(Exception):
    """Nobody waits for the answer any more."""


class _Job(Generic[Answer]):
    def __init__(self, work: Callable[[Stop], Answer], stop: Stop | None):
        self.work, self.future, self.gone = work, Future[Answer](), threading.Event()
        self.stop = stop

    def run(self) -> None:
        if self.gone.is_set() or not self.future.set_running_or_notify_cancel():
            self.future.cancel()
            return
        try:
            self.future.set_result(self.work(self.stop or self.gone.is_set))
        except BaseException as error:  # whoever asked is told
            self.future.set_exception(error)


class Worker:
    """The thread and what waits for it."""

    def __init__(self):
        self._short: deque[_Job] = deque()
        self._long: deque[_Job] = deque()
        self._news = threading.Condition()
        self._now: list[_Job] = []
        self._ended = False
        # A daemon, so that a computation that looks at nothing can't hold up the end for ever.
        self._thread = threading.Thread(target=self._work, name="inspection", daemon=True)
        self._thread.start()

    async def do(
        self,
        work: Callable[[Stop], Answer],
        gone: Callable[[], Awaitable[bool]],
        long: bool = False,
    ) -> Answer:
        """What `work` answers, computed when its turn comes.

        Args:
            work: is handed a function that says whether to stop, and raises Stopped when it does.
            gone: whether the asker has gone.
            long: whether others may go by.

        Raises:
            Stopped: the asker has gone.
            AskedError: too many questions wait.
        """
        job = self._add(work, long)
        future = asyncio.wrap_future(job.future)
        # Where nobody waits any more, nobody will ask how it ended either.
        future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            while not (await asyncio.wait({future}, timeout=_LOOK))[0]:
                if await gone():
                    raise Stopped
            return await future
        except asyncio.CancelledError:
            raise Stopped from None
        finally:
            job.gone.set()

    def end(self) -> None:
        """Stops what is computed and takes no more."""
        with self._news:
            self._ended = True
            for job in (*self._now, *self._short, *self._long):
                job.gone.set()
                job.future.cancel()
            self._news.notify()
        self._thread.join(timeout=3)

    def _add(self, work: Callable[[Stop], Answer], long: bool) -> _Job[Answer]:
        job = _Job(work, None)
        if long:
            job.stop = lambda: self._others_go_by() or job.gone.is_set()
        with self._news:
            if len(self._short) + len(self._long) >= _MOST or self._ended:
                raise AskedError("too many questions wait.", "close some pages, and ask again.", status=503)
            (self._long if long else self._short).append(job)
            self._news.notify()
        return job

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._short or self._long or self._ended)
                if self._ended:
                    return
                job = (self._short or self._long).popleft()
            self._run(job)

    def _run(self, job: _Job) -> None:
        self._now.append(job)
        job.run()
        self._now.remove(job)

    def _others_go_by(self) -> None:
        while True:
            with self._news:
                if not self._short or self._ended:
                    return
                job = self._short.popleft()
            self._run(job)
