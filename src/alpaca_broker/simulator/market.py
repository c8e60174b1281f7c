"""What the simulated market says: trades, quotes and bars, and its recent past.

Owns the record types, the bounded history per symbol and the bars under construction.
Invariant: a price is an integer count of 1/10,000 dollar, a time is nanoseconds since 1970 UTC.
It does no I/O and reads no clock.
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
HISTORY_LIMIT = 10_000
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


class Bar(msgspec.Struct, gc=False):
    """A bar; `kind` is its message type: b (minute) or d (day so far)."""

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
        return "dailyBars" if self.kind == "d" else "bars"

    def merge(self, later: "Bar") -> None:
        """Take in trades that came after all others."""
        self.high = max(self.high, later.high)
        self.low = min(self.low, later.low)
        self.close = later.close
        self.volume += later.volume
        self.turnover += later.turnover
        self.trades += later.trades


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

    def __init__(self, on_trades: Callable[[str, Sequence[Trade]], None]) -> None:
        self.trades: dict[str, deque[Trade]] = {}
        self.quotes: dict[str, deque[Quote]] = {}
        self.bars: dict[str, deque[Bar]] = {}
        self.forgotten_symbols = 0
        self._on_trades = on_trades
        self._minutes: dict[str, Bar] = {}
        self._days: dict[str, Bar] = {}
        self._done: list[Bar] = []

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

    def _build(self, symbol: str, batch: Sequence[Trade]) -> None:
        first, last = batch[0].ns // MINUTE_NS, batch[-1].ns // MINUTE_NS
        if first != last:
            for trade in batch:
                self._build(symbol, (trade,))
            return
        minute = first * MINUTE_NS
        news = _summary(symbol, minute, batch)
        bar = self._minutes.get(symbol)
        if bar is not None and bar.ns < minute:
            self._finish(symbol)
            bar = None
        if bar is None:
            self._minutes[symbol] = news
        elif bar.ns == minute:  # a late trade changes no bar: updated bars are not simulated
            bar.merge(news)
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

    def _ring(self, rings: dict[str, deque[RecordT]], symbol: str) -> deque[RecordT] | None:
        if (ring := rings.get(symbol)) is None:
            if len(rings) >= SYMBOL_LIMIT:
                self.forgotten_symbols += 1
                return None
            ring = rings[symbol] = deque(maxlen=HISTORY_LIMIT)
        return ring


@lru_cache(maxsize=4096)
def _midnight(ns: int) -> int:
    """The start of a day bar: midnight in New York [I]."""
    moment = datetime.fromtimestamp(ns // 10**9, _NEW_YORK)
    return int(datetime.combine(moment, time.min, _NEW_YORK).timestamp()) * 10**9


def _summary(symbol: str, ns: int, batch: Sequence[Trade]) -> Bar:
    prices, sizes = [trade.price for trade in batch], [trade.size for trade in batch]
    turnover = sum(map(mul, prices, sizes))
    return Bar(
        *(symbol, ns, prices[0], max(prices), min(prices), prices[-1]),
        *(sum(sizes), turnover, len(batch)),
    )
