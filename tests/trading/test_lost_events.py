"""An event that was lost is asked for at once, whatever else REST is being asked."""

from __future__ import annotations

import asyncio

import pytest
from trading.reconciling import Bench

from alpaca_broker.trading import reconciliation


async def test_a_lost_event_is_found_while_a_whole_look_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many pages, or one slow answer: nobody has to wait for them who waits for one event."""
    monkeypatch.setattr(reconciliation, "BUSY_EVERY_S", 0.05)
    monkeypatch.setattr(reconciliation, "WHOLE_EVERY_S", 0.0)
    bench = Bench()
    async with bench.link():
        life = bench.rest.place("o1")
        bench.hear(life.begin())
        bench.rest.waiting["all"] = asyncio.Event()  # never set
        await bench.rest.asked(3)  # a whole look
        life.fill(10)
        bench.hear(life.fill(5))
        await bench.tells("o1", ("new", 0), ("partial_fill", 10), ("partial_fill", 15))
    assert [source for _, _, source in bench.lane.names("o1")] == ["stream", "reconcile", "stream"]
    assert bench.let_go == []
    assert [events for events, _ in bench.found] == [1], "bots are told that the stream lost one"


async def test_an_event_lost_while_live_ones_waited_is_asked_for_at_once() -> None:
    """The hole is there when they begin to flow: the next routine look would be too late."""
    bench = Bench()
    life = bench.rest.place("o1")
    new, lost, last = life.begin(), life.fill(10), life.fill(20)
    bench.rest.lives.clear()  # the snapshot is older than all of it
    link = bench.link()
    bench.rest.waiting["fills"] = asyncio.Event()
    entering = asyncio.create_task(link.__aenter__())
    await bench.rest.asked(3)
    bench.hear(new, last)
    bench.rest.waiting.pop("fills").set()
    await entering
    bench.rest.lives.append(life)
    await bench.tells("o1", ("new", 0), ("partial_fill", 10), ("fill", 30))
    await link.__aexit__(None, None, None)
    assert lost.update.filled_qty == 10
    assert bench.let_go == []


async def test_a_lost_fill_that_rest_shows_late_is_asked_for_again() -> None:
    """Alpaca's activities follow its orders with a delay: five seconds are there to be used."""
    bench = Bench(calls_per_minute=20)
    async with bench.link():
        life = bench.rest.place("o1")
        bench.hear(life.begin())
        life.fill(10)
        bench.rest.hidden.add(life.activities[0]["id"])
        bench.hear(life.fill(5))
        await bench.rest.asked(2)
        await asyncio.sleep(0.2)  # the first look has found nothing
        bench.rest.hidden.clear()
        await bench.tells("o1", ("new", 0), ("partial_fill", 10), ("partial_fill", 15))
    assert bench.let_go == []


async def test_two_events_that_were_only_swapped_cost_no_call() -> None:
    """The second of them comes at once: nothing is lost."""
    bench = Bench()
    async with bench.link():
        life = bench.rest.place("o1")
        first, second, third = life.begin(), life.fill(10), life.fill(20)
        calls = bench.rest.calls
        bench.hear(first, third, second)
        await bench.tells("o1", ("new", 0), ("partial_fill", 10), ("fill", 30))
        await asyncio.sleep(0.3)
        assert bench.rest.calls == calls


async def test_many_lost_events_are_found_by_a_list() -> None:
    """More orders than are asked for one by one."""
    bench = Bench()
    async with bench.link():
        lives = [bench.rest.place(f"o{number}") for number in range(30)]
        for life in lives:
            bench.hear(life.begin())
            life.fill(10)
            bench.hear(life.fill(5))
        for life in lives:
            expected = (("new", 0), ("partial_fill", 10), ("partial_fill", 15))
            await bench.tells(life.order["id"], *expected)
    assert bench.let_go == []
    assert bench.rest.calls < 30


async def test_asking_for_what_is_lost_stays_within_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """REST never shows it: the budget may be overdrawn once, and no more."""
    monkeypatch.setattr(reconciliation, "CLOSELY_EVERY_S", 0.01)
    bench = Bench(calls_per_minute=4)
    async with bench.link():
        for number in range(10):
            life = bench.rest.place(f"o{number}")
            bench.hear(life.begin())
            life.fill(10)
            bench.rest.hidden.add(life.activities[0]["id"])
            bench.hear(life.fill(5))
            await asyncio.sleep(0.2)
    assert bench.rest.calls <= 4 + 4 + 11, "a burst, as much overdrawn, and one whole look"
