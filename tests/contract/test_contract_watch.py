"""The watch itself: it hears real brokers, finds what is wrong, and lets tests play."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from contract_watch import Judge, Watch, watched
from support import Rig, buy

from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorThread

PRICE = {
    **{"type": "price_update", "symbol": "AAPL", "price": 150.25, "timestamp": 1628107200},
    **{"size": 1, "exchange": "V", "conditions": ["@"], "trade_id": 1, "feed": "iex"},
    **{"received_at": 1628107200.5, "seq": 1, "epoch": 7},
}
STATUS = {
    **{"type": "status", "contract": 1, "epoch": 7, "leader": "h:1:a", "timestamp": 1, "bots": 0},
    **{"state": "live", "feeds": {}, "accounts": {}, "conflating": False},
}


@pytest.fixture
def judge() -> Judge:
    """One that follows a broker under the prefix `p:`."""
    judge = Judge()
    judge.prefixes.add("p:")
    return judge


def hear(judge: Judge, channel: str, message: Any) -> list[str]:
    """What is wrong once the judge has heard that."""
    judge.hear(channel, message if isinstance(message, bytes) else json.dumps(message).encode())
    judge.end()
    return judge.offences


def test_everything_that_a_real_broker_says_is_compared(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread, prefix: str
) -> None:
    """Prices, orders, heartbeat, gaps, log records and answers, from start to stop."""
    watch = Watch(own_valkey.port)
    watch.follow(prefix)
    with Rig(own_valkey, simulator, prefix=prefix) as rig:
        (account_id,) = rig.broker.status().accounts
        order, status, answers = rig.channels.order(account_id), rig.channels.status, "a-reply"
        with rig.bot(order, status, answers) as bot:
            rig.register("AAPL", reply_to=answers)
            buy(simulator.url)
            bot.until(lambda c, m: c == order and m["event"] == "fill")
            simulator.call(simulator.simulator.cut, "market")
            bot.until(lambda _, m: m["type"] == "gap")
    watch.leave(prefix)
    seen, offences = watch.end()
    assert offences == []
    kinds = {"price_update", "order_update", "status", "gap", "log", "registration"}
    assert {kind for kind, count in seen.items() if count} == kinds


def test_a_broken_promise_fails_the_run(own_valkey: EmbeddedRedis) -> None:
    """Whoever spoils a message under a real broker's prefix reads which one it was."""

    def run() -> None:
        with watched(own_valkey.port) as watch, redis.Redis(port=own_valkey.port) as client:
            watch.follow("p:")
            client.publish("p:price:AAPL", json.dumps(PRICE | {"price": "150.25"}))
            watch.leave("p:")

    with pytest.raises(AssertionError, match=r"PriceUpdate\.price is '150\.25', no number"):
        run()


def test_it_counts_for_no_bot(own_valkey: EmbeddedRedis) -> None:
    """Nobody who asks how many heard a registration hears of the watch."""
    client = redis.Redis(port=own_valkey.port)
    watch = Watch(own_valkey.port)
    watch.follow("p:")
    assert client.publish("p:broker:registration", "rubbish") == 0
    assert client.publish("p:price:AAPL", json.dumps(PRICE)) == 1
    assert watch.end() == ({"price_update": 1}, [])
    client.close()


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        ("p:price:AAPL", {k: v for k, v in PRICE.items() if k != "seq"}),
        ("p:price:AAPL", PRICE | {"epoch": 1.0}),
        ("p:price:AAPL", PRICE | {"conditions": [1]}),
        ("p:price:AAPL", PRICE | {"source": "guess"}),
        ("p:price:AAPL", STATUS),
        ("p:price:AAPL", b"rubbish"),
        ("p:order:X", PRICE),
        ("p:broker:logs", {"type": "log", "level": "INFO"}),
        ("p:broker:status", STATUS | {"state": "fine"}),
        ("p:broker:status", STATUS | {"feeds": {"iex": {"state": "live"}}}),
        ("p:broker:status", {"type": "hello", "epoch": 7}),
    ],
)
def test_what_is_wrong_is_found(judge: Judge, channel: str, message: Any) -> None:
    """A field that is missing, mistyped or beyond its values; a message out of place."""
    (offence,) = hear(judge, channel, message)
    assert channel in offence


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        ("p:price:AAPL", PRICE | {"skipped": 3, "what_comes_next_year": {}}),
        ("other:price:AAPL", {"price": "a test's own"}),
        ("p:broker:status", {"last": True}),
        ("reply-here", {"type": "registration", "epoch": 8}),
    ],
)
def test_what_is_ours_to_say_is_let_through(judge: Judge, channel: str, message: Any) -> None:
    """New fields, and what a test says in its own name."""
    assert hear(judge, "p:broker:status", STATUS) == []
    assert hear(judge, channel, message) == []


def test_an_answer_is_known_by_its_epoch(judge: Judge) -> None:
    """Its channel has no prefix, and it may come before the first heartbeat."""
    judge.hear("reply-here", b'{"type":"registration","epoch":7}')
    (offence,) = hear(judge, "p:broker:status", STATUS)
    assert "request_id is missing" in offence
