"""`watch`: registers, shows, warns, survives Redis, and unregisters."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from support import PATIENCE_S, eventually

from alpaca_broker.embedded import EmbeddedRedis

PRICE = {"type": "price_update", "symbol": "AAPL", "price": 150.25, "timestamp": 1628107200}
ORDER = {
    "type": "order_update",
    "order_id": "o-1",
    "status": "filled",
    "filled_qty": 10,
    "filled_avg_price": 150.25,
    "side": "buy",
    "timestamp": 1628107300,
}


@pytest.fixture
def registrations(bot: redis.Redis) -> Iterator[Any]:
    """What bots say to the broker; the next message at each call."""
    with bot.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("broker:registration")
        pubsub.get_message(timeout=PATIENCE_S)

        def following() -> dict[str, Any]:
            message = pubsub.get_message(timeout=PATIENCE_S)
            assert message is not None
            return dict(json.loads(message["data"]))

        yield following


def test_it_registers_shows_prices_and_unregisters(
    start: Any, server: EmbeddedRedis, bot: redis.Redis, registrations: Any
) -> None:
    """The life of a watching bot, ended by Ctrl-C with 0."""
    command = start("watch", "aapl", REDIS_PORT=str(server.port))
    wish = registrations()
    assert wish["action"] == "register"
    assert wish["symbols"] == ["AAPL"]
    assert wish["bot_id"].startswith("watch-")
    assert wish["ttl"] == 30
    assert bot.publish("price:AAPL", json.dumps(PRICE | {"size": 7, "received_at": time.time()}))
    command.says("150.25")
    line = next(line for line in command.out.splitlines() if "150.25" in line)
    assert "AAPL" in line
    assert "x 7" in line
    assert " ms" in line
    assert command.end(signal.SIGINT) == 0
    farewell = registrations()
    assert farewell == {"action": "unregister", "symbols": [], "bot_id": wish["bot_id"]}
    assert command.err == ""


def test_what_is_refused_is_said_once(
    start: Any, server: EmbeddedRedis, bot: redis.Redis, registrations: Any
) -> None:
    """Else whoever mistypes a symbol waits for ever; each renewal has the same answer."""
    command = start("watch", "AAPLE", "MSFT", REDIS_PORT=str(server.port))
    reply_to = registrations()["reply_to"]
    refused = {"symbol": "AAPLE", "code": "unknown_symbol", "reason": "no such asset at Alpaca"}
    answer = {"type": "registration", "status": "partial", "accepted": ["MSFT"]}
    for also in ([], [], [refused | {"symbol": "MSFT"}]):
        bot.publish(reply_to, json.dumps(answer | {"rejected": [refused, *also]}))
    command.says("MSFT: refused, no such asset at Alpaca (unknown_symbol)")
    assert command.out.count("AAPLE: refused") == 1
    assert command.end() == 0


def test_without_symbols_it_listens_by_pattern_and_registers_nothing(
    start: Any, server: EmbeddedRedis, bot: redis.Redis
) -> None:
    """Everything is shown, the minimal contract's messages too, and rubbish does no harm."""
    command = start("watch", REDIS_PORT=str(server.port))
    command.says("registers nothing")
    eventually(lambda: bot.pubsub_numpat() >= 2)
    bot.publish("price:AAPL", json.dumps(PRICE))
    bot.publish("price:AAPL", b"\xff\x1b[31mrubbish")
    bot.publish("order:acc", json.dumps(ORDER))
    bot.publish("broker:status", json.dumps({"type": "status", "state": "degraded", "bots": 3}))
    command.says("broker degraded")
    assert "10/? filled at 150.25 (o-1" in command.out
    assert "not a message of the contract" in command.out
    assert "\x1b" not in command.out
    command.says("no heartbeat: prices may be stale")
    bot.publish("broker:status", json.dumps({"type": "status", "state": "live"}))
    command.says("the heartbeat is back")
    assert command.end() == 0


def test_status_alone_is_the_status_only(
    start: Any, server: EmbeddedRedis, bot: redis.Redis
) -> None:
    """Whole, but for feeds that nobody uses; with a symbol both are shown."""
    iex = {"state": "live", "symbols": 1}
    status = {"type": "status", "state": "live", "feeds": {"iex": iex, "news": {"state": "idle"}}}
    eventually(lambda: _listeners(bot) == 0)  # those of tests before are gone
    command = start("watch", "--status", REDIS_PORT=str(server.port))
    command.says("watching the broker's status")
    both = start("watch", "AAPL", "--status", REDIS_PORT=str(server.port))
    eventually(lambda: _listeners(bot) == 2)
    eventually(lambda: bot.publish("price:AAPL", json.dumps(PRICE)) == 1)
    bot.publish("broker:status", json.dumps(status | {"bots": 1}))
    for one in (command, both):
        one.says("broker live, feed iex live (1 symbol), bots 1")
        assert one.end() == 0
    assert "150.25" in both.out
    assert "150.25" not in command.out


def test_a_change_for_the_worse_or_the_better_is_said_unasked(
    start: Any, server: EmbeddedRedis, bot: redis.Redis
) -> None:
    """Once each, with its reason, however often the next attempt fails for the same one."""

    def beat(overall: str, **iex: str) -> None:
        feeds = {"iex": iex | {"symbols": 1}, "news": {"state": "idle"}}
        bot.publish(
            "broker:status", json.dumps({"type": "status", "state": overall, "feeds": feeds})
        )

    eventually(lambda: _listeners(bot) == 0)
    command = start("watch", "AAPL", REDIS_PORT=str(server.port))
    eventually(lambda: _listeners(bot) == 1)
    beat("live", state="live")
    for state in ("backoff", "connecting", "backoff"):
        beat("degraded", state=state, error="connection limit exceeded (406)")
    beat("degraded", state="stale", error="connected, but mute")
    for _ in range(2):
        beat("live", state="live")
    beat("down", state="refused", error="auth failed (402)")
    command.says("auth failed")
    assert command.end() == 0
    said = [line.partition(" -- ")[2] for line in command.out.splitlines()]
    assert [line for line in said if line.startswith("broker ")] == [
        "broker degraded, feed iex: connection limit exceeded (406)",
        "broker degraded, feed iex: connected, but mute",
        "broker live",
        "broker down, feed iex: auth failed (402)",
    ]


def test_an_account_s_orders_are_followed(
    start: Any, server: EmbeddedRedis, bot: redis.Redis, registrations: Any
) -> None:
    """--orders registers the account and shows its events."""
    command = start("watch", "--orders", "acc-1", REDIS_PORT=str(server.port))
    wish = registrations()
    assert wish["account_id"] == "acc-1"
    assert bot.publish("order:acc-1", json.dumps(ORDER | {"symbol": "MSFT", "qty": 10}))
    command.says("10/10 filled at 150.25")
    assert command.end() == 0


def test_it_survives_redis(start: Any) -> None:
    """Redis goes and comes: both are said, and prices are shown again."""
    server = EmbeddedRedis()
    server.start()
    command = start("watch", "AAPL", "--no-register", REDIS_PORT=str(server.port))
    try:
        command.says("registering nothing")
        server.stop()
        command.says("cannot be reached")
        server.start()
        command.says("is back: listening again")
        with redis.Redis("127.0.0.1", server.port) as bot:
            assert bot.publish("price:AAPL", json.dumps(PRICE))
        command.says("150.25")
        assert command.end() == 0
    finally:
        server.stop()


def _listeners(bot: redis.Redis) -> int:
    ((_, count),) = bot.pubsub_numsub("broker:status")
    return int(count)
