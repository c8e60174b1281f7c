"""Orders as a bot gets them: each once, in order, whatever was missed in between."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_broker import ACCOUNT, FakeBroker
from support import eventually

from alpaca_broker import Client
from alpaca_broker.client import Gap, OrderUpdate, catch_up
from alpaca_broker.client.seam import Read
from alpaca_broker.embedded import EmbeddedRedis

Connect = Callable[..., Client]
COMPARED_EVERY_S = catch_up.COMPARE_EVERY_S  # before any test makes it something else


def seqs(items: list[Any]) -> list[int]:
    """The numbers of the order events."""
    return [item.seq for item in items if isinstance(item, OrderUpdate)]


def test_what_came_while_away_then_what_comes(broker: FakeBroker, connect: Connect) -> None:
    """Given the last number, the journal first and then live, without a seam to be seen."""
    for _ in range(1_200):
        broker.order()
    client = connect(account_id=ACCOUNT)
    orders = client.orders(since=100)
    for _ in range(10):
        broker.order()
    assert client.wait_ready()
    broker.order(status="filled")
    got = [next(orders) for _ in range(1_111)]
    assert seqs(got) == list(range(101, 1_212))
    assert client.counters.missed == 0
    assert broker.registrations[-1]["account_id"] == ACCOUNT


def test_open_orders_come_first(broker: FakeBroker, connect: Connect) -> None:
    """Without a number: the last event of each open order, then what is new."""
    broker.order("open")
    broker.order("done")
    broker.order("done", "filled")
    client = connect()
    orders = client.orders(ACCOUNT)
    first = next(orders)
    assert isinstance(first, OrderUpdate)
    assert (first.order_id, first.seq, first.snapshot) == ("open", 1, True)
    assert first.raw["snapshot"]
    broker.order("open", "filled")
    second = next(orders)
    assert isinstance(second, OrderUpdate)
    assert (second.seq, second.snapshot, second.status) == (4, False, "filled")


def test_an_account_may_be_named_by_its_number(broker: FakeBroker, connect: Connect) -> None:
    """Its events are live on that name's channel; the journal is the id's, as the status says."""
    broker.order()
    client = connect()
    orders = client.orders("PA123", since=0)
    assert seqs([next(orders)]) == [1]


def test_a_trimmed_journal_is_told(broker: FakeBroker, connect: Connect) -> None:
    """How many are lost, and those of them that are still open."""
    broker.length = 5
    broker.order("old")
    broker.order("lost")
    for _ in range(7):
        broker.order()
    client = connect()
    orders = client.orders(ACCOUNT, since=1)
    gap, *rest = [next(orders) for _ in range(7)]
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.missed, gap.repaired, gap.account_id) == (
        "journal",
        3,
        "orders:open",
        ACCOUNT,
    )
    assert seqs(rest) == [2, 5, 6, 7, 8, 9]


def test_a_lost_journal_starts_over(broker: FakeBroker, connect: Connect) -> None:
    """A new journal_id: a gap, the open orders, then the events of the new journal."""
    client = connect()
    orders = client.orders(ACCOUNT, since=0)
    broker.order("open")
    assert seqs([next(orders)]) == [1]
    broker.redis.delete(broker.channels.journal(ACCOUNT))
    broker.journal_id = "another"
    broker.order("done", "filled")
    gap, snapshot, done = (next(orders) for _ in range(3))
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.missed) == ("journal", None)
    assert isinstance(snapshot, OrderUpdate)
    assert (snapshot.order_id, snapshot.snapshot) == ("open", True)
    assert isinstance(done, OrderUpdate)
    assert (done.order_id, done.journal_id, done.snapshot) == ("done", "another", False)


def test_a_hole_is_filled(broker: FakeBroker, connect: Connect) -> None:
    """What was in the journal but not heard comes first, and only once."""
    client = connect()
    orders, gaps = client.orders(ACCOUNT, since=0, gaps=False), client.gaps()
    assert client.wait_ready()
    broker.order()
    name = broker.channels.order(ACCOUNT)
    # As if Redis had not told the second: it goes to the journal under another channel's name.
    broker.channels.order = lambda _: "nobody:listens"  # type: ignore[method-assign]
    broker.order()
    broker.channels.order = lambda _: name  # type: ignore[method-assign]
    broker.order()
    assert seqs([next(orders) for _ in range(3)]) == [1, 2, 3]
    gap = next(gaps)
    assert (gap.missed, gap.recovered, gap.repaired) == (1, True, "journal")


def test_a_slow_bot_loses_no_order(broker: FakeBroker, connect: Connect) -> None:
    """A full queue is read on from the journal; it never grows beyond its bound."""
    client = connect(queue=50)
    orders = client.orders(ACCOUNT, since=0)
    assert client.wait_ready()
    for _ in range(700):
        broker.order()
    eventually(lambda: client.counters.received == 700)
    assert client.counters.waiting <= 50
    got: list[Any] = []
    while len(got) < 700:
        got.append(next(orders))
        assert client.counters.waiting <= 50
    assert seqs(got) == list(range(1, 701))
    counted = client.counters
    assert (counted.conflated, counted.missed, counted.delivered) == (0, 0, 700)


def test_several_consumers_each_have_their_place(broker: FakeBroker, connect: Connect) -> None:
    """One that reads on, one that begins, and a handler."""
    for _ in range(3):
        broker.order()
    client, handled = connect(), []
    late, new = client.orders(ACCOUNT, since=2), client.orders(ACCOUNT, since=3)
    client.on_order(ACCOUNT, handled.append, since=0)
    broker.order()
    assert seqs([next(late), next(late)]) == [3, 4]
    assert seqs([next(new)]) == [4]
    eventually(lambda: seqs(handled) == [1, 2, 3, 4])


def test_a_quiet_accounts_lost_last_event_is_found(
    broker: FakeBroker, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is looked at every five seconds, for no next event shows the hole."""
    assert COMPARED_EVERY_S == 5.0
    monkeypatch.setattr(catch_up, "COMPARE_EVERY_S", 0.5)
    client = connect()
    orders = client.orders(ACCOUNT, since=0)
    assert client.wait_ready()
    broker.order()
    assert seqs([next(orders)]) == [1]
    broker.channels.order = lambda _: "nobody:listens"  # type: ignore[method-assign]
    broker.order()
    assert seqs([next(orders)]) == [2]


def test_orders_wait_until_the_journal_is_read(broker: FakeBroker, connect: Connect) -> None:
    """Ready means: everything that the journal has is in the queue."""
    for _ in range(600):
        broker.order()
    client = connect()
    orders = client.orders(ACCOUNT, since=0)
    assert client.wait_ready()
    assert client.counters.waiting == 600
    seams = [s.seam for s in client._engine.session.subscriptions if s.seam is not None]
    assert [seam.reads for seam in seams] == [Read.NOTHING]
    assert seqs([next(orders)]) == [1]


BOT = """
import sys
from alpaca_broker import Client
from alpaca_broker.client import OrderUpdate
path, port, account = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with open(path, "a+") as kept:
    kept.seek(0)
    seen = kept.read().split("\\n")
    whole = [line for line in seen[:-1] if line]   # a line that was cut short was not kept
    kept.seek(0)
    kept.truncate()
    kept.write("".join(line + "\\n" for line in whole))
    kept.flush()
    last = int(whole[-1]) if whole else 0
    with Client(host="127.0.0.1", port=port) as client:
        for update in client.orders(account, since=last):
            if isinstance(update, OrderUpdate):
                kept.write(f"{update.seq}\\n")
                kept.flush()
                if update.order_id == "last":
                    break
"""


@pytest.mark.soak
def test_a_bot_that_is_killed_again_and_again_misses_nothing(
    own_broker: FakeBroker, own_valkey: EmbeddedRedis, tmp_path: Path, soak: bool
) -> None:
    """kill -9 at random points over all events: each once, in order, given its last number."""
    total, enough, kept = 10_000 if soak else 1_200, 3, tmp_path / "kept"
    stop = threading.Event()
    kills = 0

    def publish() -> None:
        while (own_broker.order_seq < total or kills < enough) and not stop.wait(0.001):
            own_broker.order()
        own_broker.order("last")

    def start() -> subprocess.Popen[bytes]:
        arguments = [str(kept), str(own_valkey.port), ACCOUNT]
        return subprocess.Popen([sys.executable, "-c", BOT, *arguments], env=dict(os.environ))

    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        bot = start()
        while publisher.is_alive():
            before = kept.stat().st_size if kept.exists() else 0
            eventually(lambda before=before: kept.exists() and kept.stat().st_size > before)
            if not stop.wait(chance.random() * 0.1) and publisher.is_alive():
                bot.kill()
                bot.wait(60)
                kills += 1
                bot = start()
        assert bot.wait(120) == 0
    finally:
        stop.set()
        bot.kill()
        bot.wait(60)
        publisher.join(60)
    print(f"{own_broker.order_seq} order events, {kills} kills, seed {seed}")
    assert kills >= enough
    seen = [int(line) for line in kept.read_text().split()]
    assert seen == list(range(1, own_broker.order_seq + 1))


def test_the_client_registers_each_account(broker: FakeBroker, connect: Connect) -> None:
    """The broker remembers one account per bot, so each has its own registration."""
    client = connect(bot_id="me")
    followed = [client.orders("one", since=0), client.orders("two", since=0)]
    eventually(lambda: {"one", "two"} <= {m.get("account_id") for m in broker.registrations})
    names = {m["account_id"]: m["bot_id"] for m in broker.registrations if "account_id" in m}
    assert [orders.poll() for orders in followed] == [None, None]
    assert names == {"one": "me", "two": "me.2"} or names == {"two": "me", "one": "me.2"}


def test_an_empty_account_is_no_gap(broker: FakeBroker, connect: Connect) -> None:
    """Neither journal nor open orders: nothing is told, and the first event is heard."""
    client = connect()
    orders = client.orders(ACCOUNT)
    assert client.wait_ready()
    assert orders.poll(0.05) is None
    broker.order()
    assert seqs([next(orders)]) == [1]


@pytest.mark.parametrize("since", [None, 0])
def test_a_gap_of_the_account_is_passed_on(
    broker: FakeBroker, connect: Connect, since: int | None
) -> None:
    """The broker's own, to whom follows that account."""
    client = connect()
    orders, prices = client.orders(ACCOUNT, since=since), client.prices("AAPL")
    assert client.wait_ready()
    broker.say("broker:status", {"type": "gap", "account_id": ACCOUNT, "from": 1.0, "to": 2.0})
    gap = next(orders)
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.account_id) == ("broker gap", ACCOUNT)
    assert prices.poll() is None
