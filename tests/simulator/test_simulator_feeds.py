"""The other feeds' WebSockets, crypto, options and news, and what a test can make any feed say."""

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest
from simulator_clients import KEY, MSGPACK, Start, dialled, eventually, market

from alpaca_broker.simulator import Simulator

CRYPTO = ["/v1beta3/crypto/us", "/v1beta3/crypto/us-1", "/v1beta3/crypto/eu-1"]
OPTIONS = ["/v1beta1/indicative", "/v1beta1/opra"]
NEWS = "/v1beta1/news"
CONTRACT = "AAPL301220C00200000"


def error(code: int, text: str) -> list[dict[str, Any]]:
    return [{"T": "error", "code": code, "msg": text}]


@pytest.mark.parametrize(
    ("path", "channels"),
    [
        *((p, "trades quotes orderbooks bars updatedBars dailyBars") for p in CRYPTO),
        *((path, "trades quotes") for path in OPTIONS),
        (NEWS, "news"),
    ],
)
async def test_acks_have_the_channels_of_their_feed(
    quiet: Simulator, path: str, channels: str
) -> None:
    """In the documented order; what is not asked for is an empty list."""
    async with market(quiet, path, MSGPACK) as client:
        first = channels.split()[0]
        (answer,) = await client.ask({"action": "subscribe", first: ["ZZZ"]})
        assert list(answer) == ["T", *channels.split()]
        assert answer == {"T": "subscription"} | {key: [] for key in channels.split()} | {
            first: ["ZZZ"]
        }


@pytest.mark.parametrize(
    ("path", "channel"),
    [(OPTIONS[0], "bars"), (NEWS, "trades"), (CRYPTO[0], "lulds"), (CRYPTO[0], "corrections")],
)
async def test_410_channels_of_other_feeds(quiet: Simulator, path: str, channel: str) -> None:
    """Refused by name; empty ones are tolerated."""
    async with market(quiet, path, MSGPACK) as client:
        refused = await client.ask({"action": "subscribe", channel: ["A"]})
        assert refused == error(410, "invalid subscribe action for this feed")
        assert (await client.ask({"action": "subscribe", channel: []}))[0]["T"] == "subscription"


@pytest.mark.parametrize("path", OPTIONS)
async def test_412_options_in_json(quiet: Simulator, path: str) -> None:
    """Whoever asks for JSON is refused and sent away; whoever asks for nothing gets MessagePack."""
    async with dialled(quiet, path, {"Content-Type": "application/json"}) as client:
        assert (await client.receive())[0]["msg"] == "connected"
        refusal = error(412, "option messages are only available in MsgPack format")
        assert await client.receive() == refusal
        assert (await client.frame()).type is aiohttp.WSMsgType.CLOSE
    async with dialled(quiet, path) as client:
        frame = await client.frame()
        assert frame.type is aiohttp.WSMsgType.BINARY
        assert msgspec.msgpack.decode(frame.data)[0]["msg"] == "connected"
        await client.socket.send_str('{"action":"auth","key":"a","secret":"b"}')
        assert msgspec.msgpack.decode((await client.frame()).data) == refusal


async def test_413_star_on_option_quotes(quiet: Simulator) -> None:
    """All quotes are too many; all trades are not."""
    async with market(quiet, OPTIONS[0], MSGPACK) as client:
        refused = await client.ask({"action": "subscribe", "quotes": ["*"], "trades": ["A"]})
        assert refused == error(413, "star subscription is not allowed for option quotes")
        (answer,) = await client.ask({"action": "subscribe", "trades": ["*"]})
        assert (answer["trades"], answer["quotes"]) == (["*"], [])


async def test_405_counts_option_quotes_only(start: Start) -> None:
    """The plan's limit for options is one of quotes."""
    simulator = await start(option_quote_limit=1, symbol_limit=1)
    async with market(simulator, OPTIONS[0], MSGPACK) as client:
        contracts = [CONTRACT, CONTRACT.replace("C", "P")]
        (answer,) = await client.ask({"action": "subscribe", "trades": contracts})
        assert len(answer["trades"]) == 2
        refused = await client.ask({"action": "subscribe", "quotes": contracts})
        assert refused == error(405, "symbol limit exceeded")


async def test_one_slot_per_endpoint(start: Start) -> None:
    """One key holds every feed once, at the same time; a second session gets 406."""
    simulator = await start(refused_feeds=frozenset({"opra"}))
    async with market(simulator, CRYPTO[0]) as coins, market(simulator, NEWS):
        async with market(simulator, CRYPTO[1]), market(simulator, OPTIONS[0], MSGPACK):
            async with dialled(simulator, CRYPTO[0], KEY) as second:
                await second.receive()
                assert await second.receive() == error(406, "connection limit exceeded")
            async with dialled(simulator, OPTIONS[1], KEY) as client:
                await client.frame()
                frame = await client.frame()
                (refused,) = msgspec.msgpack.decode(frame.data)
                assert refused["code"] == 409
        await coins.ask({"action": "subscribe", "bars": ["BTC/USD"]})


async def test_crypto_trades_quotes_and_ids(start: Start) -> None:
    """Fractional sizes, ids beyond 2^53, a taker side; each location has prices of its own."""
    simulator = await start(rate=200.0)
    first: list[float] = []
    for path in CRYPTO:
        async with market(simulator, path) as client:
            request = {"action": "subscribe", "trades": ["BTC/USD"], "quotes": ["BTC/USD"]}
            await client.ask(request)
            trade, quote = await client.receive_type("t"), await client.receive_type("q")
        assert list(trade) == ["T", "S", "p", "s", "t", "i", "tks"]
        assert list(quote) == ["T", "S", "bp", "bs", "ap", "as", "t"]
        assert trade["i"] > 2**53
        assert trade["s"] != int(trade["s"])
        assert trade["tks"] in {"B", "S"}
        assert quote["bp"] < quote["ap"]
        first.append(trade["p"])
    assert len(set(first)) == 3


async def test_stocks_are_silent_on_the_crypto_feed(start: Start) -> None:
    """And coins on the stock feed: what a broker mixes up stays away."""
    simulator = await start(rate=200.0)
    async with market(simulator, CRYPTO[0]) as coins, market(simulator) as stocks:
        request = {"action": "subscribe", "trades": ["AAPL", "BTC/USD", CONTRACT]}
        await coins.ask(request)
        await stocks.ask(request)
        for _ in range(3):
            assert {m["S"] for m in await coins.receive()} == {"BTC/USD"}
            assert {m["S"] for m in await stocks.receive()} == {"AAPL"}


def applied(book: dict[str, dict[float, float]], message: dict[str, Any]) -> None:
    """Do what a client does with an `o`."""
    for side in ("b", "a"):
        if message["r"]:
            book[side] = {}
        for level in message[side]:
            if level["s"]:
                book[side][level["p"]] = level["s"]
            else:
                del book[side][level["p"]]  # only what was there is removed


async def test_order_books_begin_whole_and_stay_true(start: Start) -> None:
    """A snapshot first, then changes that lead to what a later snapshot shows."""
    simulator = await start(rate=300.0)
    async with market(simulator, CRYPTO[0]) as client:
        await client.ask({"action": "subscribe", "orderbooks": ["BTC/USD"]})
        (first,) = await client.receive()
        assert (first["r"], len(first["b"]), len(first["a"])) == (True, 10, 10)
        book: dict[str, dict[float, float]] = {}
        applied(book, first)
        for _ in range(20):
            (update,) = await client.receive()
            assert not update["r"]
            applied(book, update)
        simulator.data.reset_book("crypto/us", "BTC/USD")
        while not (update := (await client.receive())[0])["r"]:
            applied(book, update)
        again: dict[str, dict[float, float]] = {}
        applied(again, update)
        assert book == again
        assert max(book["b"]) < min(book["a"])


async def test_options_have_one_text_for_conditions(start: Start) -> None:
    """MessagePack, OCC symbols, the documented keys."""
    simulator = await start(rate=200.0)
    async with market(simulator, OPTIONS[0], MSGPACK) as client:
        await client.ask({"action": "subscribe", "trades": ["*"], "quotes": [CONTRACT]})
        trade, quote = await client.receive_type("t"), await client.receive_type("q")
    assert list(trade) == ["T", "S", "t", "p", "s", "x", "c"]
    assert list(quote) == ["T", "S", "t", "bx", "bp", "bs", "ax", "ap", "as", "c"]
    assert isinstance(trade["c"], str)
    assert quote["S"] == CONTRACT


async def test_news_reach_whoever_asked_for_one_of_their_symbols(start: Start) -> None:
    """Once each, without `S` and `t`; and by themselves when somebody listens."""
    simulator = await start(news_per_min=60_000.0)
    async with market(simulator, NEWS, MSGPACK) as client:
        await client.ask({"action": "subscribe", "news": ["*"]})
        (article,) = await client.receive()
        assert set(article) == {
            *("T", "id", "headline", "summary", "author", "created_at", "updated_at"),
            *("url", "content", "symbols", "source"),
        }
    silent = await start(news_per_min=0.0)
    async with market(silent, NEWS) as client:
        await client.ask({"action": "subscribe", "news": ["AAPL", "MSFT"]})
        assert silent.data.publish(["SPY"], "not for us") == 0
        assert silent.data.publish(["AAPL", "MSFT"], "for us", author="Me") == 1
        assert silent.data.publish(["MSFT"], "later") == 1
        (article,) = await client.receive()
        assert (article["headline"], article["author"]) == ("for us", "Me")
        assert article["created_at"].endswith("Z")
        assert (await client.receive())[0]["headline"] == "later"


async def test_corrections_and_cancellations_of_real_trades(quiet: Simulator) -> None:
    """They name the trade they are about, and REST marks it."""
    trade = {"T": "t", "S": "A", "i": 7, "x": "V", "p": 10.5, "s": 100, "c": ["@"], "z": "A"}
    async with market(quiet) as client:
        await client.ask({"action": "subscribe", "trades": ["A"]})
        quiet.emit("iex", trade)
        quiet.emit("iex", trade | {"i": 8})
        assert quiet.data.correct("iex", "A", trade_id=7, price=10.75) == 1
        assert quiet.data.cancel_trade("iex", "A", trade_id=8, action="E") == 1
        correction, cancel = await client.receive_type("c"), await client.receive_type("x")
    assert (correction["oi"], correction["op"], correction["cp"]) == (7, 10.5, 10.75)
    assert (correction["os"], correction["cs"], correction["oc"]) == (100, 100, ["@"])
    assert (cancel["i"], cancel["p"], cancel["a"]) == (8, 10.5, "E")
    assert quiet.data.stocks.amended["A", 7] == "incorrect"
    assert quiet.data.stocks.amended["A", 8] == "canceled"
    with pytest.raises(ValueError, match="no such trade of B"):
        quiet.data.correct("iex", "B")


async def test_halts_bands_and_updated_bars(quiet: Simulator) -> None:
    """Each on its channel, and only there."""
    async with market(quiet) as client, market(quiet, "/v2/sip") as other:
        channels = ("statuses", "lulds", "updatedBars")
        await client.ask({"action": "subscribe"} | {key: ["A"] for key in channels})
        await other.ask({"action": "subscribe", "trades": ["*"], "bars": ["*"]})
        quiet.emit("sip", {"T": "t", "S": "A", "p": 20, "s": 1})
        assert quiet.data.halt("iex", "A") == 1
        assert quiet.data.resume("iex", "A") == 1
        assert quiet.data.band("iex", "A") == 1
        assert quiet.data.update_bar("iex", "A", size=50) == 1
        said = [(await client.receive())[0] for _ in range(4)]
    assert [message["T"] for message in said] == ["s", "s", "l", "u"]
    assert (said[0]["sc"], said[0]["rc"], said[1]["sc"]) == ("H", "T12", "T")
    assert (said[2]["u"], said[2]["d"]) == (21.0, 19.0)
    assert (said[3]["v"], said[3]["n"], said[3]["c"]) == (150, 2, 20.0)


async def test_bands_come_by_themselves(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every half minute, for whoever subscribed to them."""
    simulator = await start(rate=0.001)
    async with market(simulator) as client:
        await client.ask({"action": "subscribe", "lulds": ["SPY"]})
        simulator._pulse._half_minute = 0
        band = await client.receive_type("l")
        assert band["d"] < band["u"]


async def test_the_market_goes_on_for_those_who_vanished(start: Start) -> None:
    """So that there is something to have missed; after unsubscribing there is not."""
    simulator = await start(rate=200.0, absent_s=30.0)
    async with market(simulator) as client:
        await client.ask({"action": "subscribe", "trades": ["AAPL", "MSFT"]})
        await client.receive_type("t")
        await client.send({"action": "unsubscribe", "trades": ["MSFT"]})
        await client.receive_type("subscription")  # behind what was on its way
        simulator.cut("market")
    await eventually(lambda: simulator.stats.market_open == 0)
    before = {s: len(simulator.data.ledger("iex", s)) for s in ("AAPL", "MSFT")}
    await eventually(lambda: len(simulator.data.ledger("iex", "AAPL")) > before["AAPL"])
    assert len(simulator.data.ledger("iex", "MSFT")) == before["MSFT"]


async def test_the_market_stops_when_they_stay_away(start: Start) -> None:
    """`absent_s` after the last subscriber vanished."""
    simulator = await start(rate=500.0, absent_s=0.05)
    async with market(simulator) as client:
        await client.ask({"action": "subscribe", "trades": ["AAPL"]})
        await client.receive_type("t")
    venue = simulator.data.venues["stocks"]
    await eventually(lambda: venue.alive(frozenset(), asyncio.get_running_loop().time()) == [])


async def test_a_halted_stock_does_not_trade(start: Start) -> None:
    """Until it is resumed; all stock feeds are told, and other symbols go on."""
    simulator = await start(rate=200.0)
    async with market(simulator) as client, market(simulator, "/v2/sip") as sip:
        request = {"action": "subscribe", "trades": ["AAPL", "MSFT"], "statuses": ["*"]}
        await client.ask(request)
        await sip.ask({"action": "subscribe", "statuses": ["AAPL"]})
        await client.receive_type("t")
        assert simulator.data.halt("stocks", "AAPL") == 2
        await client.receive_type("s")
        count = {s: len(simulator.data.ledger("iex", s)) for s in ("AAPL", "MSFT")}
        await eventually(lambda: len(simulator.data.ledger("iex", "MSFT")) > count["MSFT"] + 10)
        assert len(simulator.data.ledger("iex", "AAPL")) == count["AAPL"]
        assert simulator.data.resume("stocks", "AAPL") == 2
        await eventually(lambda: len(simulator.data.ledger("iex", "AAPL")) > count["AAPL"])
        assert [(await sip.receive())[0]["sc"] for _ in range(2)] == ["H", "T"]


async def test_incidents_happen_when_asked_for(start: Start) -> None:
    """Corrections and cancellations of trades that clients saw."""
    simulator = await start(rate=200.0, incidents_per_min=6_000.0)
    async with market(simulator) as client:
        await client.ask({"action": "subscribe", "trades": ["AAPL"]})
        seen: set[int] = set()
        wanted = {"c", "x"}
        while wanted:
            for message in await client.receive():
                seen |= {message["i"]} if message["T"] == "t" else set()
                if message["T"] in wanted:
                    wanted -= {message["T"]}
                    assert message.get("oi", message.get("i")) in seen


async def test_trouble_of_one_feed_is_nothing_to_another(start: Start) -> None:
    """Muted and cut one by one; an unknown name is refused."""
    simulator = await start(rate=0.001)
    async with market(simulator, CRYPTO[0]) as coins, market(simulator) as stocks:
        for client in (coins, stocks):
            await client.ask({"action": "subscribe", "bars": ["*"]})
        bar = {"T": "b", "S": "X"}
        simulator.mute("crypto/us")
        simulator.emit("crypto/us", bar)
        simulator.emit("iex", bar)
        assert (await stocks.receive())[0]["S"] == "X"
        simulator.mute("crypto/us", muted=False)
        simulator.emit("crypto/us", bar | {"S": "heard"})
        assert (await coins.receive())[0]["S"] == "heard"
        assert simulator.cut("sip") == 0
        assert simulator.cut("crypto/us") == 1
        assert (await coins.frame()).type is aiohttp.WSMsgType.CLOSED
        assert (await stocks.ask({"action": "subscribe", "bars": []}))[0]["bars"] == ["*"]
        for function in (simulator.cut, simulator.mute):
            with pytest.raises(ValueError, match="no such feed: 'crypto'"):
                function("crypto")
