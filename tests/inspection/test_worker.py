"""One thread for all questions: in turn, the short ones first, and none for who has gone."""

import asyncio
import threading

import pytest

from microformer.inspection.words import AskedError
from microformer.inspection.worker import Stopped, Worker


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.end()


async def here():
    return False


def test_answers_and_errors_come_to_who_asked(worker):
    def fail(stop):
        raise AskedError("no")

    async def ask():
        assert await worker.do(lambda stop: 1 + 1, here) == 2
        with pytest.raises(AskedError):
            await worker.do(fail, here)
        assert await worker.do(lambda stop: 3, here) == 3

    asyncio.run(ask())


def test_everything_is_computed_by_one_thread(worker):
    async def ask():
        return await asyncio.gather(*(worker.do(lambda stop: threading.get_ident(), here) for _ in range(20)))

    assert len(set(asyncio.run(ask()))) == 1


def test_who_goes_is_not_computed_for_any_more(worker):
    begun, ended = threading.Event(), threading.Event()

    def long(stop):
        begun.set()
        while not stop():
            ended.wait(0.01)
        ended.set()
        raise Stopped

    async def gone():
        return begun.is_set()

    async def ask():
        with pytest.raises(Stopped):
            await worker.do(long, gone, long=True)
        assert await worker.do(lambda stop: "next", here) == "next"

    asyncio.run(ask())
    assert ended.wait(10)


def test_who_goes_while_waiting_is_never_computed_for(worker):
    held, computed = threading.Event(), []

    async def gone():
        return True

    async def ask():
        first = asyncio.ensure_future(worker.do(lambda stop: held.wait(10), here))
        await asyncio.sleep(0.05)
        with pytest.raises(Stopped):
            await worker.do(lambda stop: computed.append(1), gone)
        held.set()
        assert await first
        assert await worker.do(lambda stop: "next", here) == "next"

    asyncio.run(ask())
    assert computed == []


def test_short_questions_go_by_a_long_one(worker):
    order, waiting = [], threading.Event()

    def long(stop):
        waiting.wait(10)
        stop()
        order.append("long")

    async def ask():
        first = asyncio.ensure_future(worker.do(long, here, long=True))
        await asyncio.sleep(0.05)
        second = asyncio.ensure_future(worker.do(lambda stop: order.append("short"), here))
        await asyncio.sleep(0.05)
        waiting.set()
        await asyncio.gather(first, second)

    asyncio.run(ask())
    assert order == ["short", "long"]


def test_too_many_questions_are_refused(worker):
    held = threading.Event()

    async def ask():
        waiting = [asyncio.ensure_future(worker.do(lambda stop: held.wait(10), here)) for _ in range(502)]
        await asyncio.sleep(0.1)
        with pytest.raises(AskedError) as refused:
            await worker.do(lambda stop: 1, here)
        held.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        return refused.value.status

    assert asyncio.run(ask()) == 503


def test_the_end_does_not_wait_for_what_is_computed():
    worker = Worker()
    begun, stopped = threading.Event(), threading.Event()

    def long(stop):
        begun.set()
        while not stop():
            stopped.wait(0.01)
        stopped.set()

    async def ask():
        waiting = asyncio.ensure_future(worker.do(long, here, long=True))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        worker.end()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(ask())
    assert stopped.is_set()
