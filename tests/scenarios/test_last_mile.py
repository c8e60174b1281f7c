"""Redis' last mile loses silently: here a bot is told at once, and exactly, and all is repaired."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest
from support import Rig, Stopwatch, buy, eventually, frozen

from alpaca_broker import Client
from alpaca_broker.client import Gap, OrderUpdate, PriceUpdate
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorThread


def drained(stream: Any, seq: int) -> list[Any]:
    """Everything up to the first that has at least this number."""
    got: list[Any] = []
    while not got or isinstance(got[-1], Gap) or got[-1].seq < seq:
        got.append(next(stream))
    return got


def accounted(got: list[Any], before: int) -> bool:
    """Whether every number after `before` was heard, or told as missed, once."""
    at = before
    for item in got:
        if isinstance(item, Gap):
            # What was read from price:last in place of what was missed is one of the missed.
            at += (item.missed or 0) - (item.repaired == "price:last")
        elif isinstance(item, PriceUpdate) and item.repaired and item.seq == at:
            continue  # the newest known price once more: nothing was missed
        elif item.seq != (at := at + 1):
            return False
    return True


@pytest.mark.soak
def test_a_frozen_redis_is_told_in_three_seconds_and_everything_is_accounted_for(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread, soak: bool
) -> None:
    """SIGSTOP: stale; then each order once, and each price heard or counted as missed."""
    lasts = 10.0 if soak else 3.5
    with (
        Rig(own_valkey, simulator) as rig,
        Client(host="127.0.0.1", port=own_valkey.port, bot_id="b") as client,
    ):
        (account_id,) = rig.broker.status().accounts
        prices, orders = client.prices("AAPL"), client.orders(account_id, since=0)
        assert client.wait_ready()
        first = next(prices)
        assert isinstance(first, PriceUpdate)
        with frozen(own_valkey), Stopwatch() as lived:
            began = monotonic()
            placed = [buy(simulator.url)["id"] for _ in range(3)]
            eventually(lambda: not client.is_fresh("AAPL"))
            noticed = lived.seconds
            assert client.state == "stale"
            eventually(lambda: monotonic() - began >= lasts)
        eventually(lambda: client.is_fresh("AAPL"))
        known = client.last("AAPL")
        got = drained(prices, known.seq)
        events = drained(orders, 6)
        counted = client.counters
    told = [gap for gap in got if isinstance(gap, Gap)]
    print(f"frozen for {lasts} s: stale after {noticed:.1f} s, {counted.missed} prices missed")
    assert noticed <= 3.5
    assert told[0].reason == "stale"
    assert accounted(got, first.seq), told
    assert sum(gap.missed or 0 for gap in told) <= counted.missed
    assert [e.seq for e in events if isinstance(e, OrderUpdate)] == [1, 2, 3, 4, 5, 6]
    assert {e.order_id for e in events if isinstance(e, OrderUpdate)} == set(placed)


def test_a_restarted_redis_is_lived_through_and_said(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread
) -> None:
    """It comes back empty: the bot is registered and fresh again, and hears of the lost journal."""
    with (
        Rig(own_valkey, simulator) as rig,
        Client(host="127.0.0.1", port=own_valkey.port, bot_id="b") as client,
    ):
        (account_id,) = rig.broker.status().accounts
        prices, orders = client.prices("AAPL"), client.orders(account_id, since=0)
        assert client.wait_ready()
        first = next(prices)
        assert isinstance(first, PriceUpdate)
        buy(simulator.url)
        before = [next(orders).seq for _ in range(2)]  # type: ignore[union-attr]
        own_valkey.stop()
        placed = [buy(simulator.url)["id"] for _ in range(2)]
        eventually(lambda: not client.is_fresh("AAPL"))
        own_valkey.start()
        eventually(lambda: client.is_fresh("AAPL"))
        got = drained(prices, client.last("AAPL").seq)
        gap, *events = [next(orders) for _ in range(5)]
    assert before == [1, 2]
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.account_id) == ("journal", account_id)
    assert [e.seq for e in events if isinstance(e, OrderUpdate)] == [3, 4, 5, 6]
    assert {e.order_id for e in events if isinstance(e, OrderUpdate)} == set(placed)
    assert accounted(got, first.seq), got
    assert client.counters.reconnects >= 1
