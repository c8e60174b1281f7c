"""All market data of the simulator: the venues, what they say, and what a test makes them say.

Owns the venues and the memory of what was said besides trades, quotes and bars. Invariant: what a
client could have heard of a symbol is in the ledger, as far back as its bound reaches. It opens no
sockets and moves nothing by itself; the pulse and the replay do.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from alpaca_broker.simulator import said
from alpaca_broker.simulator.codec import message_of, rfc3339
from alpaca_broker.simulator.feeds import FEEDS, Kind, venue_of
from alpaca_broker.simulator.instruments import instrument_of
from alpaca_broker.simulator.market import (
    COIN_UNIT,
    MINUTE_NS,
    PRICE_UNIT,
    SYMBOL_LIMIT,
    Bar,
    Batches,
    CryptoBar,
    Market,
    Trade,
)
from alpaca_broker.simulator.market_session import MarketSession, Topic
from alpaca_broker.simulator.market_stream import MarketHub
from alpaca_broker.simulator.newsroom import Newsroom
from alpaca_broker.simulator.options import SimulatorOptions
from alpaca_broker.simulator.subscriptions import CHANNEL_OF
from alpaca_broker.simulator.synthetic import UNIVERSE
from alpaca_broker.simulator.venue import Venue
from alpaca_broker.simulator.venues import venues


class Matching(Protocol):
    """What hears the trades that orders wait for."""

    def on_trades(self, symbol: str, trades: Sequence[Trade]) -> None:
        """Hear trades in dollars and shares."""


class MarketData:
    """The venues by name, and everything said on them.

    Args:
        options: Seed, rates and bounds.
        hub: Where messages go.
        clock: Nanoseconds since 1970, as the simulator pretends.
        matching: Hears every trade that may fill an order.
        replayed: Whether stock trades come from files.
    """

    def __init__(
        self,
        options: SimulatorOptions,
        hub: MarketHub,
        clock: Callable[[], int],
        matching: Matching,
        *,
        replayed: bool,
    ) -> None:
        self._options = options
        self._hub = hub
        self._clock = clock
        self._said: dict[tuple[str, str], deque[dict[str, Any]]] = {}
        self.articles: deque[dict[str, Any]] = deque(maxlen=options.said_limit)
        self.newsroom = Newsroom(options.seed, options.news_per_min, UNIVERSE)
        self.venues = venues(options, clock(), matching.on_trades, replayed=replayed)
        hub.on_added = self._added
        hub.on_left = lambda venue, topics: self.venues[venue].left(topics, time.monotonic())

    @property
    def stocks(self) -> Market:
        """The memory of the stock feeds."""
        return self.venues["stocks"].market

    def first_price(self, symbol: str) -> int | None:
        """The price of a symbol that never traded, None if nobody can invent it.

        In units of the market where orders for it are filled.
        """
        source = self.venues[instrument_of(symbol).venue].synthetic
        return source.price(symbol) if source else None

    def emit(self, feed: str, message: Mapping[str, Any]) -> int:
        """Send one message of any kind to the sessions of a feed that want it; how many did.

        A venue's name, such as "stocks", means all of its feeds; so it does below. Times may be
        left out (now), or be RFC3339 texts. Trades move the price that orders see, and trades and
        quotes are remembered. A message with an unknown `T` goes to every authenticated session.
        """
        venue = self.venues[venue_of(feed)]
        full = dict(message)
        now = self.now()
        for name in ("created_at", "updated_at") if full.get("T") == "n" else ("t",):
            if "T" in full:
                full.setdefault(name, now)
        self._remember(venue, full)
        return self._hub.emit(feed, full) if feed in FEEDS else self._hub.tell(feed, full)

    def correct(
        self,
        feed: str,
        symbol: str,
        *,
        price: float | None = None,
        size: int | None = None,
        trade_id: int | None = None,
    ) -> int:
        """Correct a trade, the newest one unless told which; how many sessions heard of it."""
        market, trade = self._trade(feed, symbol, trade_id)
        corrected = msgspec.structs.replace(
            trade,
            id=trade.id + 10**9,
            price=trade.price if price is None else round(price * PRICE_UNIT),
            size=trade.size if size is None else size,
        )
        market.amend(trade, "incorrect", corrected)
        return self.emit(feed, said.correction(trade, corrected, self._clock()))

    def cancel_trade(
        self, feed: str, symbol: str, *, trade_id: int | None = None, action: str = "C"
    ) -> int:
        """Take a trade back, the newest one unless told which; how many sessions heard of it."""
        market, trade = self._trade(feed, symbol, trade_id)
        market.amend(trade, "canceled")
        return self.emit(feed, said.cancellation(trade, action, self._clock()))

    def halt(self, feed: str, symbol: str) -> int:
        """Say that a symbol is halted; until it is resumed no trades of it are invented."""
        self.venues[venue_of(feed)].halt(symbol)
        return self.emit(feed, said.status(symbol, said.HALTED, self._clock()))

    def resume(self, feed: str, symbol: str) -> int:
        """Say that a symbol trades again."""
        self.venues[venue_of(feed)].halt(symbol, halted=False)
        return self.emit(feed, said.status(symbol, said.RESUMED, self._clock()))

    def band(
        self, feed: str, symbol: str, up: float | None = None, down: float | None = None
    ) -> int:
        """Say between which limits a symbol may trade, around its price unless given."""
        return self.emit(feed, said.band(symbol, self._price(symbol), self._clock(), up, down))

    def bands(self, symbols: Sequence[str]) -> list[dict[str, Any]]:
        """The limits of these symbols now."""
        now_ns = self._clock()
        return [said.band(symbol, self._price(symbol), now_ns) for symbol in symbols]

    def update_bar(self, feed: str, symbol: str, *, size: int = 100) -> int:
        """Let a trade of a minute that is over come late: its bar is sent once more, as `u`.

        Makes a bar of the minute before when there is none. How many sessions heard of it.
        """
        venue = self.venues[venue_of(feed)]
        bars = venue.market.bars.get(symbol)
        if not bars:
            venue.market.add_bar(self._flat_bar(venue, symbol))
            bars = venue.market.bars[symbol]
        bar = bars[-1]
        unit = COIN_UNIT if venue.kind is Kind.CRYPTO else 1
        bar.merge(
            msgspec.structs.replace(
                bar, volume=size * unit, turnover=size * unit * bar.close, trades=1
            ),
            late=True,
        )
        return self.emit(feed, message_of(msgspec.structs.replace(bar, kind="u")))

    def publish(self, symbols: Sequence[str], headline: str, **more: Any) -> int:
        """Publish a news article; `more` replaces any of its fields. How many sessions got it."""
        return self.emit("news", self.newsroom.article(symbols, self._clock(), headline) | more)

    def reset_book(self, feed: str, symbol: str) -> int:
        """Send the whole order book of a pair once more, with `r` true."""
        book = self.venues[venue_of(feed)].book(symbol)
        return self.emit(feed, book.snapshot()) if book else 0

    def ledger(self, feed: str, symbol: str, channel: str = "trades") -> list[dict[str, Any]]:
        """What was said of a symbol behind a feed, oldest first, as the JSON stream shows it.

        Said while nobody listened, too. Corrections and cancellations are under "trades" only as
        messages of their own: ask for "corrections" and "cancelErrors".
        """
        venue = self.venues[venue_of(feed)]
        if channel == "trades":
            amended, trades = venue.market.amended, venue.market.trades.get(symbol, ())
            # What a correction puts in a trade's place was never said as a trade.
            said_ones = (t for t in trades if amended.get((symbol, t.id)) != "corrected")
            return [message_of(trade) for trade in said_ones]
        if channel in ("quotes", "bars"):
            return [message_of(record) for record in getattr(venue.market, channel).get(symbol, ())]
        return [
            message
            for message in self._said.get((venue.name, symbol), ())
            if _channel(message) == channel
        ]

    def now(self) -> str:
        """The time it is, as messages say it."""
        return rfc3339(self._clock())

    def happen(self, kind: str, symbol: str) -> None:
        """Let an incident befall a stock, on all feeds, if there is a trade or a bar for it."""
        befall: dict[str, Callable[[str, str], int]] = {
            **{"correct": self.correct, "cancel_trade": self.cancel_trade},
            **{"update_bar": self.update_bar, "halt": self.halt, "resume": self.resume},
        }
        if kind != "update_bar" or self.stocks.bars.get(symbol):
            with contextlib.suppress(ValueError):
                befall[kind]("stocks", symbol)

    def jump(self) -> None:
        """Hear that the pretended time was set."""
        for venue in self.venues.values():
            if venue.synthetic is not None:  # a replay has times of its own
                venue.market.jump()

    def _remember(self, venue: Venue, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(ValueError, TypeError, KeyError):  # a test may send a broken one
            if record := said.record_of(message, venue.kind):
                venue.market.absorb(Batches([record]), with_bars=False)
                return
        if message.get("T") == "n" and {"id", "symbols", "updated_at"} <= message.keys():
            self.articles.append(dict(message))
        for symbol in message.get("symbols") or (message.get("S"),):
            place = (venue.name, str(symbol))
            if place not in self._said and len(self._said) >= SYMBOL_LIMIT:
                continue
            self._said.setdefault(place, deque(maxlen=self._options.said_limit)).append(
                dict(message)
            )

    def _trade(self, feed: str, symbol: str, trade_id: int | None) -> tuple[Market, Trade]:
        market = self.venues[venue_of(feed)].market
        if (trade := market.find_trade(symbol, trade_id)) is None:
            raise ValueError(f"no such trade of {symbol} is remembered")
        return market, trade

    def _price(self, symbol: str) -> int:
        trade = self.stocks.find_trade(symbol, None)
        return trade.price if trade else self.first_price(symbol) or 100 * PRICE_UNIT

    def _flat_bar(self, venue: Venue, symbol: str) -> Bar:
        trade = venue.market.find_trade(symbol, None)
        price = trade.price if trade else self._price(symbol)
        minute = self._clock() // MINUTE_NS * MINUTE_NS - MINUTE_NS
        shape = CryptoBar if venue.kind is Kind.CRYPTO else Bar
        return shape(symbol, minute, price, price, price, price, 100, 100 * price, 1)

    def _added(self, session: MarketSession, added: frozenset[Topic]) -> None:
        venue = self.venues[session.feed.venue]
        for symbol in sorted(venue.named(added, "orderbooks")):
            if book := venue.book(symbol):
                stamped = book.snapshot() | {"t": self.now()}
                self._hub.hand(session, stamped)


def _channel(message: Mapping[str, Any]) -> str | None:
    implicit = {"c": "corrections", "x": "cancelErrors"}
    kind = str(message.get("T"))
    return implicit.get(kind) or CHANNEL_OF.get(kind)
