"""The other kinds of market data: registered for, typed, numbered, and their holes told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from fake_broker import FakeBroker
from support import eventually

from alpaca_broker import AsyncClient, Client
from alpaca_broker.client import (
    BarUpdate,
    Gap,
    News,
    OrderbookUpdate,
    PriceUpdate,
    QuoteUpdate,
    TradeCancel,
    TradeCorrection,
    TradingStatus,
    UsageError,
)
from alpaca_broker.client.inbox import MOST_OTHERS, conflated
from alpaca_broker.client.market_data import CHANNEL_OF, market_data
from alpaca_broker.embedded import EmbeddedRedis

Connect = Callable[..., Client]

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
            async with asyncio.timeout(5):
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


def test_every_kind_has_its_channel() -> None:
    """Those of the contract's registration, besides trades."""
    assert set(CHANNEL_OF.values()) == {
        *("quote:", "bar:", "trading_status:", "correction:", "backfill:", "news:", "orderbook:")
    }


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
