"""Order events are held against REST: what the stream does not bring is found all the same."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from ledger import journal, settles
from support import KEY_ID, Rig, eventually

from alpaca_broker.core import orderbook
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread
from alpaca_broker.simulator.accounts import account_id_of
from alpaca_broker.simulator.switches import RestTrouble
from alpaca_broker.trading import reconciliation

ACCOUNT = account_id_of(KEY_ID)


@pytest.fixture
def simulator() -> Iterator[SimulatorThread]:
    """A pretend Alpaca that does not count REST calls."""
    with SimulatorThread(SimulatorOptions(rest_limit_per_min=None)) as thread:
        yield thread


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other sooner than they would in life."""
    monkeypatch.setattr(reconciliation, "BUSY_EVERY_S", 0.5)
    monkeypatch.setattr(reconciliation, "QUIET_EVERY_S", 0.5)
    monkeypatch.setattr(reconciliation, "WHOLE_EVERY_S", 0.5)
    monkeypatch.setattr(reconciliation, "SLACK_S", 0.0)


@pytest.fixture
def rig(
    valkey: EmbeddedRedis, prefix: str, simulator: SimulatorThread, quick: None
) -> Iterator[Rig]:
    """A broker whose looks cost it nothing."""
    with Rig(valkey, simulator, prefix=prefix, reconcile_calls_per_minute=6_000) as running:
        yield running


class Hand:
    """Orders of the tests' account, moved by hand."""

    def __init__(self, simulator: SimulatorThread) -> None:
        self._simulator = simulator

    def __getattr__(self, name: str) -> Any:
        def move(*args: Any, **more: Any) -> Any:
            method = getattr(self._simulator.simulator.by_hand(KEY_ID), name)
            return self._simulator.call(method, *args, **more)

        return move


def gaps(rig: Rig) -> list[dict[str, Any]]:
    """The gaps of the account that were told, oldest first."""
    with redis.Redis(port=rig.valkey.port) as client:
        entries: Any = client.xrange(rig.channels.gaps)
    found = [json.loads(fields[b"data"]) for _, fields in entries]
    return [gap for gap in found if gap.get("account_id") == ACCOUNT]


def account(rig: Rig) -> Any:
    """What the status says of the account."""
    return rig.broker.status().accounts[ACCOUNT]


def test_fills_while_the_stream_was_down_arrive_once_and_in_order_before_live(rig: Rig) -> None:
    """Three orders, one of them from yesterday, and a live event right after the reconnect."""
    hand, simulator = Hand(rig.simulator), rig.simulator
    old = hand.place("AAPL", 30, days_ago=1)
    hand.fill(old, 10)
    settles(rig.valkey.port, rig.channels, simulator)
    with rig.bot(rig.channels.order(ACCOUNT), rig.channels.status) as bot:
        simulator.stop_server()
        eventually(lambda: account(rig).state != "live")
        hand.fill(old, 20)
        second = hand.place("MSFT", 10)
        hand.fill(second, 5)
        hand.fill(second, 5)
        third = hand.place("SPY", 7)
        hand.cancel(third)
        simulator.start_server()
        events, live = [], None
        while live is None or len(events) < 6:
            channel, message = bot.next()
            if channel == rig.channels.order(ACCOUNT):
                events.append(message)
            elif message["type"] == "status" and len(events) == 6:
                live = message["accounts"][ACCOUNT]["state"] == "live" or None
            elif message["type"] == "status":
                assert message["accounts"][ACCOUNT]["state"] != "live" or not events
    by_order: dict[str, list[str]] = {}
    for event in events:
        by_order.setdefault(event["order_id"], []).append(event["event"])
        assert event["source"] == "reconcile"
    assert by_order == {
        old: ["fill"],
        second: ["new", "partial_fill", "fill"],
        third: ["new", "canceled"],
    }
    assert [event["seq"] for event in events] == list(range(3, 9))
    settles(rig.valkey.port, rig.channels, simulator)
    told = eventually(lambda: gaps(rig))
    assert [gap["recovered"] for gap in told] == [True]
    later = hand.place("TSLA", 1)
    eventually(lambda: journal(rig.valkey.port, rig.channels)[-1]["order_id"] == later)
    assert journal(rig.valkey.port, rig.channels)[-1]["source"] == "stream"


def test_an_event_dropped_on_a_healthy_socket_is_found(rig: Rig) -> None:
    """Nobody disconnected, and nobody said that something is missing: REST shows it."""
    hand, simulator = Hand(rig.simulator), rig.simulator
    order = hand.place("AAPL", 10)
    settles(rig.valkey.port, rig.channels, simulator)
    simulator.call(simulator.simulator.lose_trade_updates, 1)
    hand.fill(order)
    entries = settles(rig.valkey.port, rig.channels, simulator)
    assert (entries[-1]["event"], entries[-1]["source"]) == ("fill", "reconcile")
    assert eventually(lambda: account(rig).recovered) == 1
    told = eventually(lambda: gaps(rig))
    assert told[-1]["recovered"] is True
    assert "did not bring an event" in told[-1]["reason"]
    assert rig.broker.status().state == "live"


def test_a_mute_order_stream_is_noticed_by_what_rest_shows(rig: Rig) -> None:
    """It answers pings and brings nothing: its events come by REST, then it is replaced."""
    hand, simulator = Hand(rig.simulator), rig.simulator
    order = hand.place("AAPL", 10)
    settles(rig.valkey.port, rig.channels, simulator)
    simulator.call(simulator.simulator.mute, "trading")
    hand.fill(order, 5)
    settles(rig.valkey.port, rig.channels, simulator)
    hand.fill(order, 5)
    settles(rig.valkey.port, rig.channels, simulator)
    eventually(lambda: simulator.stats.trading_sessions == 2, why="it was not replaced")
    eventually(lambda: account(rig).state == "live")
    hand.place("MSFT", 1)
    entries = settles(rig.valkey.port, rig.channels, simulator)
    assert [entry["source"] for entry in entries] == ["stream", *["reconcile"] * 2, "stream"]


@pytest.mark.parametrize(
    "trouble",
    [
        RestTrouble(status=500, prefix="/v2/orders"),
        RestTrouble(status=200, body=b"[]", prefix="/v2/account/activities"),
    ],
    ids=["orders refused", "fills late"],
)
def test_with_rest_no_help_events_flow_after_five_seconds_and_the_gap_says_so(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, trouble: RestTrouble
) -> None:
    """What was missed comes when REST is back, after newer events; the account is degraded."""
    monkeypatch.setattr(reconciliation, "HOLD_S", 1.5)
    hand, simulator = Hand(rig.simulator), rig.simulator
    order = hand.place("AAPL", 10)
    settles(rig.valkey.port, rig.channels, simulator)
    simulator.stop_server()
    eventually(lambda: account(rig).state != "live")
    hand.fill(order)
    simulator.call(simulator.simulator.switches.rest.append, trouble)
    simulator.start_server()
    streams = simulator.simulator.links
    eventually(
        lambda: simulator.call(lambda: [link.live for link in streams("trading")]) == [True],
        why="nobody listens again",
    )
    newer = hand.place("MSFT", 1)
    eventually(lambda: account(rig).state == "degraded")
    assert "not known yet" in account(rig).error
    assert rig.broker.status().state == "degraded"
    eventually(lambda: journal(rig.valkey.port, rig.channels)[-1]["order_id"] == newer)
    assert [gap["recovered"] for gap in eventually(lambda: gaps(rig))] == [False]
    simulator.call(simulator.simulator.switches.rest.clear)
    entries = settles(rig.valkey.port, rig.channels, simulator)
    assert (entries[-1]["order_id"], entries[-1]["source"]) == (order, "reconcile")
    eventually(lambda: account(rig).state == "live")
    eventually(lambda: [gap["recovered"] for gap in gaps(rig)] == [False, True])


def test_what_happened_while_the_broker_was_away_is_told_after_its_restart(
    valkey: EmbeddedRedis, prefix: str, simulator: SimulatorThread, quick: None
) -> None:
    """The journal, the open orders and the time until which all was known are Redis'."""
    hand = Hand(simulator)
    before = hand.place("AAPL", 10)  # from before the first start ever: known, and not told
    with Rig(valkey, simulator, prefix=prefix, reconcile_calls_per_minute=6_000) as first:
        with redis.Redis(port=valkey.port) as client:
            shown: Any = eventually(lambda: client.hgetall(first.channels.open_orders(ACCOUNT)))
        assert [json.loads(update)["order_id"] for update in shown.values()] == [before]
        assert journal(valkey.port, first.channels) == [], "the first start publishes nothing"
        known = hand.place("MSFT", 10)
        hand.fill(known, 4)
        eventually(lambda: len(journal(valkey.port, first.channels)) == 2)
    hand.fill(known, 6)
    hand.fill(before)
    with Rig(valkey, simulator, prefix=prefix, reconcile_calls_per_minute=6_000) as second:
        entries = eventually(
            lambda: len(found := journal(valkey.port, second.channels)) == 4 and found
        )
        assert [(e["order_id"], e["event"]) for e in entries[2:]] == [
            (known, "fill"),
            (before, "fill"),
        ]
        assert [e["seq"] for e in entries] == [1, 2, 3, 4]
        looked = account(second).reconciled
        eventually(lambda: account(second).reconciled > looked, why="no second look")
        assert len(journal(valkey.port, second.channels)) == 4, "the second look found nothing"
        with redis.Redis(port=valkey.port) as client:
            assert client.hlen(second.channels.open_orders(ACCOUNT)) == 0


def test_open_orders_are_there_again_when_redis_has_lost_them(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread, quick: None
) -> None:
    """Redis came back empty: a bot that sees the new journal finds every open order."""
    hand = Hand(simulator)
    with Rig(own_valkey, simulator, reconcile_calls_per_minute=6_000) as rig:
        orders = {hand.place("AAPL", 10), hand.place("MSFT", 10)}
        eventually(lambda: len(journal(own_valkey.port, rig.channels)) == 2)
        with redis.Redis(port=own_valkey.port) as client:
            client.delete(rig.channels.journal(ACCOUNT), rig.channels.open_orders(ACCOUNT))
            third = hand.place("SPY", 1)
            eventually(lambda: len(journal(own_valkey.port, rig.channels)) == 1)
            shown: Any = client.hgetall(rig.channels.open_orders(ACCOUNT))
        assert {name.decode() for name in shown} == orders | {third}
        assert len({json.loads(update)["journal_id"] for update in shown.values()}) == 1


def test_events_doubled_and_swapped_on_the_stream_come_out_right(rig: Rig) -> None:
    """Once each, and each order's in its order."""
    hand, simulator = Hand(rig.simulator), rig.simulator
    for fault in ("duplicate", "reorder", "duplicate", "reorder"):
        setattr(simulator.simulator.tampering, fault, 1)
        order = hand.place("AAPL", 10)
        hand.fill(order, 3)
        hand.fill(order, 3)
        hand.cancel(order)
    entries = settles(rig.valkey.port, rig.channels, simulator)
    assert len(entries) == 16


def test_rest_calls_stay_within_their_budget(
    valkey: EmbeddedRedis, prefix: str, simulator: SimulatorThread, quick: None
) -> None:
    """However soon a look is due: four calls at once, then one a minute."""
    with Rig(valkey, simulator, prefix=prefix, reconcile_calls_per_minute=1) as rig:
        Hand(simulator).place("AAPL", 10)
        before = simulator.stats.rest_requests
        threading.Event().wait(2.0)  # four looks would be due
        assert simulator.stats.rest_requests - before <= 4
        assert account(rig).state == "live"


def test_when_alpaca_has_enough_of_one_of_us_nobody_with_that_key_asks(
    rig: Rig, simulator: SimulatorThread, caplog: pytest.LogCaptureFixture
) -> None:
    """The list of assets is answered with 429: orders are not held against REST for a moment."""
    trouble = RestTrouble(status=429, prefix="/v2/assets")
    simulator.call(simulator.simulator.switches.rest.append, trouble)
    before = simulator.stats.rest_requests
    eventually(lambda: simulator.stats.rest_requests > before, why="the premise: looks go on")
    rig.register("AAPL")
    eventually(lambda: "symbols are taken unchecked" in caplog.text)
    simulator.call(simulator.simulator.switches.rest.clear)
    seen, since = -1, 0.0

    def nobody_asks() -> bool:  # but for the last price, which is another host's
        nonlocal seen, since
        if (requests := simulator.stats.rest_requests) > seen + 1:
            seen, since = requests, time.monotonic()
        return time.monotonic() - since > 1.5  # three looks would have been due

    eventually(nobody_asks, why="looks go on")
    eventually(lambda: simulator.stats.rest_requests > seen + 3, why="for a moment, it said")


def test_what_was_before_the_first_start_ever_is_not_told_by_the_second_one(
    valkey: EmbeddedRedis,
    prefix: str,
    simulator: SimulatorThread,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A restart minutes after the first start: bots would count old fills as new ones."""
    hand = Hand(simulator)
    closed, half = hand.place("AAPL", 10), hand.place("MSFT", 10)
    hand.fill(closed)
    hand.fill(half, 4)
    monkeypatch.setattr(reconciliation, "CLOCK_SLACK_S", 1.0)
    time.sleep(1.5)  # Alpaca's times are told from ours by the second
    with Rig(valkey, simulator, prefix=prefix, reconcile_calls_per_minute=6_000):
        pass
    with Rig(valkey, simulator, prefix=prefix, reconcile_calls_per_minute=6_000) as second:
        looked = account(second).reconciled
        eventually(lambda: account(second).reconciled > looked, why="no second look")
        assert journal(valkey.port, second.channels) == []
        hand.fill(half, 6)
        entries = eventually(lambda: journal(valkey.port, second.channels))
    assert [(e["order_id"], e["event"], e["execution_qty"]) for e in entries] == [(half, "fill", 6)]


def test_a_fill_is_told_although_rest_was_away_since_the_first_start_ever(
    valkey: EmbeddedRedis, prefix: str, simulator: SimulatorThread, quick: None, monkeypatch: Any
) -> None:
    """Its order came by stream, the fill during a cut; then REST answers for the first time."""
    monkeypatch.setattr(reconciliation, "HOLD_S", 0.5)
    monkeypatch.setattr(reconciliation, "CLOCK_SLACK_S", 1.0)
    hand, trouble = Hand(simulator), RestTrouble(status=500, prefix="/v2/orders")
    before = hand.place("MSFT", 10)
    hand.fill(before, 4)
    simulator.call(simulator.simulator.switches.rest.append, trouble)
    rig = Rig(valkey, simulator, prefix=prefix, reconcile_calls_per_minute=6_000)
    try:
        rig.start(live=False)
        eventually(lambda: [a.state for a in rig.broker.status().accounts.values()] == ["degraded"])
        time.sleep(1.5)
        order = hand.place("AAPL", 10)
        eventually(lambda: len(journal(valkey.port, rig.channels)) == 1)
        simulator.stop_server()
        eventually(lambda: account(rig).state != "degraded")
        hand.fill(order, 3)
        hand.fill(before, 1)
        simulator.start_server()
        eventually(lambda: simulator.stats.trading_sessions == 2)
        simulator.call(simulator.simulator.switches.rest.clear)
        eventually(lambda: account(rig).state == "live")
        entries = eventually(lambda: len(j := journal(valkey.port, rig.channels)) == 3 and j)
    finally:
        rig.stop()
    assert {(e["order_id"], e["event"], int(e["filled_qty"])) for e in entries} == {
        (order, "new", 0),
        (order, "partial_fill", 3),
        (before, "partial_fill", 5),
    }


def test_an_event_that_waits_for_a_lost_one_does_not_wait_for_the_budget(
    valkey: EmbeddedRedis, prefix: str, simulator: SimulatorThread, quick: None
) -> None:
    """The next look would be due in a quarter of a minute; five seconds is what an event waits."""
    hand = Hand(simulator)
    with Rig(valkey, simulator, prefix=prefix, reconcile_calls_per_minute=4) as rig:
        order = hand.place("AAPL", 10)
        simulator.call(simulator.simulator.lose_trade_updates, 1)
        hand.fill(order, 3)
        hand.fill(order, 4)
        entries = eventually(lambda: len(j := journal(valkey.port, rig.channels)) >= 3 and j)
        assert [int(entry["filled_qty"]) for entry in entries] == [0, 3, 7]
        assert [entry["source"] for entry in entries] == ["stream", "reconcile", "stream"]


def test_an_event_that_is_let_go_without_the_one_before_it_is_told_as_such(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REST does not help in time: the order of events is broken, and bots are told; then mended."""
    monkeypatch.setattr(orderbook, "HOLD_S", 0.5)
    hand, simulator = Hand(rig.simulator), rig.simulator
    order = hand.place("AAPL", 10)
    settles(rig.valkey.port, rig.channels, simulator)
    trouble = RestTrouble(status=500, prefix="/v2/")
    simulator.call(simulator.simulator.switches.rest.append, trouble)
    simulator.call(simulator.simulator.lose_trade_updates, 1)
    hand.fill(order, 3)
    hand.fill(order, 4)
    (gap,) = eventually(lambda: gaps(rig), why="nobody was told")
    assert (gap["recovered"], "came without" in gap["reason"]) == (False, True)
    assert journal(rig.valkey.port, rig.channels)[-1]["filled_qty"] == 7
    simulator.call(simulator.simulator.switches.rest.clear)
    eventually(lambda: gaps(rig)[-1].get("again"), why="that it is mended was not told")
    settles(rig.valkey.port, rig.channels, simulator)
