"""The channels of everything but trades: `seq`, the prepared commands, and Alpaca's words as ours.

Owns what happens to a quote, a bar, a halt, a correction, an article or a book between decoding and
Redis. As for trades, nothing waits and nothing is built that is not published. Runs in the price
producer's loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from itertools import islice
from time import time
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct

from alpaca_broker.alpaca.rest import PastBar
from alpaca_broker.bus.pipe import publish_head
from alpaca_broker.bus.publisher import Publisher
from alpaca_broker.core import channels as names
from alpaca_broker.core.books import Books
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.feeds import CONTENT, EVERY, Topic
from alpaca_broker.core.market_data import (
    Band,
    Bar,
    Cancel,
    Correction,
    DailyBar,
    Data,
    HaltStatus,
    Level,
    News,
    OptionQuote,
    Orderbook,
    Quote,
    UpdatedBar,
)
from alpaca_broker.core.messages import (
    BarUpdate,
    NewsItem,
    OrderbookUpdate,
    PrintedTrade,
    QuoteUpdate,
    TradeCancel,
    TradeCorrection,
    TradingStatus,
)
from alpaca_broker.market.conflation import Conflation
from alpaca_broker.market.price_lanes import MOST_LANES
from alpaca_broker.market.trade_frames import Lane

log = logging.getLogger(__name__)

BOOK_AGAIN_S = 1.0  # at most so often is a book told whole
MOST_CONTENT = 10_000_000  # characters of one article, on all its channels together
MOST_NAMED = 1_000  # symbols of one article that are looked at


class MarketLanes:
    """Every channel of one feed but its prices."""

    def __init__(
        self,
        feed: str,
        channels: Channels,
        publisher: Publisher,
        is_wanted: Callable[[Topic], bool],
    ) -> None:
        self._feed, self._channels, self._is_wanted = feed, channels, is_wanted
        self._publisher, self._publish = publisher, publisher.publish
        self._encode = msgspec.json.Encoder().encode
        self._lanes: dict[str, dict[str, Lane]] = {kind: {} for kind in names.MARKET_DATA}
        self._quotes = self._lanes[names.QUOTE]
        self.kept: Conflation[Quote | OptionQuote] = Conflation(self._say_quote)
        self.books = Books()
        self._owed: dict[str, None] = {}  # books that are to be told whole
        self._told_at: dict[str, float] = {}
        self.left_out = 0  # by a full buffer: what cannot be replaced by something newer
        self.epoch = 0
        self.messages = 0
        self.turned_away = 0
        self._ways: dict[type[Struct], Callable[[Any, float], None]] = {
            Quote: self._quote,
            OptionQuote: self._quote,
            Bar: self._bar,
            UpdatedBar: self._bar,
            DailyBar: self._bar,
            HaltStatus: self._halt,
            Band: self._band,
            Correction: self._correction,
            Cancel: self._cancel,
            Orderbook: self._orderbook,
            News: self._news,
        }

    def publish(self, message: Data, received_at: float) -> None:
        """Publish one message on its channel."""
        self._ways[type(message)](message, received_at)

    def _quote(self, quote: Quote | OptionQuote, received_at: float) -> None:
        if self._publisher.behind:
            self.kept.keep(quote.S, quote, received_at)
        else:
            self._say_quote(quote, received_at)

    def _say_quote(self, quote: Quote | OptionQuote, received_at: float, skipped: int = 0) -> None:
        lane = self._quotes.get(quote.S) or self._lane(names.QUOTE, quote.S)
        if lane is None:
            return
        lane.seq += 1
        self.messages += 1
        update = QuoteUpdate(
            quote.S,
            quote.bp,
            quote.bs,
            quote.bx,
            quote.ap,
            quote.as_,
            quote.ax,
            quote.c,
            quote.t.timestamp(),
            self._feed,
            received_at,
            lane.seq,
            self.epoch,
            skipped or UNSET,
        )
        self._publish(lane.head, self._encode(update))

    def _bar(self, bar: Bar, received_at: float) -> None:
        self._say_bar(bar.S, bar, received_at)

    def backfill_bar(self, symbol: str, bar: PastBar) -> None:
        """Publish a minute bar that was recovered after a gap."""
        self._say_bar(symbol, bar, round(time(), 6), "backfill")

    def _say_bar(
        self,
        symbol: str,
        bar: Bar | PastBar,
        received_at: float,
        source: Literal["stream", "backfill"] = "stream",
    ) -> None:
        def build(seq: int) -> BarUpdate:
            return BarUpdate(
                symbol=symbol,
                timeframe="1Day" if isinstance(bar, DailyBar) else "1Min",
                updated=isinstance(bar, UpdatedBar),
                open=bar.o,
                high=bar.h,
                low=bar.l,
                close=bar.c,
                volume=bar.v,
                vwap=bar.vw,
                trade_count=bar.n,
                timestamp=bar.t.timestamp(),
                feed=self._feed,
                received_at=received_at,
                seq=seq,
                epoch=self.epoch,
                source=source,
            )

        self._say(names.BAR, symbol, build)

    def _halt(self, status: HaltStatus, received_at: float) -> None:
        def build(seq: int) -> TradingStatus:
            return TradingStatus(
                status.S,
                *(status.t.timestamp(), self._feed, received_at, seq, self.epoch),
                status_code=status.sc,
                status_message=status.sm,
                reason_code=status.rc,
                reason_message=status.rm,
            )

        self._say(names.TRADING_STATUS, status.S, build)

    def _band(self, band: Band, received_at: float) -> None:
        def build(seq: int) -> TradingStatus:
            return TradingStatus(
                band.S,
                *(band.t.timestamp(), self._feed, received_at, seq, self.epoch),
                limit_up=band.u,
                limit_down=band.d,
                indicator=band.i,
            )

        self._say(names.TRADING_STATUS, band.S, build)

    def _correction(self, c: Correction, received_at: float) -> None:
        def build(seq: int) -> TradeCorrection:
            return TradeCorrection(
                c.S,
                PrintedTrade(c.op, c.os, c.x, c.oc, c.oi),
                PrintedTrade(c.cp, c.cs, c.x, c.cc, c.ci),
                *(c.t.timestamp(), self._feed, received_at, seq, self.epoch),
            )

        if self._is_asked_for("corrections", c.S):
            self._say(names.CORRECTION, c.S, build)

    def _cancel(self, cancel: Cancel, received_at: float) -> None:
        def build(seq: int) -> TradeCancel:
            return TradeCancel(
                cancel.S,
                PrintedTrade(cancel.p, cancel.s, cancel.x, None, cancel.i),
                cancel.a,
                *(cancel.t.timestamp(), self._feed, received_at, seq, self.epoch),
            )

        if self._is_asked_for("corrections", cancel.S):
            self._say(names.CORRECTION, cancel.S, build)

    def show_books(self, symbols: Collection[str]) -> None:
        """Somebody begins to listen to these, or missed some: tell what is known, whole."""
        known = self.books.symbols
        self._owed |= dict.fromkeys(
            known if EVERY in symbols else (s for s in symbols if s in known)
        )

    def tick(self, now: float) -> None:
        """Tell what is owed, each book once in a while."""
        if not self._owed or self._publisher.is_full:
            return
        for symbol in list(self._owed):
            if now - self._told_at.get(symbol, float("-inf")) < BOOK_AGAIN_S:
                continue
            del self._owed[symbol]
            if (book := self.books.whole(symbol)) is not None:
                self._told_at[symbol] = now
                self._say_book(book, round(time(), 6))

    def keep_books(self, symbols: frozenset[str]) -> None:
        """Only of these, or of all, do changes come."""
        if EVERY not in symbols:
            gone = [symbol for symbol in self.books.symbols if symbol not in symbols]
            self.books.forget(gone)
            for symbol in gone:
                self._told_at.pop(symbol, None)

    def _orderbook(self, book: Orderbook, received_at: float) -> None:
        self.books.take(book)
        self._say_book(book, received_at)

    def _say_book(self, book: Orderbook, received_at: float) -> None:
        def build(seq: int) -> OrderbookUpdate:
            return OrderbookUpdate(
                book.S,
                _levels(book.b),
                _levels(book.a),
                book.r,
                *(book.t.timestamp(), self._feed, received_at, seq, self.epoch),
            )

        if not self._say(names.ORDERBOOK, book.S, build):
            self._owed[book.S] = None

    def _news(self, news: News, received_at: float) -> None:
        """An article goes to each of its symbols that somebody wants, and to `*`."""
        about = dict.fromkeys((EVERY, *islice(news.symbols or (), MOST_NAMED)))
        wanted = [symbol for symbol in about if self._is_wanted(("news", symbol))]
        if len(news.content or "") * len(wanted) > MOST_CONTENT:
            news = msgspec.structs.replace(news, content=None)  # `url` leads to it
        for symbol in wanted:
            self._say(names.NEWS, symbol, self._article(news, symbol, received_at))

    def _article(self, news: News, symbol: str, received_at: float) -> Callable[[int], NewsItem]:
        created_at = news.created_at.timestamp()
        updated_at = created_at if news.updated_at is None else news.updated_at.timestamp()

        def build(seq: int) -> NewsItem:
            return NewsItem(
                symbol=symbol,
                id=news.id,
                headline=news.headline,
                summary=news.summary,
                author=news.author,
                url=news.url,
                symbols=news.symbols or [],
                created_at=created_at,
                updated_at=updated_at,
                timestamp=updated_at,
                feed=self._feed,
                received_at=received_at,
                seq=seq,
                epoch=self.epoch,
                source=news.source,
                content=news.content if self._is_wanted((CONTENT, symbol)) else UNSET,
            )

        return build

    def _is_asked_for(self, kind: str, symbol: str) -> bool:
        return self._is_wanted((kind, symbol)) or self._is_wanted((kind, EVERY))

    def _say(self, kind: str, symbol: str, build: Callable[[int], Struct]) -> bool:
        """Publish it; whether there was room for it."""
        lane = self._lanes[kind].get(symbol) or self._lane(kind, symbol)
        if lane is None:
            return True
        if self._publisher.behind and self._publisher.is_full:
            self.left_out += 1
            return False
        lane.seq += 1
        self.messages += 1
        self._publish(lane.head, self._encode(build(lane.seq)))
        return True

    def _lane(self, kind: str, symbol: str) -> Lane | None:
        lanes = self._lanes[kind]
        if len(lanes) >= MOST_LANES:
            if not self.turned_away:
                log.error(
                    "%s feed: more than %d symbols have come on %s: nothing of %s, nor of any "
                    "other new one, is published there until a restart",
                    *(self._feed, MOST_LANES, kind, symbol),
                )
            self.turned_away += 1
            return None
        lane = lanes[symbol] = Lane(publish_head(self._channels.market_data(kind, symbol)))
        return lane


def _levels(levels: list[Level] | None) -> list[list[float]]:
    return [[level.p, level.s] for level in levels or ()]
