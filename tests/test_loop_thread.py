"""A thread with a loop: it ends when told, and says when it ends otherwise."""

from __future__ import annotations

import asyncio

from support import eventually

from alpaca_broker.loop_thread import LoopThread


def test_a_stop_counts_also_while_something_else_cancels() -> None:
    """A task group that fails at the same time does not swallow it."""
    failures: list[BaseException] = []
    stopped_in_time = asyncio.Event()

    async def main() -> None:
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_fails(thread))
                    await asyncio.Event().wait()
            except* ValueError:
                stopped_in_time.set()
            task = asyncio.current_task()
            assert task is not None
            if task.cancelling():
                raise asyncio.CancelledError

    thread = LoopThread("test", main, failures.append)
    thread.start()
    assert thread.join(60)
    assert stopped_in_time.is_set()
    assert failures == []


async def _fails(thread: LoopThread) -> None:
    thread._cancel()
    raise ValueError


def test_a_thread_that_ends_by_itself_says_so() -> None:
    """Whether it returns, raises, or is cancelled by nobody of ours."""
    for end in (_returns, _raises, _is_cancelled):
        failures: list[BaseException] = []
        thread = LoopThread("test", end, failures.append)
        thread.start()
        assert thread.join(60)
        eventually(lambda failures=failures: failures)
        assert len(failures) == 1


async def _returns() -> None:
    return


async def _raises() -> None:
    raise ValueError("x")


async def _is_cancelled() -> None:
    raise asyncio.CancelledError
