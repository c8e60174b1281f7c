"""The other kinds of market data: registered for, typed, numbered, and their holes told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, get_args

import pytest
from fake_broker import FakeBroker
from msgspec.structs import fields
from support import PATIENCE_S, eventually

from alpaca_broker import AsyncClient, Client
from alpaca_broker.client import (
    BarUpdate,
    Gap,
    News,
    OrderbookUpdate,
    OrderUpdate,
    PriceUpdate,
    QuoteUpdate,
    Status,
    TradeCancel,
    TradeCorrection,
    TradingStatus,
    UsageError,
)
from alpaca_broker.client.inbox import MOST_OTHERS, conflated
from alpaca_broker.client.market_data import KINDS, market_data
from alpaca_broker.client.updates import BrokerGap, FeedStatus
from alpaca_broker.core import messages
from alpaca_broker.core.feeds import CONTENT
from alpaca_broker.core.feeds import KINDS as FEED_KINDS
from alpaca_broker.core.registration import Kind
from alpaca_broker.embedded import EmbeddedRedis

Connect = Callable[..., Client]

KINDS_OF_THREE = ("trades", "quotes", "news")
QUOTE = {"bid_price": 1.5, "bid_size": 2, "ask_price": 1.6, "ask_size": 3, "conditions": ["R"]}
BAR = {"timeframe": "1Min", "updated": False, "open": 1, "high": 2, "low": 0.5, "close": 1.5}


def asked(broker: FakeBroker, action: str) -> list[tuple[list[str], list[str]]]:
    """The kinds and symbols of all registrations of this action."""
    said = [m for m in broker.registrations if m["action"] == action]
    return [(m.get("channels", ["trades"]), m["symbols"]) for m in said]


def test_quotes_are_registered_for_and_come_typed(broker: FakeBroker, connect: Connect) -> None:
    """In order; `raw` is the message; the stream's end takes the quotes back, and only them."""
    client = connect(bot_id="q")
    prices, quotes = client.prices("AAPL"), client.quotes("AAPL", "MSFT")
    assert client.wait_ready()
    assert (["quotes"], ["AAPL", "MSFT"]) in asked(broker, "register")
    assert (["trades"], ["AAPL"]) in asked(broker, "register")
    broker.data("quote:", "AAPL", "quote_update", **QUOTE, note="x")
    broker.data("quote:", "MSFT", "quote_update", **QUOTE)
    first, second = next(quotes), next(quotes)
    assert isinstance(first, QuoteUpdate)
    assert isinstance(second, QuoteUpdate)
    assert (first.symbol, first.bid_price, first.ask_size, first.seq) == ("AAPL", 1.5, 3.0, 1)
    assert first.raw["note"] == "x"
    assert (second.symbol, second.seq) == ("MSFT", 1)
    quotes.close()
    eventually(lambda: asked(broker, "unregister") == [(["quotes"], ["AAPL", "MSFT"])])
    broker.price("AAPL")
    assert next(prices).seq == 1  # type: ignore[union-attr]


def test_a_hole_is_told_to_whom_it_concerns(broker: FakeBroker, connect: Connect) -> None:
    """As with prices: how many, of which channel; who follows the prices alone is not told."""
    client = connect()
    prices, quotes, gaps = client.prices("AAPL"), client.quotes("AAPL"), client.gaps()
    assert client.wait_ready()
    for lost in (False, True, True, False):
        broker.data("quote:", "AAPL", "quote_update", lost=lost, **QUOTE)
    got = [next(quotes) for _ in range(3)]
    assert [u.seq for u in got if isinstance(u, QuoteUpdate)] == [1, 4]
    gap = got[1]
    assert isinstance(gap, Gap)
    assert (gap.missed, gap.channel, gap.symbol, gap.reason) == (2, "quote:", "AAPL", "broker gap")
    assert next(gaps).missed == 2
    assert prices.poll() is None
    assert client.counters.missed == 2


def test_a_feeds_gap_is_told_to_those_whom_it_serves(broker: FakeBroker, connect: Connect) -> None:
    """News that were missed make no price stale; a gap of an unknown feed is everyone's."""
    client = connect()
    prices, quotes, news = (client.updates("AAPL", channels=[k]) for k in KINDS_OF_THREE)
    coins, books = client.prices("BTC/USD"), client.updates("*", channels=["orderbooks"])
    assert client.wait_ready()
    broker.price("AAPL")
    broker.data("quote:", "AAPL", "quote_update", **QUOTE)
    assert next(prices).seq == next(quotes).seq == 1  # type: ignore[union-attr]
    eventually(lambda: client.is_fresh("AAPL"))
    broker.gap("AAPL", feed="news")
    gap = next(news)
    assert isinstance(gap, Gap)
    assert (gap.feed, gap.detail) == ("news", "the connection was lost")
    assert client.is_fresh("AAPL")
    broker.gap("*", feed="iex")
    assert [next(stream).feed for stream in (prices, quotes)] == ["iex", "iex"]
    assert not client.is_fresh("AAPL", ["quotes"])
    assert client.is_fresh("AAPL", ["news"])
    broker.data("quote:", "AAPL", "quote_update", **QUOTE)
    assert next(quotes).seq == 2  # type: ignore[union-attr]
    assert client.is_fresh("AAPL", ["quotes"])
    broker.gap("ETH/USD", feed="crypto/us")
    assert next(books).feed == "crypto/us"
    broker.gap("AAPL", "BTC/USD", feed="of-the-future")
    assert [next(s).feed for s in (prices, news, coins)] == ["of-the-future"] * 3


def test_a_book_is_fresh_as_long_as_it_is_whole(broker: FakeBroker, connect: Connect) -> None:
    """From a snapshot on, until a change of it is missed, here or at Alpaca's."""
    client = connect()
    books = client.updates("BTC/USD", channels=["orderbooks"])
    assert client.wait_ready()

    def change(*, snapshot: bool = False, lost: bool = False) -> bool:
        more = {"bids": [[1, 2]], "asks": [], "snapshot": snapshot}
        broker.data("orderbook:", "BTC/USD", "orderbook_update", lost=lost, **more)
        while not lost and isinstance(next(books), Gap):
            pass
        return client.is_fresh("BTC/USD")

    assert not change()
    assert [change(snapshot=True), change()] == [True, True]
    change(lost=True)
    assert [change(), change(), change(snapshot=True)] == [False, False, True]
    now = time.time()
    broker.gap("BTC/USD", **{"feed": "crypto/us", "from": now - 60, "to": now})
    assert isinstance(next(books), Gap)
    assert client.is_fresh("BTC/USD")  # the snapshot came after what was missed
    broker.gap("BTC/USD", **{"feed": "crypto/us", "from": now + 60, "to": now + 61})
    assert [change(), change(snapshot=True)] == [False, True]


def test_whole_articles_are_asked_for_and_come_once(broker: FakeBroker, connect: Connect) -> None:
    """By whoever wants them; who leaves takes nothing from the others of the same bot."""
    client = connect(bot_id="reader")
    whole = client.updates("AAPL", channels=["news"], content=True)
    some, everything = (client.updates(name, channels="news") for name in ("AAPL", "*"))
    assert client.wait_ready()
    asks = {(m.get("content", False), *m["symbols"]) for m in broker.registrations}
    assert asks == {(True, "AAPL"), (False, "*", "AAPL")}
    for symbol in ("AAPL", "*"):
        broker.data("news:", symbol, "news", id=1, content="<p>")
    for stream, channel in ((whole, "AAPL"), (some, "AAPL"), (everything, "*")):
        assert next(stream).symbol == channel
        assert stream.poll() is None
    whole.close()
    everything.close()
    eventually(lambda: asked(broker, "unregister") == [(["news"], ["*"])])
    some.close()
    eventually(lambda: asked(broker, "unregister")[1:] == [(["news"], ["AAPL"])])


def test_a_new_epoch_starts_the_numbers_over(broker: FakeBroker, connect: Connect) -> None:
    """Lower ones are ignored; what a new one began with counts as missed if it was not heard."""
    client = connect()
    quotes = client.quotes("AAPL")
    assert client.wait_ready()
    broker.data("quote:", "AAPL", "quote_update")
    assert next(quotes).seq == 1  # type: ignore[union-attr]
    broker.restart()
    broker.data("quote:", "AAPL", "quote_update", lost=True)
    broker.data("quote:", "AAPL", "quote_update")
    broker.data("quote:", "AAPL", "quote_update", epoch=1)
    broker.data("quote:", "AAPL", "quote_update", seq=3)
    got = [next(quotes) for _ in range(4)]
    assert [u.seq for u in got if isinstance(u, QuoteUpdate)] == [2, 3]
    assert [(g.reason, g.missed) for g in got if isinstance(g, Gap)] == [
        ("epoch", None),
        ("broker gap", 1),
    ]


def test_kinds_that_share_a_channel_are_kept_apart(broker: FakeBroker, connect: Connect) -> None:
    """Bars, updated and daily ones have one channel and one row of numbers; likewise halts."""
    client = connect()
    bars, days = client.bars("AAPL"), client.updates("AAPL", channels=["dailyBars", "updatedBars"])
    halts, bands = (client.updates("AAPL", channels=kind) for kind in ("statuses", "lulds"))
    assert client.wait_ready()
    for more in ({}, {"updated": True}, {"timeframe": "1Day"}, {}):
        broker.data("bar:", "AAPL", "bar_update", **(BAR | more))
    broker.data("trading_status:", "AAPL", "trading_status", status_code="H")
    broker.data("trading_status:", "AAPL", "trading_status", limit_up=9.5, limit_down=8.5)
    minute, later = next(bars), next(bars)
    assert isinstance(minute, BarUpdate)
    assert (minute.close, minute.seq, later.seq) == (1.5, 1, 4)  # type: ignore[union-attr]
    assert [next(days).seq for _ in range(2)] == [2, 3]  # type: ignore[union-attr]
    halt, band = next(halts), next(bands)
    assert isinstance(halt, TradingStatus)
    assert isinstance(band, TradingStatus)
    assert (halt.status_code, band.limit_up) == ("H", 9.5)
    assert client.counters.missed == 0


def test_several_kinds_in_one_stream_and_trades_too(broker: FakeBroker, connect: Connect) -> None:
    """Each in its type, as they come; in plain mode as the message says."""
    client, plain = connect(), connect(plain=True)
    kinds = ("trades", "corrections", "news", "orderbooks", "backfill")
    updates, dicts = (c.updates("AAPL", channels=kinds) for c in (client, plain))
    assert client.wait_ready()
    assert plain.wait_ready()
    trade = {"price": 1.0, "size": 2}
    broker.price("AAPL")
    broker.data("correction:", "AAPL", "trade_correction", original=trade, corrected=trade)
    broker.data("correction:", "AAPL", "trade_cancel", original=trade, action="C")
    broker.data("news:", "AAPL", "news", id=7, headline="up", symbols=["AAPL"])
    broker.data("orderbook:", "AAPL", "orderbook_update", bids=[[1, 2]], asks=[], snapshot=True)
    broker.data("backfill:", "AAPL", "price_update", price=1.25, source="backfill")
    got = [next(updates) for _ in range(6)]
    expected = [PriceUpdate, TradeCorrection, TradeCancel, News, OrderbookUpdate, PriceUpdate]
    assert [type(update) for update in got] == expected
    found: list[Any] = [next(dicts) for _ in range(6)]
    assert [update.raw for update in got] == found
    assert found[3]["headline"] == "up"


def test_every_symbol_by_the_wildcard(broker: FakeBroker, connect: Connect) -> None:
    """One pattern; each symbol has numbers of its own."""
    client = connect()
    quotes = client.quotes("*")
    assert client.wait_ready()
    for symbol in ("AAPL", "MSFT", "AAPL"):
        broker.data("quote:", symbol, "quote_update", **QUOTE)
    broker.data("quote:", "MSFT", "quote_update", lost=True)
    broker.data("quote:", "MSFT", "quote_update")
    got = [next(quotes) for _ in range(5)]
    assert [(u.symbol, u.seq) for u in got if isinstance(u, QuoteUpdate)] == [
        ("AAPL", 1),
        ("MSFT", 1),
        ("AAPL", 2),
        ("MSFT", 3),
    ]
    assert [g.symbols for g in got if isinstance(g, Gap)] == [("MSFT",)]


def test_what_was_missed_in_between_shows_with_the_next(
    own_broker: FakeBroker, own_client: Client
) -> None:
    """A connection that was cut: there is no snapshot of quotes, but the numbers tell."""
    quotes = own_client.quotes("AAPL")
    assert own_client.wait_ready()
    own_broker.data("quote:", "AAPL", "quote_update")
    assert next(quotes).seq == 1  # type: ignore[union-attr]
    commands = own_broker.redis.pipeline(transaction=True)
    [mine] = [c for c in own_broker.redis.client_list() if c["name"].endswith(":hears")]
    commands.client_kill_filter(_id=mine["id"])
    commands.execute()
    own_broker.data("quote:", "AAPL", "quote_update", lost=True)
    eventually(lambda: own_client.counters.reconnects == 1 and own_client._engine.is_ready())
    own_broker.data("quote:", "AAPL", "quote_update")
    gap, update = next(quotes), next(quotes)
    assert isinstance(gap, Gap)
    assert (gap.missed, gap.reason) == (1, "cut by redis")
    assert update.seq == 3  # type: ignore[union-attr]


def test_a_refused_kind_is_told_by_its_name(broker: FakeBroker, connect: Connect) -> None:
    """The same symbol's trades may be taken."""
    broker.refuses = {"BAD": 405}
    client = connect()
    client.on_update("BAD", print, channels=("quotes",))
    prices = client.prices("AAPL")
    assert client.wait_ready()
    assert client.rejected == {"quotes:BAD": "refused (405)"}
    assert prices.poll() is None


def test_handlers_are_called(broker: FakeBroker, connect: Connect) -> None:
    """With every update of the kinds, and no gap."""
    client, seen = connect(), []
    client.on_update(["AAPL", "MSFT"], seen.append, channels=["quotes", "news"])
    assert client.wait_ready()
    broker.data("quote:", "AAPL", "quote_update")
    broker.data("news:", "MSFT", "news", id=1)
    eventually(lambda: [type(u) for u in seen] == [QuoteUpdate, News])


async def test_in_asyncio_it_is_the_same(valkey: EmbeddedRedis, prefix: str) -> None:
    """Streams and handlers."""
    seen: list[Any] = []
    with FakeBroker(valkey.port, prefix) as broker:
        async with AsyncClient(host="127.0.0.1", port=valkey.port, prefix=prefix) as client:
            called = asyncio.Event()

            async def take(update: Any) -> None:
                seen.append(update)
                called.set()

            client.on_update("AAPL", take, channels=["quotes"])
            quotes, bars = client.quotes("AAPL", gaps=False), client.bars("AAPL")
            news = client.updates("AAPL", channels=["news"])
            assert await client.wait_ready()
            broker.data("quote:", "AAPL", "quote_update", **QUOTE)
            broker.data("bar:", "AAPL", "bar_update", **BAR)
            broker.data("news:", "AAPL", "news", id=1)
            assert (await anext(quotes)).bid_price == 1.5
            assert isinstance(await anext(bars), BarUpdate)
            assert isinstance(await anext(news), News)
            async with asyncio.timeout(PATIENCE_S):
                await called.wait()
            assert [type(update) for update in seen] == [QuoteUpdate]


@pytest.mark.parametrize("channels", [(), ("quote",), ["quotes", 7]])
def test_a_kind_that_does_not_exist_is_refused_at_the_door(connect: Connect, channels: Any) -> None:
    """The text names those that do."""
    with pytest.raises(UsageError, match="quotes, bars, updatedBars"):
        connect().updates("AAPL", channels=channels)


def test_only_what_is_needed_must_be_right() -> None:
    """A field of another type is left out; a message without its symbol is none."""
    update = market_data(
        json.dumps(
            {"type": "quote_update", "symbol": "A", "timestamp": 1, "bid_size": "x"}
        ).encode()
    )
    assert isinstance(update, QuoteUpdate)
    assert update.bid_size is None
    for rubbish in (b"", b"[]", b"\xff", b'{"type":"quote_update","timestamp":1}', b'{"type":"x"}'):
        assert market_data(rubbish) is None


def test_a_slow_bot_has_the_newest_quote_and_all_bars() -> None:
    """Quotes replace one another, bars do not; beyond the bound a gap says how many are lost."""
    quotes = [QuoteUpdate(symbol="A", timestamp=n, seq=n) for n in range(5)]
    bars = [BarUpdate(symbol="B", timestamp=n, seq=n) for n in range(3)]
    trades = [PriceUpdate("A", 1.0, n, seq=n, source="backfill") for n in range(3)]
    kept, dropped = conflated([*quotes, *bars, *trades])
    assert dropped == 4
    assert kept[:6] == [*bars, *trades]
    assert isinstance(kept[6], QuoteUpdate)
    assert (kept[6].seq, kept[6].skipped) == (4, 4)
    many = [BarUpdate(symbol="B", timestamp=n, seq=n) for n in range(MOST_OTHERS + 3)]
    kept, dropped = conflated([*many])
    assert (len(kept), dropped) == (MOST_OTHERS + 1, 3)
    assert isinstance(kept[0], Gap)
    assert (kept[0].reason, kept[0].missed, kept[0].symbols) == ("slow", 3, ("B",))


# The contract's type, and the client's.
SAID = [
    *((messages.QuoteUpdate, QuoteUpdate), (messages.BarUpdate, BarUpdate)),
    *((messages.TradingStatus, TradingStatus), (messages.TradeCancel, TradeCancel)),
    *((messages.TradeCorrection, TradeCorrection), (messages.NewsItem, News)),
    *((messages.OrderbookUpdate, OrderbookUpdate), (messages.PriceUpdate, PriceUpdate)),
    *((messages.OrderUpdate, OrderUpdate), (messages.Status, Status)),
    *((messages.Gap, BrokerGap), (messages.FeedStatus, FeedStatus)),
    *((messages.AccountStatus, FeedStatus),),
]


@pytest.mark.parametrize(("said", "read"), SAID)
def test_the_client_reads_every_field_that_the_broker_says(said: Any, read: Any) -> None:
    """Under the same type and names; only the required ones of the contract must be there."""
    assert said.__struct_config__.tag in (None, read.__struct_config__.tag)
    names = [{field.encode_name for field in fields(kind)} for kind in (said, read)]
    assert names[0] <= names[1]
    assert {f.encode_name for f in fields(read) if f.required} <= names[0]


def test_every_kind_of_the_broker_is_one_that_a_bot_may_ask_for() -> None:
    """On the channel that the broker publishes it on; and each has a feed."""
    assert set(KINDS) == set(get_args(Kind)) == frozenset().union(*FEED_KINDS.values()) - {CONTENT}


def test_a_gap_of_another_feed_is_not_told(broker: FakeBroker, connect: Connect) -> None:
    """Crypto was away: who follows stocks misses nothing, and who follows gaps is told by whom."""
    client = connect()
    prices, gaps = client.prices("AAPL"), client.gaps()
    assert client.wait_ready()
    broker.gap("*", feed="crypto/us")
    assert next(gaps).feed == "crypto/us"
    assert prices.poll() is None
    broker.gap("*", feed="iex")
    gap = next(prices)
    assert isinstance(gap, Gap)
    assert gap.feed == "iex"
