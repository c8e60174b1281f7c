"""What the simulated market says: trades, quotes and bars, and its recent past.

Owns the record types, the bounded history per symbol and the bars under construction.
Invariant: a price is an integer count of 1/10,000 dollar (crypto: prices and sizes count
billionths), a time is nanoseconds since 1970 UTC. It does no I/O and reads no clock.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, time
from functools import lru_cache
from operator import mul
from typing import ClassVar, TypeVar
from zoneinfo import ZoneInfo

import msgspec

MINUTE_NS = 60 * 10**9
PRICE_UNIT = 10_000
COIN_UNIT = 10**9
HISTORY_LIMIT = 10_000
AMENDMENT_LIMIT = 10_000
SYMBOL_LIMIT = 20_000  # more distinct symbols than US stocks have; the rest is not remembered

_NEW_YORK = ZoneInfo("America/New_York")


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade."""

    channel: ClassVar[str] = "trades"
    symbol: str
    ns: int
    id: int
    exchange: str
    price: int
    size: int
    tape: str
    conditions: tuple[str, ...] = ("@",)


class Quote(msgspec.Struct, frozen=True, gc=False):
    """The best bid and offer."""

    channel: ClassVar[str] = "quotes"
    symbol: str
    ns: int
    bid_exchange: str
    bid: int
    bid_size: int
    ask_exchange: str
    ask: int
    ask_size: int
    tape: str
    conditions: tuple[str, ...] = ("R",)


class CryptoTrade(Trade, frozen=True, gc=False):
    """A trade whose price and size are billionths; it has no exchange, tape or conditions."""

    taker: str = "B"


class CryptoQuote(Quote, frozen=True, gc=False):
    """A quote whose prices and sizes are billionths."""


class OptionTrade(Trade, frozen=True, gc=False):
    """A trade of an option contract, with one condition."""


class OptionQuote(Quote, frozen=True, gc=False):
    """The best bid and offer of an option contract, with one condition."""


class Bar(msgspec.Struct, gc=False):
    """A bar; `kind` is its message type: b (minute), u (minute, once more) or d (day so far)."""

    symbol: str
    ns: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    turnover: int
    trades: int
    kind: str = "b"

    @property
    def channel(self) -> str:
        """The channel that carries this bar."""
        return _BAR_CHANNELS[self.kind]

    def merge(self, later: "Bar", *, late: bool = False) -> None:
        """Take in trades that came after all others, or (late) too late to be the close."""
        self.high = max(self.high, later.high)
        self.low = min(self.low, later.low)
        if not late:
            self.close = later.close
        self.volume += later.volume
        self.turnover += later.turnover
        self.trades += later.trades


class CryptoBar(Bar, gc=False):
    """A bar of crypto trades, in billionths."""


_BAR_CHANNELS = {"b": "bars", "u": "updatedBars", "d": "dailyBars"}
Record = Trade | Quote | Bar
RecordT = TypeVar("RecordT", Trade, Quote, Bar)


def tape_of(symbol: str) -> str:
    """The tape a symbol is reported on; a plausible one, the simulator keeps no listing."""
    return "B" if symbol in {"SPY", "IVV", "VOO", "GLD"} else "A"


class Batches:
    """Records that happened together, sorted out by kind and symbol, each in its order."""

    def __init__(self, records: Iterable[Trade | Quote]) -> None:
        self.quotes: list[Quote] = []
        self.trades: dict[str, list[Trade]] = {}
        for record in records:
            if isinstance(record, Quote):
                self.quotes.append(record)
            elif (known := self.trades.get(record.symbol)) is None:
                self.trades[record.symbol] = [record]
            else:
                known.append(record)


class Market:
    """Latest prices, recent history and bars of every symbol that was seen."""

    def __init__(
        self,
        on_trades: Callable[[str, Sequence[Trade]], None] = lambda symbol, trades: None,
        *,
        bar: type[Bar] = Bar,
        history_limit: int = HISTORY_LIMIT,
    ) -> None:
        self.trades: dict[str, deque[Trade]] = {}
        self.quotes: dict[str, deque[Quote]] = {}
        self.bars: dict[str, deque[Bar]] = {}
        self.forgotten_symbols = 0
        self.amended: dict[tuple[str, int], str] = {}
        self._on_trades = on_trades
        self._bar = bar
        self._history_limit = history_limit
        self._minutes: dict[str, Bar] = {}
        self._days: dict[str, Bar] = {}
        self._done: list[Bar] = []
        self._updated: dict[tuple[str, int], Bar] = {}

    def absorb(self, batches: Batches, *, with_bars: bool = True) -> None:
        """Take in trades and quotes that came after all others; build bars of the trades."""
        for quote in batches.quotes:
            if (quote_ring := self._ring(self.quotes, quote.symbol)) is not None:
                quote_ring.append(quote)
        for symbol, trades in batches.trades.items():
            if (trade_ring := self._ring(self.trades, symbol)) is not None:
                trade_ring.extend(trades)
                if with_bars:
                    self._build(symbol, trades)
            self._on_trades(symbol, trades)

    def close_minutes(self, now_ns: int) -> list[Bar]:
        """The bars of all minutes that ended by `now_ns`: minute bars first, then day bars."""
        for symbol in [s for s, bar in self._minutes.items() if bar.ns + MINUTE_NS <= now_ns]:
            self._finish(symbol)
        done, self._done = self._done, []
        days = [self._days[symbol] for symbol in dict.fromkeys(bar.symbol for bar in done)]
        return done + [msgspec.structs.replace(day) for day in days]

    def next_minute_ns(self) -> int | None:
        """When the oldest unfinished minute ends; None without one."""
        starts = [bar.ns for bar in self._minutes.values()]
        return min(starts) + MINUTE_NS if starts else None

    def latest_bar(self, symbol: str) -> Bar | None:
        """The newest minute bar, the unfinished one included."""
        if bar := self._minutes.get(symbol):
            return bar
        ring = self.bars.get(symbol)
        return ring[-1] if ring else None

    def updated_bars(self) -> list[Bar]:
        """The minute bars that late trades changed since the last call [D RTS]."""
        updated, self._updated = self._updated, {}
        return [msgspec.structs.replace(bar, kind="u") for bar in updated.values()]

    def add_bar(self, bar: Bar) -> None:
        """Remember a bar that no trade made."""
        if (ring := self._ring(self.bars, bar.symbol)) is not None:
            ring.append(bar)

    def find_trade(self, symbol: str, trade_id: int | None) -> Trade | None:
        """A trade by its id, or the newest one."""
        ring = self.trades.get(symbol, ())
        return next((t for t in reversed(ring) if trade_id in (None, t.id)), None)

    def amend(self, trade: Trade, how: str, instead: Trade | None = None) -> None:
        """Remember that a trade was canceled or incorrect, and what takes its place."""
        if len(self.amended) >= AMENDMENT_LIMIT:
            del self.amended[next(iter(self.amended))]
        self.amended[trade.symbol, trade.id] = how
        if instead is not None and (ring := self._ring(self.trades, trade.symbol)) is not None:
            ring.append(instead)
            self.amended[instead.symbol, instead.id] = "corrected"

    def jump(self) -> None:
        """Begin anew at another time: what was unfinished stays as it is."""
        for symbol in list(self._minutes):
            self._finish(symbol)
        self._done.clear()
        self._days.clear()
        self._updated.clear()

    def _build(self, symbol: str, batch: Sequence[Trade]) -> None:
        first, last = batch[0].ns // MINUTE_NS, batch[-1].ns // MINUTE_NS
        if first != last:
            for trade in batch:
                self._build(symbol, (trade,))
            return
        minute = first * MINUTE_NS
        news = self._summary(symbol, minute, batch)
        bar = self._minutes.get(symbol)
        if bar is not None and bar.ns < minute:
            self._finish(symbol)
            bar = None
        if bar is None:
            self._minutes[symbol] = news
        elif bar.ns == minute:
            bar.merge(news)
        else:
            self._merge_late(symbol, news)
        midnight = _midnight(minute)
        day = self._days.get(symbol)
        if day is None or day.ns < midnight:
            self._days[symbol] = msgspec.structs.replace(news, ns=midnight, kind="d")
        elif day.ns == midnight:
            day.merge(news)

    def _finish(self, symbol: str) -> None:
        bar = self._minutes.pop(symbol)
        self._done.append(bar)
        if (ring := self._ring(self.bars, symbol)) is not None:
            ring.append(bar)

    def _merge_late(self, symbol: str, news: Bar) -> None:
        for bar in reversed(self.bars.get(symbol, ())):
            if bar.ns <= news.ns:
                if bar.ns == news.ns:
                    bar.merge(news, late=True)
                    self._updated[symbol, bar.ns] = bar
                return

    def _summary(self, symbol: str, ns: int, batch: Sequence[Trade]) -> Bar:
        prices, sizes = [trade.price for trade in batch], [trade.size for trade in batch]
        turnover = sum(map(mul, prices, sizes))
        return self._bar(
            *(symbol, ns, prices[0], max(prices), min(prices), prices[-1]),
            *(sum(sizes), turnover, len(batch)),
        )

    def _ring(self, rings: dict[str, deque[RecordT]], symbol: str) -> deque[RecordT] | None:
        if (ring := rings.get(symbol)) is None:
            if len(rings) >= SYMBOL_LIMIT:
                self.forgotten_symbols += 1
                return None
            ring = rings[symbol] = deque(maxlen=self._history_limit)
        return ring


@lru_cache(maxsize=4096)
def _midnight(ns: int) -> int:
    """The start of a day bar: midnight in New York [I]."""
    moment = datetime.fromtimestamp(ns // 10**9, _NEW_YORK)
    return int(datetime.combine(moment, time.min, _NEW_YORK).timestamp()) * 10**9
