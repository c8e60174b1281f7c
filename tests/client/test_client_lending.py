"""A bot that waits reads for itself: nothing is lost by it, and nobody waits for a busy bot."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from fake_broker import ACCOUNT, FakeBroker
from lent import Elsewhere, lends, lent, polls, seqs
from support import eventually

from alpaca_broker import Client
from alpaca_broker.client import PriceUpdate, catch_up, conversation, lending, tracking
from alpaca_broker.client.inbox import Bell, Inbox, Portion
from alpaca_broker.client.link import Link
from alpaca_broker.client.subscription import Subscription
from alpaca_broker.embedded import EmbeddedRedis

Connect = Callable[..., Client]
FOR_LONG_S = 60.0


@pytest.fixture
def _waits_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits is woken, or waits for longer than any test; where no heart beats, by nothing."""
    monkeypatch.setattr(conversation, "SILENT_FOR_S", FOR_LONG_S)
    monkeypatch.setattr(catch_up, "COMPARE_EVERY_S", FOR_LONG_S)
    monkeypatch.setattr(lending, "SIGNAL_SEEN_WITHIN_S", FOR_LONG_S)
    monkeypatch.setattr(lending, "ALIVE_S", FOR_LONG_S)


def test_the_thread_that_waits_reads(
    broker: FakeBroker, connect: Connect, readers: list[int]
) -> None:
    """Soon, and then every price; what it reads is counted as ever."""
    client = connect()
    prices, me = lent(client), threading.get_ident()
    sent = 0
    while readers.count(me) < 30:
        assert sent < 500
        broker.price("AAPL")
        sent += 1
        assert next(prices).seq == sent
    counters = client.counters
    assert (counters.received, counters.delivered, counters.waiting) == (sent, sent, 0)


def test_polling_without_a_wait_reads(
    broker: FakeBroker, connect: Connect, readers: list[int]
) -> None:
    """Also a bot that never waits gets everything, and only so much at once as it always did."""
    client = connect(queue=10)
    prices = lent(client)
    broker.price("AAPL", 500)
    got: list[Any] = []
    while not got or got[-1].seq < 500:
        if (update := prices.poll()) is not None:
            got.append(update)
    assert seqs(got) == sorted(set(seqs(got)))
    assert len(got) + sum(update.skipped for update in got) == 500


@pytest.mark.parametrize("busy_s", [0.1, 0.4])
def test_who_is_busy_is_read_for(
    broker: FakeBroker, connect: Connect, readers: list[int], busy_s: float
) -> None:
    """The engine takes over from a bot that does not come back, and the bot from the engine."""
    client = connect()
    prices, me = lent(client), threading.get_ident()
    for round_ in range(3):
        readers.clear()
        while me not in readers:
            broker.price("AAPL")
            next(prices)
        before = client.counters.received
        broker.price("AAPL", 50)
        until = time.monotonic() + busy_s
        eventually(lambda before=before: client.counters.received == before + 50, 2)
        assert client.is_fresh("AAPL"), round_
        eventually(lambda until=until: time.monotonic() > until)
        got = [next(prices) for _ in range(50)]
        assert seqs(got) == list(range(before + 1, before + 51))


def test_under_stress_nothing_is_lost_or_doubled(
    broker: FakeBroker, connect: Connect, readers: list[int]
) -> None:
    """With pauses of any length, and other streams that come and go: every price once, in order."""
    client = connect(queue=1_000_000)
    chance = random.Random(4)
    prices, me = lent(client), threading.get_ident()
    done = threading.Event()
    others: list[list[int]] = []

    def publish() -> None:
        pace = random.Random(5)
        while not done.wait(pace.choice((0, 0.001, 0.02))):
            broker.price("AAPL", 1 if pace.random() < 0.97 else 600)  # which is several pieces

    def come_and_go() -> None:
        pace = random.Random(6)
        while not done.wait(pace.uniform(0.05, 0.3)):
            with client.prices("AAPL") as other:
                others.append(seqs([other.poll(0.02) for _ in range(pace.randrange(10))]))

    helpers = [Elsewhere(publish), Elsewhere(come_and_go)]
    got: list[int] = []
    until = time.monotonic() + 4
    while time.monotonic() < until:
        update = prices.poll(chance.choice((0, 0.001, 0.1)))
        if update is not None:
            assert isinstance(update, PriceUpdate), update
            got.append(update.seq)
            if chance.random() < 0.003:
                done.wait(chance.uniform(0, 0.06))
        elif chance.random() < 0.1:
            done.wait(chance.uniform(0, 0.06))
    done.set()
    for helper in helpers:
        helper.result()
    while got[-1] < broker.seqs["AAPL"]:
        got.append(next(prices).seq)
    assert client.counters.conflated == 0
    assert got == list(range(1, len(got) + 1))
    for seen in others:
        assert seen == list(range(seen[0], seen[-1] + 1)) if seen else True
    counters = client.counters
    assert (counters.reconnects, counters.holes, counters.duplicates) == (0, 0, 0)
    assert 0.05 < readers.count(me) / len(readers) < 0.95  # both had their turns


@pytest.mark.usefixtures("_waits_are_long")
def test_closing_elsewhere_ends_a_wait(broker: FakeBroker, connect: Connect) -> None:
    """Of one who reads for itself, at once; the broker is told goodbye."""
    client = connect()
    prices = lent(client)
    waiting = Elsewhere(lambda: list(prices))
    broker.beats = False
    eventually(lambda: polls(client))
    client.close()
    assert waiting.result() == []
    eventually(lambda: broker.registrations[-1]["action"] == "unregister")


@pytest.mark.usefixtures("_waits_are_long")
def test_closing_the_stream_ends_a_wait(broker: FakeBroker, connect: Connect) -> None:
    """As closing the client does."""
    client = connect()
    prices = lent(client)
    waiting = Elsewhere(lambda: list(prices))
    broker.beats = False
    eventually(lambda: polls(client))
    prices.close()
    assert waiting.result() == []


@pytest.mark.usefixtures("_waits_are_long")
def test_what_the_engine_has_to_say_wakes_who_reads(
    broker: FakeBroker, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No heartbeat: told by the clock, not by anything that is heard."""
    client = connect(ttl=600)
    prices = lent(client)
    waiting = Elsewhere(lambda: next(prices))
    eventually(lambda: polls(client))
    monkeypatch.setattr(tracking, "HEARTBEAT_WITHIN_S", 0.5)
    broker.beats = False
    assert waiting.result().reason == "stale"


@pytest.mark.usefixtures("_waits_are_long")
def test_a_second_stream_ends_it_at_once(
    broker: FakeBroker, connect: Connect, readers: list[int]
) -> None:
    """The engine reads for both; and lends again once there is one."""
    client = connect()
    prices = lent(client)
    waiting = Elsewhere(lambda: next(prices))
    eventually(lambda: polls(client))
    with client.prices("MSFT") as other:
        eventually(lambda: not polls(client))
        assert client.wait_ready()
        assert not lends(client)
        broker.price("MSFT")
        assert next(other).seq == 1
        broker.price("AAPL")
        assert waiting.result().seq == 1
    eventually(lambda: lends(client))
    broker.price("AAPL")
    assert next(prices).seq == 2


@pytest.mark.usefixtures("_waits_are_long")
def test_the_hearing_connection_alone_is_cut(broker: FakeBroker, connect: Connect) -> None:
    """It is the bot that sees it: the engine is told, and connects again."""
    client = connect(bot_id="the-cut-bot")
    prices = lent(client)
    waiting = Elsewhere(lambda: next(prices))
    eventually(lambda: client._engine.lending._dozes)  # so nobody else looks at it
    named = [one["id"] for one in redis_clients(broker) if one["name"].endswith(":hears")]
    assert len(named) == 1
    broker.redis.client_kill_filter(_id=named[0])
    eventually(lambda: client.counters.reconnects == 1)
    eventually(client._engine.is_ready)
    broker.price("AAPL")
    assert waiting.result().seq == 1


def redis_clients(broker: FakeBroker) -> list[dict[str, str]]:
    """The clients of this test's bot."""
    found: Any = broker.redis.client_list()
    return [one for one in found if one["name"].startswith("alpaca-broker:the-cut-bot:")]


@pytest.mark.usefixtures("_waits_are_long")
def test_redis_goes_and_comes_while_a_bot_reads(
    own_valkey: EmbeddedRedis, own_broker: FakeBroker, own_client: Client
) -> None:
    """The bot sees the end of the connection, the engine makes a new one."""
    prices = lent(own_client)
    own_broker.price("AAPL")
    assert next(prices).seq == 1
    waiting = Elsewhere(lambda: next(prices))
    eventually(lambda: polls(own_client))
    own_valkey.stop()
    eventually(lambda: not polls(own_client))
    own_valkey.start()
    eventually(lambda: own_client.counters.reconnects and own_client._engine.is_ready())
    own_broker.price("AAPL")
    assert waiting.result().seq == 2
    eventually(lambda: lends(own_client))


def test_who_leaves_a_dozing_engine_wakes_it(
    broker: FakeBroker, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a quiet time it looks less often; it reads for a bot that gets busy all the same."""
    client = connect()
    prices = lent(client)
    monkeypatch.setattr(conversation, "LOOK_EVERY_S", FOR_LONG_S)
    busy = threading.Event()

    def take_one() -> None:
        assert next(prices).seq == 1
        busy.wait(10)

    bot = Elsewhere(take_one)
    eventually(lambda: client._engine.lending._dozes)
    broker.price("AAPL")
    eventually(lambda: client.counters.delivered == 1)
    broker.price("AAPL")
    eventually(lambda: client.counters.received == 2)
    busy.set()
    bot.result()


def test_orders_and_gaps_alone_are_not_lent(broker: FakeBroker, connect: Connect) -> None:
    """Orders come once and all of them, whatever breaks off a bot."""
    client = connect()
    with client.orders(ACCOUNT):
        eventually(client._engine.is_ready)
        eventually(lambda: client._engine.session.has_work is False)
        assert not lends(client)
    with client.gaps():
        eventually(client._engine.is_ready)
        assert not lends(client)


# Who does the hearing.


class OneConsumer:
    """What lending sees of a session."""

    def __init__(self, *consumers: Any) -> None:
        self.subscriptions, self.is_subscribed, self.has_work = consumers, True, False


@pytest.fixture
def link(valkey: EmbeddedRedis) -> Iterator[Link]:
    """A connection."""
    link = Link(redis.Redis(port=valkey.port))
    yield link
    link.close()


def test_the_engine_leaves_out_what_a_bot_reads(link: Link) -> None:
    """While it waits, and for as long as it may be back soon; not where it did not read all."""
    inbox, portion, rung = Inbox(10, conflates=True), Portion(), list[bool]()
    session: Any = OneConsumer(Subscription(inbox, symbols=frozenset(["A"])))
    lends = lending.Lending(session, lambda: rung.append(True))
    assert lends.wait(inbox, Bell(), portion, 0.0) is None  # nothing is on offer
    lends.open()

    def hear() -> bool:
        link.read()
        inbox.pending.append(PriceUpdate("A", 1.0, 0.0))
        return False  # it was not all

    lends.arrange(link, hear)
    assert not lends.leaves_out(0.0)
    assert lends.wait(inbox, Bell(), portion, 0.0) is None
    assert lends.leaves_out(1.0)
    assert lends.leaves_out(1.01)
    assert not lends.leaves_out(1.021)
    lends._polls = True  # it waits, or was broken off in a way that nobody thought of
    lends._visits += 1
    assert lends.leaves_out(2.0)
    assert lends.leaves_out(2.5)
    assert lends.may_doze(1.0)
    assert not lends.may_doze(0.01)
    assert not lends.leaves_out(2.7)
    lends._polls = False
    assert not lends.may_doze(1.0)
    link.send("PING")
    assert lends.wait(inbox, Bell(), portion, FOR_LONG_S) == inbox.in_hand != []
    assert not lends.leaves_out(3.0)
    assert not lends.withdraw()
    lends.close()
