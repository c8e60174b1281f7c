"""Registrations that nobody can lose or break, through real servers."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import redis
from support import Bot, Rig, eventually

from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread


def ask(rig: Rig, bot: Bot, *symbols: str, **more: Any) -> dict[str, Any]:
    """Register, and return the answer that decides."""
    message = {"action": "register", "symbols": list(symbols), "bot_id": "asker"}
    bot.subscribe("reply-here")
    bot.send(rig.channels.registration, message | {"reply_to": "reply-here"} | more)
    return bot.until(lambda c, m: c == "reply-here" and not m["pending"])


def last(rig: Rig) -> dict[str, dict[str, Any]]:
    """What `price:last` holds."""
    client = redis.Redis(port=rig.valkey.port)
    found = client.hgetall(rig.channels.last)
    client.close()
    return {k.decode(): json.loads(v) for k, v in found.items()}  # type: ignore[union-attr]


def test_the_answer_carries_the_last_prices(rig: Rig) -> None:
    """Confirmed by Alpaca, checked against the assets, with the price that REST or stream told."""
    for symbol in ("AAPL", "MSFT"):  # traded before anybody asked for them
        trade = {"T": "t", "S": symbol, "p": 12.5, "s": 1, "t": "2026-01-05T15:00:00Z"}
        rig.simulator.call(rig.simulator.simulator.emit, "iex", trade)
    with rig.bot() as bot:
        answer = ask(rig, bot, "AAPL", "MSFT", "aapl", request_id="q")
    assert (answer["status"], answer["request_id"]) == ("partial", "q")
    assert answer["accepted"] == ["AAPL", "MSFT"]
    assert [r["symbol"] for r in answer["rejected"]] == ["aapl"]
    assert set(answer["last"]) == {"AAPL", "MSFT"}
    assert answer["last"]["AAPL"]["price"] > 0
    assert answer["epoch"] == rig.broker.status().epoch
    assert rig.broker.symbols == {"AAPL", "MSFT"}


def test_an_asset_that_does_not_exist_is_refused(rig: Rig) -> None:
    """The stream would take it; the list of assets does not know it."""
    with rig.bot() as bot:
        answer = ask(rig, bot, "AAPL", "NO/SUCH/THING")
    assert answer["accepted"] == ["AAPL"]
    assert [(r["symbol"], r["code"]) for r in answer["rejected"]] == [
        ("NO/SUCH/THING", "unknown_symbol")
    ]
    eventually(lambda: rig.broker.symbols == {"AAPL"})


def test_over_the_symbol_limit_the_answer_says_so(valkey: EmbeddedRedis, prefix: str) -> None:
    """405 for what does not fit, and whoever came first keeps his place."""
    options = SimulatorOptions(symbol_limit=2, rate=50.0)
    with SimulatorThread(options) as simulator, Rig(valkey, simulator, prefix=prefix) as rig:
        with rig.bot() as bot:
            assert ask(rig, bot, "AAPL", "MSFT")["status"] == "ok"
            answer = ask(rig, bot, "IBM", "AAPL")
            assert answer["accepted"] == ["AAPL"]
            assert [(r["symbol"], r["code"]) for r in answer["rejected"]] == [("IBM", 405)]


def test_while_alpaca_is_away_two_answers_come(rig: Rig) -> None:
    """One at once that is pending, and one when Alpaca has decided."""
    rig.simulator.stop_server()
    eventually(lambda: rig.broker.status().state == "down")
    with rig.bot("reply-here") as bot:
        wish = {"action": "register", "symbols": ["AAPL"], "bot_id": "b", "reply_to": "reply-here"}
        bot.send(rig.channels.registration, wish)
        assert bot.next()[1]["pending"] is True
        rig.simulator.start_server()
        final = bot.next()[1]
        assert (final["pending"], final["accepted"]) == (False, ["AAPL"])


def test_registrations_survive_a_restart_of_the_broker(
    valkey: EmbeddedRedis, prefix: str, simulator: SimulatorThread
) -> None:
    """The next broker asks for them at once, and says from when to when something was missed."""
    with Rig(valkey, simulator, prefix=prefix) as first:
        first.register("AAPL", "MSFT", bot_id="keeper")
        first.register("IBM", bot_id="leased", ttl=3600)
        eventually(lambda: len(_registry(first)) == 2)
        eventually(lambda: first.broker.counters["prices"] > 10)
        first_epoch = first.broker.status().epoch
        time_kept = eventually(lambda: _received(first).get("iex"))
    second = Rig(valkey, simulator, prefix=prefix)
    with second.bot(second.channels.status, second.channels.price("AAPL")) as bot, second:
        eventually(lambda: second.broker.symbols == {"AAPL", "MSFT", "IBM"})
        gap = bot.until(lambda _, m: m["type"] == "gap" and "feed" in m)
        assert gap["symbols"] == ["AAPL", "IBM", "MSFT"]
        assert time_kept <= gap["from"] < gap["to"]
        assert gap["recovered"] is False
        price = bot.until(lambda _, m: m["type"] == "price_update")
        assert price["epoch"] > first_epoch
        assert second.broker.status().bots == 2


def test_the_first_start_ever_announces_no_gap(rig: Rig) -> None:
    """Nor does a new symbol."""
    rig.register("AAPL")
    rig.register("MSFT")
    client = redis.Redis(port=rig.valkey.port)
    assert client.xlen(rig.channels.gaps) == 0
    client.close()


def test_a_cut_is_announced_with_what_was_missed(rig: Rig) -> None:
    """On the status channel and in the stream, for bots that were away."""
    rig.register("AAPL")
    with rig.bot(rig.channels.status) as bot:
        rig.simulator.call(rig.simulator.simulator.cut, "market")
        gap = bot.until(lambda _, m: m["type"] == "gap")
    assert (gap["feed"], gap["symbols"]) == ("iex", ["AAPL"])
    assert gap["from"] < gap["to"]
    client = redis.Redis(port=rig.valkey.port)
    ((_, entry),) = client.xrange(rig.channels.gaps)  # type: ignore[misc]
    assert json.loads(entry[b"data"]) == gap
    client.close()


def test_listening_to_a_price_channel_is_enough(rig: Rig) -> None:
    """A bot that never registered gets prices, and when it leaves the symbol leaves Alpaca."""
    with rig.bot(rig.channels.price("TSLA")) as bot:
        assert bot.next()[1]["symbol"] == "TSLA"
        assert rig.broker.symbols == {"TSLA"}
    eventually(lambda: rig.broker.symbols == frozenset())
    eventually(lambda: "TSLA" not in last(rig))


def test_nobody_can_cut_another_bot_off(rig: Rig) -> None:
    """While somebody listens, an unregistration takes nothing away."""
    rig.register("AAPL", bot_id="one")
    with rig.bot(rig.channels.price("AAPL")) as bot:
        first = bot.next()[1]["seq"]
        bot.send(rig.channels.registration, {"action": "unregister", "bot_id": "one"})
        eventually(lambda: rig.broker.status().bots == 0)
        seen = [bot.next()[1]["seq"] for _ in range(80)]
        assert seen == list(range(first + 1, first + 81))


def test_the_last_price_is_there_and_is_never_from_before_a_gap(rig: Rig) -> None:
    """At most 100 ms behind in calm; deleted when Alpaca goes away; fresh when it is back."""
    rig.register("AAPL")
    with rig.bot(rig.channels.price("AAPL")) as bot:
        seen = bot.next()[1]
        kept = eventually(lambda: (k := last(rig).get("AAPL")) and k["seq"] >= seen["seq"] and k)
        assert {*seen} <= {*kept}
    rig.simulator.stop_server()
    eventually(lambda: last(rig) == {})
    rig.simulator.start_server()
    back = eventually(lambda: last(rig).get("AAPL"))
    assert back["received_at"] > seen["received_at"]


def test_last_prices_cost_a_tenth_of_the_writes_at_most(valkey: EmbeddedRedis, prefix: str) -> None:
    """Under load: at most a second behind, and few writes."""
    with (
        SimulatorThread(SimulatorOptions(rate=200.0)) as simulator,
        Rig(valkey, simulator, prefix=prefix) as rig,
    ):
        rig.register(*(f"S{n}" for n in range(40)))
        eventually(lambda: rig.broker.counters["prices"] > 10_000)
        lanes = rig.broker._prices.feeds[0]._in_use.prices
        assert lanes.snapshots.writes * 10 <= lanes.messages

        def oldest() -> float:
            now, kept = time.time(), last(rig).values()
            assert len(kept) == 40
            return now - min(price["received_at"] for price in kept)

        eventually(lambda: oldest() < 1.5)


@pytest.mark.parametrize("channel", ["price:AAPL", "broker:status"])
def test_an_answer_forges_no_channel_of_the_broker(rig: Rig, channel: str) -> None:
    """`reply_to` may not be one of them."""
    with rig.bot(rig.channels.prefix + channel) as bot:
        wish = {"action": "register", "symbols": ["IBM"], "bot_id": "x"}
        bot.send(rig.channels.registration, wish | {"reply_to": rig.channels.prefix + channel})
        rig.register("AAPL")
        for _ in range(2):
            assert bot.next()[1]["type"] != "registration"
    assert "IBM" not in rig.broker.symbols


def _registry(rig: Rig) -> dict[bytes, bytes]:
    client = redis.Redis(port=rig.valkey.port)
    found: dict[bytes, bytes] = client.hgetall(rig.channels.registry)  # type: ignore[assignment]
    client.close()
    return found


def _received(rig: Rig) -> dict[str, float]:
    client = redis.Redis(port=rig.valkey.port)
    found = client.hgetall(rig.channels.received)
    client.close()
    return {k.decode(): float(v) for k, v in found.items()}  # type: ignore[union-attr]
