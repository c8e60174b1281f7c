"""What an account's gaps say: from the last moment that all was known, without overlapping."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import redis
from ledger import settles
from support import KEY_ID, Rig, eventually

from alpaca_broker.alpaca import link
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread
from alpaca_broker.simulator.accounts import account_id_of
from alpaca_broker.simulator.fault_script import script
from alpaca_broker.trading import account_stream, reconciliation

ACCOUNT = account_id_of(KEY_ID)


@pytest.fixture
def simulator() -> Iterator[SimulatorThread]:
    """A pretend Alpaca that does not count REST calls."""
    with SimulatorThread(SimulatorOptions(rest_limit_per_min=None)) as thread:
        yield thread


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks and marks follow each other soon; whole looks, which move the watermark, do not."""
    monkeypatch.setattr(reconciliation, "BUSY_EVERY_S", 0.3)
    monkeypatch.setattr(reconciliation, "QUIET_EVERY_S", 0.3)
    monkeypatch.setattr(account_stream, "MARK_EVERY_S", 0.05)


@pytest.fixture
def rig(valkey: EmbeddedRedis, prefix: str, simulator: SimulatorThread) -> Iterator[Rig]:
    """A broker whose looks cost it nothing."""
    with Rig(valkey, simulator, prefix=prefix, reconcile_calls_per_minute=6_000) as running:
        yield running


def move(simulator: SimulatorThread, what: str, *args: Any) -> Any:
    """Move an order of the account by hand."""
    return simulator.call(getattr(simulator.simulator.by_hand(KEY_ID), what), *args)


def gaps(rig: Rig) -> list[dict[str, Any]]:
    """The gaps of the account that were told, oldest first."""
    with redis.Redis(port=rig.valkey.port) as client:
        entries: Any = client.xrange(rig.channels.gaps)
    found = [json.loads(fields[b"data"]) for _, fields in entries]
    return [gap for gap in found if gap.get("account_id") == ACCOUNT]


def account(rig: Rig) -> Any:
    """What the status says of the account."""
    return rig.broker.status().accounts[ACCOUNT]


def is_known_until(rig: Rig, at: float) -> None:
    """Wait until Redis has kept that all is known until then."""

    def is_kept() -> bool:
        with redis.Redis(port=rig.valkey.port) as client:
            kept: Any = client.hget(rig.channels.received, f"heard:{ACCOUNT}")
        return kept is not None and float(kept) >= at

    eventually(is_kept, why="nobody knows until when the stream was whole")


def test_a_hand_over_is_told_as_such_from_the_last_sign_of_the_stream(
    valkey: EmbeddedRedis, prefix: str, simulator: SimulatorThread
) -> None:
    """Not from the last whole look by REST, which is older."""
    more = {"prefix": prefix, "reconcile_calls_per_minute": 6_000}
    with Rig(valkey, simulator, **more) as first:
        looked = eventually(lambda: account(first).reconciled)
        eventually(lambda: time.time() > looked + 1.0)
        began = time.time()
        move(simulator, "place", "AAPL", 10)
        is_known_until(first, began)
        second = Rig(valkey, simulator, **more).start(live=False)
        assert account(first).reconciled == looked, "the premise: the watermark has not moved"
        ended = time.time()
    try:
        [gap] = eventually(lambda: gaps(second))
    finally:
        second.stop()
    assert began <= gap["from"] <= ended <= gap["to"]
    lasted = gap["to"] - gap["from"]
    assert gap["reason"] == (
        f"a hand-over, or a restart of the broker: no order stream for {lasted:.1f} s"
    )


def test_a_gap_begins_with_the_last_sign_of_a_stream_that_died_unnoticed(
    rig: Rig, simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half open: the other side is gone, and it takes a while until that is certain."""
    monkeypatch.setattr(link, "PING_AFTER_S", 0.5)
    monkeypatch.setattr(link, "SILENT_FOR_S", 2.0)
    move(simulator, "place", "AAPL", 10)
    settles(rig.valkey.port, rig.channels, simulator)
    simulator.play(script(["half-open@0s+60s:trading"]))
    eventually(lambda: account(rig).state != "live")
    noticed = time.time()
    [gap] = eventually(lambda: gaps(rig))
    assert gap["from"] < noticed - 1.5, "it is noticed two seconds after the last sign"
    assert "no sign of life" in gap["reason"]


def test_a_gap_begins_with_the_first_event_that_did_not_come(
    rig: Rig, simulator: SimulatorThread
) -> None:
    """The socket seemed well, and had lost something just before it was cut."""
    order = move(simulator, "place", "AAPL", 10)
    settles(rig.valkey.port, rig.channels, simulator)
    simulator.call(simulator.simulator.lose_trade_updates, 1)
    move(simulator, "fill", order, 5)
    move(simulator, "place", "MSFT", 1)
    simulator.play(script(["cut@0s:trading"])).result(60)
    entries = settles(rig.valkey.port, rig.channels, simulator)
    [lost] = [entry["timestamp"] for entry in entries if entry["event"] == "partial_fill"]
    [gap] = eventually(lambda: gaps(rig))
    assert gap["from"] == pytest.approx(float(lost), abs=0.001)


def test_gaps_of_an_account_do_not_overlap(rig: Rig, simulator: SimulatorThread) -> None:
    """Events dropped on a healthy socket, again and again, and cuts in between."""
    for number in range(2):
        order = move(simulator, "place", "AAPL", 10)
        settles(rig.valkey.port, rig.channels, simulator)
        simulator.call(simulator.simulator.lose_trade_updates, 1)
        dropped = time.time()
        move(simulator, "fill", order)
        settles(rig.valkey.port, rig.channels, simulator)
        told = eventually(lambda number=number: (g := gaps(rig))[2 * number :] and g)
        assert told[-1]["from"] >= dropped - 0.1, "the stream was whole until then"
        simulator.play(script(["cut@0s:trading"])).result(60)
        eventually(lambda number=number: len(gaps(rig)) == 2 * number + 2)
    told = gaps(rig)
    assert [gap["recovered"] for gap in told] == [True] * 4
    assert all(gap["from"] <= gap["to"] for gap in told)
    assert all(one["to"] <= next_["from"] for one, next_ in pairwise(told))
