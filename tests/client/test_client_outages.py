"""What a bot lives through without doing anything: every hole is told, and nothing stays stale."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from time import monotonic
from typing import Any

import pytest
from fake_broker import ACCOUNT, FakeBroker
from support import PATIENCE_S, Stopwatch, eventually, frozen

from alpaca_broker import Client
from alpaca_broker.client import (
    Gap,
    OrderUpdate,
    PriceUpdate,
    Stream,
    catch_up,
    conversation,
    tracking,
)
from alpaca_broker.embedded import EmbeddedRedis


@pytest.fixture(autouse=True)
def patience() -> None:
    """Here a client has no more of it than in life."""


def until_seq(stream: Stream[Any], seq: int) -> list[Any]:
    """Everything up to this number."""
    got: list[Any] = []
    while not got or getattr(got[-1], "seq", None) != seq:
        got.append(next(stream))
    return got


def gaps(items: list[Any]) -> list[Gap]:
    """The gaps among them."""
    return [item for item in items if isinstance(item, Gap)]


def test_a_restart_of_redis(
    own_valkey: EmbeddedRedis, own_broker: FakeBroker, own_client: Client
) -> None:
    """What was published before it was back is told as a hole, and the newest price is there."""
    prices = own_client.prices("AAPL")
    assert own_client.wait_ready()
    own_broker.price("AAPL", 2)
    until_seq(prices, 2)
    own_valkey.stop()
    eventually(lambda: not own_client.is_fresh("AAPL"))
    own_broker.seqs["AAPL"] += 3
    own_valkey.start()
    own_broker.price("AAPL", lost=True)
    got = until_seq(prices, 6)
    assert [(gap.missed, gap.reason) for gap in gaps(got) if gap.missed] == [(4, "reconnect")]
    assert got[-1].repaired
    eventually(lambda: own_client.is_fresh("AAPL"))
    eventually(lambda: own_broker.price("AAPL") or own_client.counters.received > 2)
    assert own_client.counters.reconnects >= 1


def test_orders_over_a_restart_of_redis(
    own_valkey: EmbeddedRedis, own_broker: FakeBroker, own_client: Client
) -> None:
    """The journal is lost with an empty Redis: a gap, the open orders, and what comes."""
    orders = own_client.orders(ACCOUNT, since=0)
    assert own_client.wait_ready()
    own_broker.order("first")
    assert next(orders).seq == 1  # type: ignore[union-attr]
    own_valkey.stop()
    own_valkey.start()
    own_broker.journal_id = "another"
    own_broker.order("second")
    got = until_seq(orders, 2)
    assert [gap.reason for gap in gaps(got)] == ["journal"]
    assert [item.order_id for item in got if isinstance(item, OrderUpdate)] == ["second"]


@pytest.mark.soak
def test_a_frozen_redis(
    own_valkey: EmbeddedRedis, own_broker: FakeBroker, own_client: Client, soak: bool
) -> None:
    """Noticed by the missing heartbeats within three seconds, told, and lived through."""
    prices = own_client.prices("AAPL")
    assert own_client.wait_ready()
    own_broker.price("AAPL")
    until_seq(prices, 1)
    eventually(lambda: own_client.is_fresh("AAPL"))
    with frozen(own_valkey), Stopwatch() as lived:
        began = monotonic()
        eventually(lambda: not own_client.is_fresh("AAPL"))
        assert lived.seconds <= 3.5
        assert own_client.state == "stale"
        gap = next(prices)
        assert lived.seconds <= 4.5
        assert isinstance(gap, Gap)
        assert (gap.reason, gap.symbols, gap.ended) == ("stale", ("AAPL",), None)
        # Only a connection that is given up is made anew.
        eventually(lambda: own_client._engine._trouble)
        eventually(lambda: monotonic() - began >= 10 or not soak)
    eventually(lambda: own_client.state == "live")
    own_broker.price("AAPL", lost=True)
    own_broker.price("AAPL")
    got = until_seq(prices, 3)
    assert sum(gap.missed or 0 for gap in gaps(got)) in (1, 2)  # the third may be the repair
    eventually(lambda: own_client.is_fresh("AAPL"))
    assert own_client.counters.reconnects >= 1


def test_a_silent_broker_is_no_reason_to_reconnect(
    own_broker: FakeBroker, own_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis answers the ping: stale, but connected; the next heartbeat ends it."""
    monkeypatch.setattr(conversation, "SILENT_FOR_S", 0.5)  # a ping before it is stale
    monkeypatch.setattr(conversation, "PONG_WITHIN_S", 30.0)
    prices = own_client.prices("AAPL")
    assert own_client.wait_ready()
    own_broker.beats = False
    eventually(lambda: own_client.state == "stale")
    assert not own_client.is_fresh("AAPL")
    assert [gap.reason for gap in gaps([prices.poll(30.0)])] == ["stale"]
    assert not threading.Event().wait(0.05)
    own_broker.beats = True
    eventually(lambda: own_client.is_fresh("AAPL"))
    assert own_client.counters.reconnects == 0


SLOW_READER = """
import sys
from alpaca_broker import Client
from alpaca_broker.client import Gap, PriceUpdate
with Client(host="127.0.0.1", port=int(sys.argv[1]), queue=1_000_000) as client:
    prices = client.prices("AAPL")
    assert client.wait_ready()
    print("ready", flush=True)
    got = missed = 0
    reasons = set()
    for update in prices:
        if isinstance(update, PriceUpdate):
            got += not update.repaired
            if update.seq == int(sys.argv[2]):
                break
        elif update.missed:
            missed += update.missed
            reasons.add(update.reason)
    print(got, missed, client.counters.missed, *reasons, flush=True)
"""


@pytest.mark.soak
def test_a_cut_by_redis_counts_what_it_missed(own_valkey: EmbeddedRedis, soak: bool) -> None:
    """A reader that is stopped is cut off at a megabyte; what it then missed is counted exactly."""
    total, pad = (30_000, "x" * 200) if soak else (6_000, "x" * 2_000)
    with FakeBroker(own_valkey.port) as broker:
        broker.redis.config_set("client-output-buffer-limit", "pubsub 1mb 512kb 5")
        arguments = [sys.executable, "-c", SLOW_READER, str(own_valkey.port), str(total)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as reader:
            try:
                assert reader.stdout is not None
                assert reader.stdout.readline() == "ready\n"
                broker.price("AAPL", 10)
                reader.send_signal(signal.SIGSTOP)
                for _ in range(20):
                    broker.price("AAPL", total // 30, note=pad)
                channel = broker.channels.price("AAPL")
                eventually(lambda: broker.redis.pubsub_numsub(channel)[0][1] == 0, why="not cut")
                reader.send_signal(signal.SIGCONT)
                eventually(lambda: broker.redis.pubsub_numsub(channel)[0][1] == 1)
                while broker.seqs["AAPL"] < total:
                    broker.price("AAPL", 10)
                got, missed, counted, *reasons = reader.stdout.readline().split()
            finally:
                reader.kill()
    print(f"of {total} prices {got} were heard and {missed} counted as missed")
    assert int(got) + int(missed) == total
    assert int(missed) > total // 30
    assert counted == missed
    assert reasons == ["cut", "by", "redis"]


def test_a_cut_is_repaired_for_a_quiet_symbol(
    own_broker: FakeBroker, own_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No further message is needed: after the reconnect the numbers are compared at once."""
    monkeypatch.setattr(catch_up, "COMPARE_EVERY_S", 3_600.0)
    monkeypatch.setattr(tracking, "HEARTBEAT_WITHIN_S", 3_600.0)
    prices = own_client.prices("AAPL")
    assert own_client.wait_ready()
    own_broker.price("AAPL")
    until_seq(prices, 1)
    [mine] = [c for c in own_broker.redis.client_list() if c["name"].endswith(":hears")]
    commands = own_broker.redis.pipeline(transaction=True)
    commands.client_kill_filter(_id=mine["id"])
    own_broker.seqs["AAPL"] += 4
    commands.execute()
    own_broker.price("AAPL", lost=True)
    gap, repaired = next(prices), next(prices)
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.missed, gap.repaired) == ("cut by redis", 5, "price:last")
    assert isinstance(repaired, PriceUpdate)
    assert (repaired.seq, repaired.repaired) == (6, True)
    eventually(lambda: own_client.is_fresh("AAPL"))


def test_orders_over_a_cut(own_broker: FakeBroker, own_client: Client) -> None:
    """Each once and in order, whenever the connection is cut while they come."""
    orders = own_client.orders(ACCOUNT, since=0)
    assert own_client.wait_ready()
    for n in range(600):
        own_broker.order()
        if n % 150 == 75:
            own_broker.redis.client_kill_filter(_type="pubsub", skipme=True)
    got = [item.seq for item in until_seq(orders, 600) if isinstance(item, OrderUpdate)]
    assert got == list(range(1, 601))
    assert own_client.counters.reconnects >= 1


def test_a_restarted_broker(own_valkey: EmbeddedRedis, own_client: Client) -> None:
    """A new epoch from another process: registered again, fresh again, nothing done by the bot."""
    prices = own_client.prices("AAPL")
    with FakeBroker(own_valkey.port) as first:
        assert own_client.wait_ready()
        first.price("AAPL", 2)
        until_seq(prices, 2)
    with FakeBroker(own_valkey.port) as second:
        second.epoch = 2_000
        gap = next(prices)
        assert isinstance(gap, Gap)
        assert gap.reason in ("epoch", "stale")
        eventually(lambda: own_client.is_fresh("AAPL"))
        assert {m["symbols"][0] for m in second.registrations} == {"AAPL"}
        second.price("AAPL")
        assert until_seq(prices, 1)[-1].epoch == 2_000


def test_a_redis_that_comes_later(unused_tcp_port: int) -> None:
    """A bot may be started before Redis."""
    with Client(host="127.0.0.1", port=unused_tcp_port) as client:
        prices = client.prices("AAPL")
        eventually(lambda: client._engine._trouble)
        assert not client.wait_ready(0.0)
        with EmbeddedRedis(port=unused_tcp_port), FakeBroker(unused_tcp_port) as broker:
            assert client.wait_ready(PATIENCE_S)
            broker.price("AAPL")
            assert [u.seq for u in until_seq(prices, 1)] == [1]


def test_close_is_quick_while_redis_is_away(own_valkey: EmbeddedRedis) -> None:
    """Neither a pause between two attempts nor a stopped server delays the end."""
    client = Client(host="127.0.0.1", port=own_valkey.port)
    prices = client.prices("AAPL")
    eventually(lambda: client._engine.session.is_subscribed)
    own_valkey.stop()
    eventually(lambda: client._engine._trouble)
    with Stopwatch() as lived:
        client.close()
    assert lived.seconds < 2
    assert list(prices) == []
