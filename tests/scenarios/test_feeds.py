"""Several feeds: each brings its own, and none touches another."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from support import KEY_ID, Bot, Rig, buy, eventually, rest

from alpaca_broker.core.market_data import Quote
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread, account_id_of

AT = "2026-01-05T15:00:00.5Z"
OPTION = "AAPL271217C00200000"


@pytest.fixture
def quiet(valkey: EmbeddedRedis, prefix: str) -> Iterator[Rig]:
    """A broker at an Alpaca that says only what it is told to, whose idle feeds close at once."""
    options = SimulatorOptions(rate=0.001, news_per_min=0)
    with SimulatorThread(options) as simulator:
        with Rig(valkey, simulator, prefix=prefix, feed_linger=0.2) as rig:
            yield rig


def ask(rig: Rig, bot: Bot, symbols: list[str], **more: Any) -> dict[str, Any]:
    """Register, and return the answer that decides."""
    message = {"action": "register", "symbols": symbols, "bot_id": "asker"}
    bot.subscribe("reply-here")
    bot.send(rig.channels.registration, message | {"reply_to": "reply-here"} | more)
    return bot.until(lambda c, m: c == "reply-here" and not m["pending"])


def say(rig: Rig, feed: str, **message: Any) -> None:
    """Let the simulator say something on a feed to whoever subscribed to it."""
    sent = rig.simulator.call(rig.simulator.simulator.emit, feed, message)
    assert sent == 1, "nobody subscribed to it"


def states(rig: Rig) -> dict[str, str]:
    """The state of each feed, as the heartbeat says."""
    return {name: feed.state for name, feed in rig.broker.status().feeds.items()}


def test_every_kind_of_stock_data_is_published(quiet: Rig) -> None:
    """With the fields of the contract, numbered by channel; prices alone are last prices."""
    kinds = ["trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds"]
    channels = ["price", "quote", "bar", "trading_status", "correction"]
    prefix = quiet.channels.prefix
    bar = {"S": "AAPL", "o": 1.5, "h": 2, "l": 1, "c": 1.75, "v": 100, "vw": 1.6, "n": 3, "t": AT}
    with quiet.bot(*(f"{prefix}{name}:AAPL" for name in channels)) as bot:
        assert ask(quiet, bot, ["AAPL"], channels=[*kinds, "corrections"])["status"] == "ok"
        say(quiet, "iex", T="q", S="AAPL", bp=1.5, bs=3, bx="V", ap=1.6, **{"as": 2}, c=["R"], t=AT)
        for tag in "bud":
            say(quiet, "iex", T=tag, **bar)
        say(quiet, "iex", T="s", S="AAPL", sc="H", sm="Halt", rc="T1", rm="News", z="C", t=AT)
        say(quiet, "iex", T="l", S="AAPL", u=2.5, d=1.5, i="B", z="C", t=AT)
        say(quiet, "iex", T="t", S="AAPL", p=1.5, s=7, c=["@"], i=11, x="V", t=AT)
        correction = {"oi": 11, "op": 1.5, "os": 7, "oc": ["@"], "ci": 12, "cp": 1.6, "cs": 7}
        say(quiet, "iex", T="c", S="AAPL", x="V", **correction, cc=["I"], z="C", t=AT)
        say(quiet, "iex", T="x", S="AAPL", i=12, x="V", p=1.6, s=7, a="C", z="C", t=AT)
        heard = [bot.next() for _ in range(9)]
    found: dict[str, list[dict[str, Any]]] = {}
    for channel, message in heard:
        found.setdefault(channel.removeprefix(prefix), []).append(message)
    assert {c: [m["seq"] for m in messages] for c, messages in found.items()} == {
        "quote:AAPL": [1],
        "bar:AAPL": [1, 2, 3],
        "trading_status:AAPL": [1, 2],
        "price:AAPL": [1],
        "correction:AAPL": [1, 2],
    }
    common = {"symbol": "AAPL", "feed": "iex", "timestamp": 1767625200.5}
    assert all(m.items() >= common.items() for _, m in heard)
    (quote,) = found["quote:AAPL"]
    assert (quote["bid_price"], quote["ask_size"], quote["conditions"]) == (1.5, 2, ["R"])
    bars = [(b["timeframe"], b["updated"], b["close"], b["source"]) for b in found["bar:AAPL"]]
    assert bars == [
        *(("1Min", False, 1.75, "stream"), ("1Min", True, 1.75, "stream")),
        ("1Day", False, 1.75, "stream"),
    ]
    halt, band = found["trading_status:AAPL"]
    assert (halt["status_code"], halt["reason_message"], halt["limit_up"]) == ("H", "News", None)
    assert (band["status_code"], band["limit_up"], band["indicator"]) == (None, 2.5, "B")
    corrected, cancelled = found["correction:AAPL"]
    assert (corrected["original"]["trade_id"], corrected["corrected"]["price"]) == (11, 1.6)
    assert (cancelled["type"], cancelled["original"]["trade_id"]) == ("trade_cancel", 12)
    last = redis.Redis(port=quiet.valkey.port)
    eventually(lambda: last.hkeys(quiet.channels.last) == [b"AAPL"])
    last.close()


def test_orders_for_coins_and_contracts_are_told_as_those_for_shares_are(quiet: Rig) -> None:
    """With their own spelling, parts of a coin, and the price of one share of a contract."""
    url = quiet.simulator.url
    with quiet.bot(quiet.channels.order(account_id_of(KEY_ID))) as bot:
        for symbol, qty, until in (("BTC/USD", "0.0125", "gtc"), (OPTION, "3", "day")):
            order = buy(url, symbol, qty=qty, time_in_force=until)  # type: ignore[arg-type]
            told = bot.until(lambda _, m: m["event"] == "fill")
            assert (told["order_id"], told["symbol"]) == (order["id"], symbol)
            assert told["filled_qty"] == told["execution_qty"] == float(qty)
            shown = rest(url, "GET", f"/v2/orders/{order['id']}")
            assert told["filled_avg_price"] == float(shown["filled_avg_price"])


def test_corrections_are_published_only_where_somebody_asked_for_them(quiet: Rig) -> None:
    """They come from Alpaca with every trade subscription."""
    prefix = quiet.channels.prefix
    with quiet.bot(f"{prefix}correction:AAPL", f"{prefix}correction:MSFT") as bot:
        ask(quiet, bot, ["MSFT"])
        assert ask(quiet, bot, ["AAPL"], channels=["corrections"])["accepted"] == ["AAPL"]
        assert quiet.broker.topics == {("trades", "AAPL"), ("trades", "MSFT")}
        for symbol in ("MSFT", "AAPL"):
            say(quiet, "iex", T="x", S=symbol, i=1, x="V", p=1.5, s=7, a="E", z="C", t=AT)
        assert bot.next()[0] == f"{prefix}correction:AAPL"


def test_crypto_options_and_news_come_from_feeds_of_their_own(quiet: Rig) -> None:
    """Idle until somebody wants them; each has its codec; all go out side by side."""
    prefix = quiet.channels.prefix
    idle = {"crypto/us": "idle", "indicative": "idle", "news": "idle"}
    assert states(quiet) == {"iex": "live"} | idle
    heard = ["price:BTC/USD", "orderbook:BTC/USD", f"price:{OPTION}", f"quote:{OPTION}"]
    heard += ["news:TSLA", "news:*"]
    with quiet.bot(*(prefix + name for name in heard)) as bot:
        kinds = ["trades", "orderbooks"]
        assert ask(quiet, bot, ["BTC/USD"], channels=kinds)["status"] == "ok"
        assert ask(quiet, bot, [OPTION], channels=["trades", "quotes"])["status"] == "ok"
        assert ask(quiet, bot, ["TSLA"], channels=["news"], content=True)["status"] == "ok"
        assert ask(quiet, bot, ["*"], channels=["news"], bot_id="all")["status"] == "ok"
        assert states(quiet) == dict.fromkeys(("iex", *idle), "live")
        levels = {"b": [{"p": 64000.5, "s": 0.25}], "a": [{"p": 64001, "s": 0}]}
        say(quiet, "crypto/us", T="o", S="BTC/USD", **levels, r=False, t=AT)
        book = bot.until(lambda _, m: m["type"] == "orderbook_update" and not m["snapshot"])
        assert (book["symbol"], book["feed"]) == ("BTC/USD", "crypto/us")
        assert (book["bids"], book["asks"]) == ([[64000.5, 0.25]], [[64001, 0]])
        say(quiet, "crypto/us", T="t", S="BTC/USD", p=64000.5, s=0.25, i=7, tks="B", t=AT)
        price = bot.until(lambda _, m: m["type"] == "price_update")
        assert (price["symbol"], price["size"], price["feed"]) == ("BTC/USD", 0.25, "crypto/us")
        say(quiet, "indicative", T="t", S=OPTION, p=2.5, s=3, x="C", c="a", t=AT)
        price = bot.until(lambda _, m: m["type"] == "price_update")
        assert (price["symbol"], price["conditions"], price["trade_id"]) == (OPTION, ["a"], None)
        assert (price["timestamp"], price["feed"]) == (1767625200.5, "indicative")
        quote = {"bp": 2.4, "bs": 1, "bx": "C", "ap": 2.6, "as": 2, "ax": "C", "c": "A"}
        say(quiet, "indicative", T="q", S=OPTION, **quote, t=AT)
        assert bot.until(lambda _, m: m["type"] == "quote_update")["conditions"] == ["A"]
        article = {"id": 5, "headline": "H", "created_at": AT, "updated_at": AT, "content": "<p>"}
        say(quiet, "news", T="n", **article, symbols=["TSLA", "AAPL"], source="benzinga")
        items = {c.removeprefix(prefix): m for c, m in (bot.next(), bot.next())}
        assert set(items) == {"news:TSLA", "news:*"}
        assert items["news:TSLA"]["content"] == "<p>"
        assert "content" not in items["news:*"]
        assert items["news:*"]["symbols"] == ["TSLA", "AAPL"]


def test_a_feed_that_nobody_wants_any_more_is_closed_without_a_gap(quiet: Rig) -> None:
    """And opened again when somebody does; the stock feed stays as it was."""
    since = quiet.broker.status().feeds["iex"].since
    for _ in range(2):
        quiet.register("BTC/USD")
        assert states(quiet)["crypto/us"] == "live"
        with quiet.bot() as bot:
            bot.send(quiet.channels.registration, {"action": "unregister", "bot_id": "tester"})
        eventually(lambda: states(quiet)["crypto/us"] == "idle")
        eventually(lambda: len(quiet.simulator.simulator.links("market")) == 1)
    assert quiet.broker.status().feeds["iex"].since == since
    client = redis.Redis(port=quiet.valkey.port)
    assert client.xlen(quiet.channels.gaps) == 0
    client.close()


def test_a_feed_outside_the_plan_is_an_answer_and_nobody_elses_trouble(
    valkey: EmbeddedRedis, prefix: str
) -> None:
    """409 for options: who asks is told so; stocks and accounts go on, and say so."""
    options = SimulatorOptions(rate=100.0, refused_feeds=frozenset({"indicative"}))
    with SimulatorThread(options) as simulator, Rig(valkey, simulator, prefix=prefix) as rig:
        rig.register("AAPL")
        with rig.bot(rig.channels.price("AAPL")) as bot:
            answer = ask(rig, bot, [OPTION, "MSFT"])
            assert (answer["status"], answer["accepted"]) == ("partial", ["MSFT"])
            (why,) = answer["rejected"]
            assert (why["symbol"], why["code"]) == (OPTION, "feed_refused")
            assert "insufficient subscription" in why["reason"]
            prices = [bot.until(lambda _, m: m["type"] == "price_update") for _ in range(20)]
        assert states(rig) == {
            **{"iex": "live", "indicative": "refused"},
            **{"crypto/us": "idle", "news": "idle"},
        }
        seqs = [price["seq"] for price in prices]
        assert seqs == list(range(seqs[0], seqs[0] + 20))


def test_a_failing_feed_never_touches_another(valkey: EmbeddedRedis, prefix: str) -> None:
    """Crypto sends rubbish and errors and is lost again and again: no stock price is missed."""
    options = SimulatorOptions(rate=100.0)
    with SimulatorThread(options) as simulator, Rig(valkey, simulator, prefix=prefix) as rig:
        rig.register("AAPL", "BTC/USD")
        since = rig.broker.status().feeds["iex"].since
        with rig.bot(rig.channels.price("AAPL"), rig.channels.status) as bot:
            for frame in (b"\xff\x00", b'[{"T":"error","code":500,"msg":"internal error"}]'):
                simulator.call(simulator.simulator.emit_raw, "crypto/us", frame)
            gap = bot.until(lambda _, m: m["type"] == "gap")
            assert (gap["feed"], gap["symbols"]) == ("crypto/us", ["BTC/USD"])
            prices = [bot.until(lambda _, m: m["type"] == "price_update") for _ in range(20)]
        assert rig.broker.status().feeds["iex"].since == since
        seqs = [price["seq"] for price in prices]
        assert seqs == list(range(seqs[0], seqs[0] + 20))
        client = redis.Redis(port=valkey.port)
        told = [json.loads(fields[b"data"]) for _, fields in client.xrange(rig.channels.gaps)]  # type: ignore[union-attr]
        assert {gap["feed"] for gap in told} == {"crypto/us"}
        client.close()


BAD = [
    *('{"T":"zz"}', '{"T":"t","S":"AAPL"}', '{"T":"t","S":null,"p":1,"t":null}', "null", "7", "[]"),
    *('{"data":null}', '{"T":"subscription","trades":7}', '{"T":"b","S":"AAPL","o":"high"}'),
    f'{{"T":"n","id":"x","content":"{"x" * 1_000_000}"}}',
]


def test_bad_messages_cost_no_neighbour_and_not_the_link(quiet: Rig) -> None:
    """A thousand frames, each with something bad between trades: all trades, in order, counted."""
    chance = random.Random(5)
    quiet.register("AAPL")
    feed = quiet.broker._prices.feeds[0]
    before = feed._frames._decoder.malformed
    with quiet.bot(quiet.channels.price("AAPL")) as bot:
        count = bad = 0
        for number in range(1_000):
            parts = []
            for _ in range(2):
                trade = {"T": "t", "S": "AAPL", "p": 1.5, "s": count, "i": 1, "t": AT}
                parts += [json.dumps(trade)]
                count += 1
            parts.insert(1, BAD[-1] if number % 200 == 7 else chance.choice(BAD[:-1]))
            bad += 1
            text = "[" + ",".join(parts) + "]"
            if number % 10 == 3:  # and then it breaks off: the parts before that are whole
                text = text[:-1] + ',{"T":"t","S":"AA'
                bad += 1
            quiet.simulator.call(quiet.simulator.simulator.emit_raw, "iex", text.encode())
        sizes = [bot.next()[1]["size"] for _ in range(count)]
    assert sizes == list(range(count))
    assert feed._frames._decoder.malformed - before == bad
    assert states(quiet)["iex"] == "live"
    assert quiet.simulator.stats.market_connections == 1


def last_prices(rig: Rig) -> dict[str, dict[str, Any]]:
    """What `price:last` holds."""
    client = redis.Redis(port=rig.valkey.port)
    found = client.hgetall(rig.channels.last)
    client.close()
    return {symbol.decode(): json.loads(price) for symbol, price in found.items()}  # type: ignore[union-attr]


def leave(rig: Rig, bot: Bot) -> None:
    """Unregister everything, and wait until Alpaca has been told."""
    bot.send(rig.channels.registration, {"action": "unregister", "bot_id": "asker"})
    eventually(lambda: not rig.broker.topics)


def test_no_last_price_outlives_its_subscription(quiet: Rig) -> None:
    """Neither one that only the wildcard brought, nor one that comes after Alpaca has let go."""
    trade = {"T": "t", "p": 1.5, "s": 7, "c": ["@"], "i": 11, "x": "V", "t": AT}
    lanes = quiet.broker._prices.feeds[0]._in_use.prices
    with quiet.bot() as bot:
        assert ask(quiet, bot, ["*"])["accepted"] == ["*"]
        say(quiet, "iex", S="AAPL", **trade)
        eventually(lambda: "AAPL" in last_prices(quiet))
        leave(quiet, bot)
        eventually(lambda: "AAPL" not in last_prices(quiet))
        ask(quiet, bot, ["MSFT"])
        leave(quiet, bot)
        heard, late = lanes.messages, json.dumps([{"S": "IBM", **trade}]).encode()
        quiet.simulator.call(quiet.simulator.simulator.emit_raw, "iex", late)
        eventually(lambda: lanes.messages == heard + 1)
        eventually(lambda: "IBM" not in lanes.snapshots.latest)
        assert last_prices(quiet).keys() == set()
        answer = ask(quiet, bot, ["AAPL", "IBM"])
        assert all(price["source"] == "snapshot" for price in answer["last"].values())


def test_quotes_that_wait_for_redis_end_with_their_link(quiet: Rig) -> None:
    """As prices do: the gap tells that they are lost, and what comes next is newer."""
    quiet.register("AAPL")
    feed = quiet.broker._prices.feeds[0]
    others = feed._in_use.others
    quote = Quote(S="AAPL", t=datetime(2026, 1, 5, tzinfo=UTC), bp=1.5)
    quiet.broker._price_thread.call(others.kept.keep, "AAPL", quote, 1.0)
    eventually(lambda: len(others.kept) == 1)
    quiet.simulator.call(quiet.simulator.simulator.cut)
    eventually(lambda: len(others.kept) == 0)


def test_a_book_can_be_built_by_whoever_comes_later(quiet: Rig) -> None:
    """Alpaca sends it whole once: every later bot that registers gets it whole, then changes."""
    channel = f"{quiet.channels.prefix}orderbook:BTC/USD"

    def change(bids: list[dict[str, float]], **more: Any) -> None:
        say(quiet, "crypto/us", T="o", S="BTC/USD", b=bids, a=[], t=AT, **more)

    with quiet.bot(channel) as first:
        ask(quiet, first, ["BTC/USD"], channels=["orderbooks"])
        change([{"p": 10, "s": 1}, {"p": 11, "s": 2}], r=True)
        change([{"p": 11, "s": 0}, {"p": 9.5, "s": 3}])
        whole = first.until(lambda c, m: c == channel and m["bids"] == [[11, 0], [9.5, 3]])
        with quiet.bot(channel) as second:
            ask(quiet, second, ["BTC/USD"], channels=["orderbooks"], bot_id="second")
            book = second.until(lambda c, m: c == channel)
            assert (book["snapshot"], book["bids"]) == (True, [[10, 1], [9.5, 3]])
            assert book["seq"] == whole["seq"] + 1
            change([{"p": 10, "s": 0}])
            after = second.until(lambda c, m: c == channel)
            assert (after["snapshot"], after["seq"]) == (False, book["seq"] + 1)


def test_a_book_of_which_a_change_was_not_understood_is_sent_anew(quiet: Rig) -> None:
    """Its bots are told of a gap, and then of the whole book as Alpaca has it now."""
    channel = f"{quiet.channels.prefix}orderbook:BTC/USD"
    with quiet.bot(channel, quiet.channels.status) as bot:
        ask(quiet, bot, ["BTC/USD"], channels=["orderbooks"])
        bad = {"T": "o", "S": "BTC/USD", "t": AT, "b": [{"p": "ten", "s": 1}]}
        emit = quiet.simulator.simulator.emit_raw
        bot.until(lambda c, m: c == channel and m["snapshot"])
        quiet.simulator.call(emit, "crypto/us", json.dumps([bad]).encode())
        told: dict[str, dict[str, Any]] = {}

        def gap_and_book(c: str, m: dict[str, Any]) -> bool:  # by two threads: in any order
            if m["type"] == "gap" or (c == channel and m["snapshot"]):
                told[m["type"]] = m
            return len(told) == 2

        bot.until(gap_and_book)
        gap = told.pop("gap")
        assert (gap["feed"], gap["symbols"]) == ("crypto/us", ["BTC/USD"])
        assert "order book" in gap["reason"]
        assert told.popitem()[1]["bids"]


def test_a_feed_that_was_refused_is_asked_again_when_somebody_wants_it_again(
    valkey: EmbeddedRedis, prefix: str
) -> None:
    """And while nobody does, it is nobody's trouble: the broker is live."""
    options = SimulatorOptions(rate=0.001, refused_feeds=frozenset({"indicative"}))
    with (
        SimulatorThread(options) as simulator,
        Rig(valkey, simulator, prefix=prefix, feed_linger=0.1) as rig,
        rig.bot() as bot,
    ):
        for _ in range(2):
            (why,) = ask(rig, bot, [OPTION])["rejected"]
            assert why["code"] == "feed_refused"
            assert rig.broker.status().state == "degraded"
            leave(rig, bot)
            eventually(lambda: states(rig)["indicative"] == "idle")
            eventually(lambda: rig.broker.status().state == "live")
        assert simulator.stats.market_connections == 3


def test_a_need_that_is_back_before_the_link_is_closed_leaves_no_gap(
    valkey: EmbeddedRedis, prefix: str
) -> None:
    """FEED_LINGER=0: the link ends all the same, and what came meanwhile was nobody's loss."""
    with (
        SimulatorThread(SimulatorOptions(rate=0.001)) as simulator,
        Rig(valkey, simulator, prefix=prefix, feed_linger=0.0) as rig,
    ):
        feed = next(f for f in rig.broker._prices.feeds if f.name == "crypto/us")
        rig.register("BTC/USD")
        wanted = feed.wanted

        def gone_and_back() -> None:
            """Nobody wants it until the closing has begun."""
            feed._need.set(False)

            async def back() -> None:
                while feed._state.state == "live":  # noqa: ASYNC110 - no event says it
                    await asyncio.sleep(0)
                feed.want(wanted)

            tasks.append(asyncio.get_running_loop().create_task(back()))

        tasks: list[asyncio.Task[None]] = []
        since = feed.status.since
        rig.broker._price_thread.call(gone_and_back)
        eventually(lambda: feed.status.state == "live" and feed.status.since != since)
        eventually(lambda: bool(feed.topics))
        client = redis.Redis(port=valkey.port)
        eventually(lambda: len(simulator.simulator.links("market")) == 2)
        assert client.xlen(rig.channels.gaps) == 0
        client.close()
