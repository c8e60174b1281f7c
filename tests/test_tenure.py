"""Leading, losing the lead, and leading again: nothing ends leadership without a word."""

from __future__ import annotations

import asyncio

import pytest

from alpaca_broker.bus.journal import Superseded
from alpaca_broker.tenure import Tenure


async def test_a_refused_script_at_the_end_of_an_epoch_does_not_end_leadership() -> None:
    """Both at once: we lead no more, and a script was refused because of it."""
    tenure, served = Tenure(), []

    async def serve(epoch: int) -> None:
        served.append(epoch)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(refused(epoch))

    async def refused(epoch: int) -> None:
        raise Superseded(epoch + 1)

    running = asyncio.create_task(tenure.run(serve))
    for epoch in (1, 2, 3):
        tenure.begin(epoch)
        async with asyncio.timeout(60):
            while epoch not in served:  # noqa: ASYNC110 - any condition
                await asyncio.sleep(0.001)
        tenure.end()
        await asyncio.sleep(0.01)
        assert not running.done(), "leadership ended by itself"
    assert served == [1, 2, 3]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()


async def test_what_fails_for_another_reason_is_a_failure() -> None:
    """It is raised, so that the process ends with its reason."""
    tenure = Tenure()

    async def serve(epoch: int) -> None:
        raise ValueError("a bug")

    tenure.begin(1)
    with pytest.raises(ValueError, match="a bug"):
        async with asyncio.timeout(60):
            await tenure.run(serve)


async def test_an_epoch_that_was_refused_and_is_still_ours_is_served_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever refused it is gone: nobody else leads, and nobody may be silent for ever."""
    monkeypatch.setattr("alpaca_broker.tenure.FOUND_OUT_WITHIN_S", 0.02)
    tenure, served = Tenure(), []

    async def serve(epoch: int) -> None:
        served.append(epoch)
        if len(served) == 1:
            raise Superseded(epoch + 1)
        await asyncio.Event().wait()

    running = asyncio.create_task(tenure.run(serve))
    tenure.begin(1)
    async with asyncio.timeout(60):
        while served != [1, 1]:  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_ends_without_a_failure_is_not_begun_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There was nothing to do in this epoch."""
    monkeypatch.setattr("alpaca_broker.tenure.FOUND_OUT_WITHIN_S", 0.02)
    tenure, served = Tenure(), []

    async def serve(epoch: int) -> None:
        served.append(epoch)

    running = asyncio.create_task(tenure.run(serve))
    tenure.begin(1)
    await asyncio.sleep(0.1)
    tenure.begin(2)
    async with asyncio.timeout(60):
        while served != [1, 2]:  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
