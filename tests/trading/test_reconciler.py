"""What is told at a start, at a reconnect, and when; without Redis."""

from __future__ import annotations

import asyncio
from time import time
from typing import Any

import pytest
from lives import Life
from msgspec import structs
from trading.reconciling import Bench, Rest

from alpaca_broker.alpaca.quota import Quota
from alpaca_broker.bus.journal import History
from alpaca_broker.core.accounts import KeyPair
from alpaca_broker.core.messages import Gap
from alpaca_broker.core.snapshot import Snapshot
from alpaca_broker.trading import reconciliation
from alpaca_broker.trading.account_stream import AccountStream


async def test_reading_stops_where_too_many_events_wait_for_what_was_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are not told before it: the stream waits, for five seconds at most."""
    monkeypatch.setattr(reconciliation, "MOST_HELD", 2)
    bench = Bench()
    life = bench.rest.place("o1")
    life.begin()
    life.fill(10)
    bench.rest.waiting["fills"] = asyncio.Event()
    link = bench.link()
    entering = asyncio.create_task(link.__aenter__())
    await bench.rest.asked(3)
    live = [bench.rest.place(f"live{number}").begin() for number in range(2)]
    bench.hear(*live)
    reading = asyncio.create_task(bench.reconciler.room())
    await asyncio.sleep(0.1)
    assert (reading.done(), bench.reconciler.has_room(), bench.lane.events) == (False, False, [])
    bench.rest.waiting.pop("fills").set()
    await entering
    await asyncio.wait_for(reading, 1)
    await link.__aexit__(None, None, None)
    told = [event.update.order_id for event in bench.lane.events]
    assert told == ["o1", "o1", "live0", "live1"]


async def test_the_first_start_publishes_nothing_although_its_snapshot_was_not_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was open before is known once all of it is: until then it is not told as news."""
    real, asked = reconciliation.take_snapshot, 0

    async def half(rest: Any, snapshot: Snapshot, **more: Any) -> None:
        nonlocal asked
        asked += 1
        await real(rest, snapshot, **more)
        snapshot.complete = asked > 2

    monkeypatch.setattr(reconciliation, "take_snapshot", half)
    bench = Bench(is_first=True)
    life = Life("o1", at=bench.rest.now() - 100)
    life.begin()
    bench.rest.lives.append(life)
    async with bench.link():
        assert asked == 3
        assert bench.lane.events == []
        assert bench.reconciler.open_count == 1


async def test_an_open_order_that_says_what_the_journal_has_not_is_no_knowledge() -> None:
    """Redis took the one and refused the other, and the broker died: the fill is still told."""
    rest = Rest()
    life = Life("o1", at=rest.now() - 100)
    new, fill = life.begin(), life.fill(10)
    said = structs.replace(new.update, seq=7, journal_id="j")
    ahead = structs.replace(fill.update, seq=8, journal_id="j")
    bench = Bench(history=History([(said, new.key)], [ahead], trimmed=False))
    bench.rest.lives.append(life)
    async with bench.link():
        await bench.tells("o1", ("partial_fill", 10))


def test_a_gap_is_recovered_only_by_a_look_that_began_after_it() -> None:
    """One that was under way may have asked before what is missing happened."""
    gaps: list[Gap] = []
    stream = AccountStream(
        keys=KeyPair("paper", "PK", "secret"),
        url="ws://nowhere",
        rest_url="http://nowhere",
        order_channel=str,
        changed=lambda: None,
        on_gap=gaps.append,
        claim=lambda name, label: None,
        calls_per_minute=20,
        quota=Quota(),
    )
    under_way = time()
    stream._let_go(1, under_way - 60)
    stream._checked(under_way)
    assert [(gap.began, gap.recovered) for gap in gaps] == [(round(under_way - 60, 6), False)]
    stream._checked(time() + 0.001)
    assert [(gap.again, gap.recovered) for gap in gaps][1:] == [(True, True)]
