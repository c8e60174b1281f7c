"""The client at the real broker: every kind of market data, of every feed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support import Rig, eventually
from test_client_broker import client_of

from alpaca_broker import AsyncClient
from alpaca_broker.client import (
    BarUpdate,
    Gap,
    News,
    OrderbookUpdate,
    PriceUpdate,
    QuoteUpdate,
    Stream,
    TradeCorrection,
    TradingStatus,
)
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.market import backfill
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread

AT = "2026-01-05T15:00:00.5Z"
OPTION = "AAPL271217C00200000"
COIN = "BTC/USD"


def make(rig: Rig, act: str, *arguments: Any, **more: Any) -> None:
    """Let something happen at the pretended Alpaca, which one connection hears."""
    assert rig.simulator.call(getattr(rig.simulator.simulator.data, act), *arguments, **more) == 1


def say(rig: Rig, feed: str, **message: Any) -> None:
    """Let it say something."""
    make(rig, "emit", feed, message | {"t": AT})


@pytest.fixture
def quiet(valkey: EmbeddedRedis, prefix: str) -> Iterator[Rig]:
    """A broker at an Alpaca that says only what it is told to."""
    options = SimulatorOptions(rate=0.001, news_per_min=0, refused_feeds=frozenset({"news"}))
    with SimulatorThread(options) as simulator, Rig(valkey, simulator, prefix=prefix) as rig:
        yield rig


def test_every_kind_of_stock_data_comes_typed_and_without_holes(quiet: Rig) -> None:
    """Kinds that share a channel share its numbers, and are kept apart all the same."""
    bar = {"S": "AAPL", "o": 1.5, "h": 2, "l": 1, "c": 1.75, "v": 100, "vw": 1.6, "n": 3}
    with client_of(quiet) as client:
        quotes, bars = client.quotes("AAPL"), client.bars("AAPL")
        days = client.updates("AAPL", channels=["dailyBars", "updatedBars"])
        halts = client.updates("AAPL", channels=["statuses"])
        bands = client.updates("AAPL", channels=["lulds"])
        trades = client.updates("AAPL", channels=["trades", "corrections"])
        assert client.wait_ready()
        assert client.rejected == {}
        for bid in (1.5, 1.6, 1.7):
            say(quiet, "iex", T="q", S="AAPL", bp=bid, bs=3, bx="V", ap=2.0, c=["R"], **{"as": 2})
        say(quiet, "iex", T="b", **bar)
        make(quiet, "update_bar", "iex", "AAPL")
        say(quiet, "iex", T="d", **bar)
        make(quiet, "halt", "iex", "AAPL")
        make(quiet, "band", "iex", "AAPL", 9.5, 8.5)
        say(quiet, "iex", T="t", S="AAPL", p=1.5, s=7, c=["@"], i=11, x="V")
        make(quiet, "correct", "iex", "AAPL", price=1.6)
        got = [next(quotes) for _ in range(3)]
        assert [(q.bid_price, q.seq) for q in got if isinstance(q, QuoteUpdate)] == [
            *((1.5, 1), (1.6, 2), (1.7, 3))
        ]
        minute, updated, day = next(bars), next(days), next(days)
        assert isinstance(minute, BarUpdate)
        assert isinstance(updated, BarUpdate)
        assert isinstance(day, BarUpdate)
        assert (minute.seq, minute.close, minute.source) == (1, 1.75, "stream")
        assert (updated.seq, updated.updated, day.seq, day.timeframe) == (2, True, 3, "1Day")
        halt, band = next(halts), next(bands)
        assert isinstance(halt, TradingStatus)
        assert isinstance(band, TradingStatus)
        assert (halt.seq, halt.status_code, band.seq, band.limit_up) == (1, "H", 2, 9.5)
        price, correction = next(trades), next(trades)
        assert isinstance(price, PriceUpdate)
        assert isinstance(correction, TradeCorrection)
        assert correction.original["trade_id"] == price.trade_id == 11
        assert correction.corrected["price"] == 1.6
        assert client.counters.missed == 0


async def test_crypto_options_and_news_come_in_asyncio(valkey: EmbeddedRedis, prefix: str) -> None:
    """Each feed opens with the first wish; a book begins whole; articles come whole on request."""
    with (
        SimulatorThread(SimulatorOptions(rate=0.001, news_per_min=0)) as simulator,
        Rig(valkey, simulator, prefix=prefix) as rig,
    ):
        async with AsyncClient(host="127.0.0.1", port=valkey.port, prefix=prefix) as client:
            quotes = client.quotes(COIN, OPTION, gaps=False)
            books = client.updates(COIN, channels=["orderbooks"])
            news = client.updates("TSLA", channels=["news"], content=True)
            everything = client.updates("*", channels=["news"])
            assert await client.wait_ready()
            assert client.rejected == {}
            book = await anext(books)
            assert isinstance(book, OrderbookUpdate)
            assert (book.snapshot, book.feed) == (True, "crypto/us")
            say(rig, "crypto/us", T="q", S=COIN, bp=64000.5, bs=0.25, ap=64001, **{"as": 1})
            say(rig, "indicative", T="q", S=OPTION, bp=2.4, bs=1, bx="C", ap=2.6, ax="C", c="A")
            make(rig, "publish", ["TSLA"], "Up", content="<p>")
            feeds = {q.symbol: q.feed for q in (await anext(quotes), await anext(quotes))}
            assert feeds == {COIN: "crypto/us", OPTION: "indicative"}
            article, copy = await anext(news), await anext(everything)
            assert isinstance(article, News)
            assert isinstance(copy, News)
            assert (article.headline, article.content, article.symbols) == ("Up", "<p>", ["TSLA"])
            assert (copy.symbol, copy.content, copy.id) == ("*", None, article.id)
            assert client.is_fresh(COIN, ["quotes", "orderbooks"])
            assert client.is_fresh(OPTION)


def test_what_is_refused_is_told_by_kind_and_with_the_reason(quiet: Rig) -> None:
    """Whether Alpaca has no such data, not in this plan, or no such symbols; the rest flows."""
    with client_of(quiet) as client:
        kinds = ["quotes", "orderbooks", "news"]
        updates = client.updates("AAPL", "ibm", channels=kinds)
        assert client.wait_ready()
        refused = client.rejected
        assert set(refused) == {
            *("orderbooks:AAPL", "news:AAPL", "news:ibm"),
            *("quotes:ibm", "orderbooks:ibm"),
        }
        assert "does not have this kind of data (410)" in refused["orderbooks:AAPL"]
        assert "insufficient subscription" in refused["news:AAPL"]
        assert "upper case: IBM (bad_symbol)" in refused["quotes:ibm"]
        say(quiet, "iex", T="q", S="AAPL", bp=1.5, bs=3, bx="V", ap=2.0, c=["R"], **{"as": 2})
        assert isinstance(next(updates), QuoteUpdate)
        assert client.is_fresh("AAPL", ["quotes"])
        assert not client.is_fresh("AAPL")  # of all that was asked for


def until(stream: Stream[Any], kind: type, **facts: Any) -> Any:
    """The next of this kind with these facts."""
    for item in stream:
        if isinstance(item, kind) and all(getattr(item, k) == v for k, v in facts.items()):
            return item
    raise AssertionError("the stream ended")


def test_a_bot_gets_what_its_feed_missed_and_others_hear_nothing_of_it(
    valkey: EmbeddedRedis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crypto is cut: stale until it is back, a gap, the missed trades, and whether that is all."""
    monkeypatch.setattr(backfill, "SETTLES_WITHIN_S", 1.0)
    options = SimulatorOptions(rate=20.0, news_per_min=0)
    with (
        SimulatorThread(options) as simulator,
        Rig(valkey, simulator, prefix=prefix) as rig,
        client_of(rig) as client,
    ):
        coins = client.updates(COIN, channels=["trades", "backfill"])
        stocks = client.prices("AAPL")
        assert client.wait_ready()
        before = until(coins, PriceUpdate)
        eventually(lambda: client.is_fresh(COIN) and client.is_fresh("AAPL"))

        def cut_amid_trades() -> None:
            simulator.simulator.cut("crypto/us")
            simulator.simulator.emit("crypto/us", {"T": "t", "S": COIN, "p": 64_000, "s": 1})

        simulator.call(cut_amid_trades)
        eventually(lambda: not client.is_fresh(COIN))
        assert client.is_fresh("AAPL")
        gap = until(coins, Gap)
        assert (gap.feed, gap.symbols, gap.recovered, gap.again) == (
            *("crypto/us", (COIN,), False, False),
        )
        recovered = until(coins, PriceUpdate, source="backfill")
        assert (recovered.seq, recovered.epoch) == (1, before.epoch)
        assert gap.began - 2 <= recovered.timestamp <= gap.ended
        told = until(coins, Gap)
        assert (told.again, told.recovered) == (True, True)
        assert (told.began, told.ended) == (gap.began, gap.ended)
        assert until(coins, PriceUpdate, source=None).seq > before.seq
        eventually(lambda: client.is_fresh(COIN))
        assert client.counters.missed == 0
        heard = [stocks.poll() for _ in range(client.counters.waiting)]
        assert not [item for item in heard if isinstance(item, Gap)]
