"""Prices as a bot gets them: typed, fresh or known to be stale, and honest about holes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fake_broker import FakeBroker
from support import eventually

from alpaca_broker import Client
from alpaca_broker.client import Gap, PriceUpdate, UsageError, catch_up, wishes
from alpaca_broker.embedded import EmbeddedRedis

Connect = Callable[..., Client]
COMPARED_EVERY_S = catch_up.COMPARE_EVERY_S  # before any test makes it something else


def seqs(items: list[Any]) -> list[int]:
    """The numbers of the prices."""
    return [item.seq for item in items if isinstance(item, PriceUpdate)]


def test_a_for_loop_gets_every_price(broker: FakeBroker, connect: Connect) -> None:
    """Of its symbols, in order; it can be left and taken up again without loss."""
    client = connect()
    prices = client.prices("AAPL", "MSFT")
    assert client.wait_ready()
    broker.price("AAPL", 3)
    broker.price("TSLA")
    broker.price("MSFT", 2)
    got: list[tuple[str, int]] = []
    while len(got) < 5:
        for update in prices:
            assert isinstance(update, PriceUpdate)
            got.append((update.symbol, update.seq))
            break
    assert got == [("AAPL", 1), ("AAPL", 2), ("AAPL", 3), ("MSFT", 1), ("MSFT", 2)]
    assert prices.poll() is None
    broker.price("AAPL")
    assert next(prices).raw["seq"] == 4


def test_plain_means_dicts(broker: FakeBroker, connect: Connect) -> None:
    """As they were received."""
    client = connect(plain=True)
    prices: Any = client.prices("AAPL")
    assert client.wait_ready()
    broker.price("AAPL", new_field={"deep": 1})
    update = next(prices)
    assert (update["price"], update["new_field"]) == (1.25, {"deep": 1})
    assert client.last("AAPL")["seq"] == 1


def test_all_symbols_of_the_feed(broker: FakeBroker, connect: Connect) -> None:
    """`*` follows every channel, and is registered; each message comes once."""
    client = connect()
    both, everything = client.prices("AAPL"), client.prices("*")
    assert client.wait_ready()
    broker.price("AAPL", 2)
    broker.price("BRK.B")
    broker.price("BTC/USD")
    assert [next(everything).symbol for _ in range(4)] == ["AAPL", "AAPL", "BRK.B", "BTC/USD"]
    assert seqs([next(both), next(both)]) == [1, 2]
    assert "*" in broker.registrations[-1]["symbols"]
    assert client.is_fresh("BRK.B")
    assert client.counters.duplicates == 0


def test_callbacks(broker: FakeBroker, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """One after the other in one thread; one that fails is logged and called again."""
    client, got, gaps = connect(), [], []

    def handle(update: PriceUpdate) -> None:
        got.append((threading.current_thread().name, update.seq))
        if update.seq == 1:
            raise ValueError("broken")

    client.on_price(["AAPL", "MSFT"], handle)
    client.on_price("AAPL", handle)
    client.on_gap(gaps.append)
    assert client.wait_ready()
    broker.price("AAPL")
    broker.price("AAPL", lost=True)
    broker.price("AAPL")
    eventually(lambda: len(got) == 4)
    assert {name for name, _ in got} == {"alpaca-broker-handlers"}
    assert sorted(seq for _, seq in got) == [1, 1, 3, 3]
    assert [gap.missed for gap in eventually(lambda: gaps)] == [1]
    assert [r.levelno for r in caplog.records if r.exc_info] == [logging.ERROR] * 2


def test_a_hole_is_told_before_what_comes_after(broker: FakeBroker, connect: Connect) -> None:
    """The difference of the numbers; who does not want gaps gets prices only."""
    client = connect()
    told, only = client.prices("AAPL"), client.prices("AAPL", gaps=False)
    assert client.wait_ready()
    broker.price("AAPL")
    broker.price("AAPL", 3, lost=True)
    broker.price("AAPL")
    first, gap, second = (next(told) for _ in range(3))
    assert isinstance(gap, Gap)
    assert (gap.symbol, gap.missed, gap.reason) == ("AAPL", 3, "broker gap")
    assert gap.began is not None
    assert gap.ended is not None
    assert gap.began <= gap.ended
    assert seqs([first, second]) == [1, 5]
    assert seqs([next(only), next(only)]) == [1, 5]
    counted = client.counters
    assert (counted.received, counted.missed, counted.holes) == (2, 3, 1)


def test_a_quiet_symbols_lost_last_message_is_found(
    broker: FakeBroker, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No next message shows the hole: the comparison with `price:last` does, and repairs it."""
    assert COMPARED_EVERY_S == 5.0
    monkeypatch.setattr(catch_up, "COMPARE_EVERY_S", 0.5)
    client = connect()
    prices = client.prices("AAPL")
    assert client.wait_ready()
    broker.price("AAPL")
    assert seqs([next(prices)]) == [1]
    broker.price("AAPL", 2, lost=True)
    gap, repaired = next(prices), next(prices)
    assert isinstance(gap, Gap)
    assert (gap.missed, gap.repaired) == (2, "price:last")
    assert isinstance(repaired, PriceUpdate)
    assert (repaired.seq, repaired.repaired, repaired.raw["repaired"]) == (3, True, True)
    assert client.counters.repaired == 1
    broker.price("AAPL")
    assert seqs([next(prices)]) == [4]


def test_fresh_means_acknowledged_and_live(
    valkey: Any, prefix: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not traded recently: a symbol without a single trade is fresh, a dead feed's is not."""
    monkeypatch.setattr(wishes, "ANSWER_WITHIN_S", 3_600.0)  # it may yet answer
    with FakeBroker(valkey.port, prefix, answers=False) as broker:
        client = connect()
        assert (client.state, client.status(), client.is_fresh("AAPL")) == ("unknown", None, False)
        streams = [client.prices("AAPL", "MSFT")]
        eventually(lambda: client.state == "live")
        assert not client.is_fresh("AAPL")
        eventually(lambda: broker.registrations)
        broker.price("AAPL")
        eventually(lambda: client.is_fresh("AAPL"))
        assert not client.is_fresh("MSFT")
        broker.answers = True
        streams.append(client.prices("TSLA"))
        eventually(lambda: client.is_fresh("MSFT"))
        broker.feed_state = "stale"
        eventually(lambda: not client.is_fresh("MSFT"))
        broker.feed_state = "live"
        eventually(lambda: client.is_fresh("MSFT"))
        assert not client.is_fresh("NEVER")
        status = client.status()
        assert status is not None
        assert status.raw["leader"] == "fake"


def test_the_brokers_own_gap_is_passed_on(broker: FakeBroker, connect: Connect) -> None:
    """Nothing is fresh until a newer price is known."""
    client = connect()
    prices = client.prices("AAPL")
    assert client.wait_ready()
    broker.price("AAPL")
    next(prices)
    eventually(lambda: client.is_fresh("AAPL"))
    broker.redis.delete(broker.channels.last)
    broker.gap("AAPL")
    gap = next(prices)
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.detail, gap.ended) == ("broker gap", "the connection was lost", 2.0)
    assert gap.raw["feed"] == "iex"
    assert not client.is_fresh("AAPL")
    broker.price("AAPL")
    eventually(lambda: client.is_fresh("AAPL"))
    assert seqs([next(prices)]) == [2]


def test_more_about_a_gap_that_was_told_casts_no_new_doubt(
    broker: FakeBroker, connect: Connect
) -> None:
    """It is passed on, with what became of it; the price that came since is still fresh."""
    client = connect()
    prices = client.prices("AAPL")
    assert client.wait_ready()
    broker.price("AAPL")
    next(prices)
    eventually(lambda: client.is_fresh("AAPL"))
    broker.redis.delete(broker.channels.last)
    broker.gap("AAPL", again=True, reason="the newest 1,000 only")
    broker.gap("AAPL", again=True, recovered=True)
    for recovered in (False, True):
        gap = next(prices)
        assert isinstance(gap, Gap)
        assert (gap.again, gap.recovered, gap.began) == (True, recovered, 1.0)
    assert client.is_fresh("AAPL")


def test_a_new_epoch_counts_anew_and_registers_again(broker: FakeBroker, connect: Connect) -> None:
    """At once, not after a third of the lease; lower epochs are ignored."""
    client = connect(ttl=86_400)
    prices = client.prices("AAPL")
    assert client.wait_ready()
    broker.price("AAPL", 2)
    assert seqs([next(prices), next(prices)]) == [1, 2]
    told = len(broker.registrations)
    broker.restart()
    gap = next(prices)
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.symbols, gap.missed) == ("epoch", ("AAPL",), None)
    eventually(lambda: len(broker.registrations) > told)
    broker.price("AAPL", epoch=broker.epoch - 1)
    broker.price("AAPL")
    gap, update = next(prices), next(prices)
    assert isinstance(gap, Gap)
    assert (gap.missed, seqs([update])) == (1, [2])
    assert client.counters.duplicates == 1


def test_refused_symbols_are_told(
    broker: FakeBroker, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """In `rejected` and in the log; the others are followed."""
    broker.refuses["BAD"] = 405
    client = connect()
    prices = client.prices("AAPL", "BAD")
    assert client.wait_ready()
    assert prices.poll() is None
    assert client.rejected == {"BAD": "refused (405)"}
    assert (client.is_fresh("AAPL"), client.is_fresh("BAD")) == (True, False)
    assert [r.levelno for r in caplog.records if "BAD" in r.getMessage()] == [logging.WARNING]


def test_registrations_follow_what_is_wanted(broker: FakeBroker, connect: Connect) -> None:
    """With a lease and an address for the answer; what nobody wants any more is taken back."""
    client = connect(bot_id="my-bot", ttl=60)
    prices = client.prices("AAPL", "MSFT")
    assert client.wait_ready()
    other = client.prices("MSFT")
    prices.close()
    assert list(prices) == []
    eventually(lambda: broker.registrations[-1]["symbols"] == ["MSFT"])
    first = broker.registrations[0]
    assert (first["bot_id"], first["ttl"], first["symbols"]) == ("my-bot", 60, ["AAPL", "MSFT"])
    assert first["reply_to"] == f"{broker.channels.prefix}reply:my-bot"
    gone = [m for m in broker.registrations if m["action"] == "unregister"]
    assert [m["symbols"] for m in gone] == [["AAPL"]]
    client.close()
    client.close()
    assert list(other) == []
    eventually(lambda: broker.registrations[-1] == {**gone[0], "symbols": []})


def test_a_broker_that_comes_later_is_found(valkey: Any, prefix: str, connect: Connect) -> None:
    """A bot may be started before the broker; it registers until somebody listens."""
    client = connect()
    prices = client.prices("AAPL")
    assert not client.wait_ready(0.1)
    with FakeBroker(valkey.port, prefix) as broker:
        assert client.wait_ready()
        assert prices.poll() is None
        assert broker.registrations[0]["symbols"] == ["AAPL"]


def test_a_slow_bot_gets_the_newest(broker: FakeBroker, connect: Connect) -> None:
    """The queue shrinks to the newest of each symbol; what was left out is told and counted."""
    client = connect(queue=100)
    prices = client.prices("AAPL", "MSFT")
    assert client.wait_ready()
    for _ in range(10):
        broker.price("AAPL", 50)
        broker.price("MSFT", 50)
    eventually(lambda: client.counters.received == 1_000)
    got: list[PriceUpdate] = []
    while isinstance(update := prices.poll(), PriceUpdate):
        got.append(update)
    for symbol in ("AAPL", "MSFT"):
        mine = [u for u in got if u.symbol == symbol]
        assert mine[-1].seq == 500
        assert len(mine) + sum(u.skipped for u in mine) == 500
    counted = client.counters
    assert counted.conflated == 1_000 - len(got)
    assert (counted.delivered, counted.missed, counted.waiting) == (len(got), 0, 0)


def test_bad_messages_are_counted_and_skipped(broker: FakeBroker, connect: Connect) -> None:
    """On every channel; the next good one arrives."""
    client = connect()
    prices = client.prices("AAPL")
    assert client.wait_ready()
    quote = (
        b'{"type":"quote_update","symbol":"AAPL","bid_price":1.5,"timestamp":1,"seq":1,"epoch":1}'
    )
    for rubbish in (b"no json", b"\xff", b"[1]", b"{}", b"[" * 10_000, quote):
        assert broker.say("price:AAPL", rubbish) == 1
        assert broker.say("broker:status", rubbish) == 1
    broker.price("AAPL")
    assert seqs([next(prices)]) == [1]
    assert client.counters.bad == 12


def test_only_the_given_fields_are_needed(broker: FakeBroker, connect: Connect) -> None:
    """A publisher that knows nothing but the ● fields is understood."""
    client = connect(register=False)
    prices, orders = client.prices("AAPL"), client.orders("acc")
    assert client.wait_ready()
    plain = {"type": "price_update", "symbol": "AAPL", "price": 150.25, "timestamp": 1628107200}
    order = {"type": "order_update", "order_id": "o", "status": "filled", "filled_qty": 10}
    order |= {"filled_avg_price": 150.25, "side": "buy", "timestamp": 1628107300}
    for _ in range(2):
        broker.say("price:AAPL", plain)
        broker.say("order:acc", order)
    assert [next(prices).raw for _ in range(2)] == [plain] * 2
    assert [next(orders).raw for _ in range(2)] == [order] * 2


def test_the_last_price_is_asked_of_redis(broker: FakeBroker, connect: Connect) -> None:
    """Also of a symbol that is not followed; the newer one wins."""
    client = connect()
    prices = client.prices("AAPL")
    assert client.wait_ready()
    assert client.last("AAPL") is None
    broker.price("MSFT")
    assert client.last("MSFT").price == 1.25
    broker.price("AAPL")
    broker.redis.delete(broker.channels.last)
    assert seqs([next(prices)]) == [1]
    assert client.last("AAPL").seq == 1


@pytest.mark.parametrize(
    "options",
    [
        {"bot_id": "no spaces"},
        {"ttl": 1},
        {"queue": 0},
        {"url": "http://localhost"},
        {"url": "redis://localhost:port"},
        {"url": "redis://localhost"},
    ],
)
def test_what_cannot_be_is_refused(connect: Connect, options: dict[str, Any]) -> None:
    """At the door, with a text that says what to change."""
    if options.get("url", "").endswith("localhost") and "http" not in options["url"]:
        with pytest.raises(UsageError, match="once"):
            connect(**options)
        return
    with pytest.raises(UsageError):
        connect(**({"host": None} | options if "url" in options else options))


def test_what_cannot_be_followed_is_refused(connect: Connect) -> None:
    """Patterns, nothing, no text, no account, coroutines, and anything once it is closed."""
    client = connect()

    async def handle(_: Any) -> None: ...

    for symbols in ((), ("A*",), ("",), (5,)):
        with pytest.raises(UsageError):
            client.prices(*symbols)
    for wrong in (lambda: client.orders(), lambda: client.orders("a", since=-1)):
        with pytest.raises(UsageError):
            wrong()
    with pytest.raises(UsageError):
        client.on_price("AAPL", handle)
    client.close()
    with pytest.raises(UsageError, match="closed"):
        client.prices("AAPL")


def test_a_stream_that_is_dropped_is_followed_no_longer(
    broker: FakeBroker, connect: Connect
) -> None:
    """A loop that is left for good leaves nothing behind."""
    client = connect()
    prices = client.prices("AAPL")
    assert client.wait_ready()
    del prices
    eventually(lambda: broker.registrations[-1]["action"] == "unregister")
    assert client.counters.waiting == 0


def test_missing_permissions_are_told(
    own_valkey: Any, own_broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """A user who may not listen to a channel is told so; a wrong password names the setting."""
    own_broker.redis.execute_command(
        "ACL", "SETUSER", "bot", "on", ">secret-word", "~*", "+@all", "resetchannels", "&broker:*"
    )
    told = {"secret-word": "refused to let us listen", "wrong": "REDIS_PASSWORD"}
    for password, text in told.items():
        with Client(f"redis://bot:{password}@127.0.0.1:{own_valkey.port}") as client:
            prices = client.prices("AAPL")
            eventually(lambda text=text: text in caplog.text)
            assert not client.wait_ready(0.0)
            assert prices.poll() is None
    assert "secret-word" not in caplog.text


def test_a_unix_socket_will_do(tmp_path: Any) -> None:
    """As a URL."""
    path = tmp_path / "valkey"
    with EmbeddedRedis(unixsocket=str(path)) as server, FakeBroker(server.port) as broker:
        with Client(f"unix://{path}") as client:
            prices = client.prices("AAPL")
            assert client.wait_ready()
            broker.price("AAPL")
            assert seqs([next(prices)]) == [1]
