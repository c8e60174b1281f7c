"""What the demo shows, put together from what the bots and the broker say.

Owns no bot and no thread: it reads their books, and keeps only what is needed for rates. Used by
the main thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from alpaca_broker.cli.demo.bots import MomentumBot, WatchingBot
from alpaca_broker.cli.demo.tally import quantile

RATE_OVER_S = 3.0


@dataclass(frozen=True)
class PriceRow:
    """One symbol's line."""

    symbol: str
    last: float | None
    change: float | None
    per_second: float
    count: int
    age_s: float | None
    bots: int


class Board:
    """The bots' books as one picture."""

    def __init__(self, trader: MomentumBot, watchers: Sequence[WatchingBot]) -> None:
        self.orders = trader.orders
        self.status: dict[str, Any] = {}
        self._books = [trader.prices, *(bot.prices for bot in watchers)]
        self.symbols = list(dict.fromkeys(s for book in self._books for s in book.by_symbol))
        self.bots = len(self._books)
        self._began = monotonic()
        self._history: deque[tuple[float, dict[str, int]]] = deque()

    def hear_status(self, message: dict[str, Any], now: float) -> None:
        """Take in a message of `broker:status` (called in its listener's thread)."""
        if message["type"] == "status":
            self.status = message  # replaced whole, so that a reader never sees half of one

    @property
    def seconds(self) -> float:
        """How long the demo has run."""
        return monotonic() - self._began

    @property
    def delivered(self) -> int:
        """Prices over all bots."""
        return sum(book.count for book in self._books)

    @property
    def holes(self) -> int:
        """Prices and order events that `seq` shows to be missing."""
        return sum(book.holes for book in self._books) + self.orders.holes

    def age(self, part: float) -> float | None:
        """A quantile of the time from the broker's receipt to a bot's hands."""
        return quantile([age for book in self._books for age in list(book.ages)], part)

    def rows(self) -> list[PriceRow]:
        """One row for each symbol; where several bots have it, the first one's view."""
        now = monotonic()
        tallies = {
            symbol: [b.by_symbol[symbol] for b in self._books if symbol in b.by_symbol]
            for symbol in self.symbols
        }
        counts = {symbol: of[0].count for symbol, of in tallies.items()}
        self._history.append((now, counts))
        while now - self._history[0][0] > RATE_OVER_S:
            self._history.popleft()
        then, before = self._history[0]
        passed = now - then
        return [
            PriceRow(
                symbol,
                of[0].last,
                of[0].change,
                (counts[symbol] - before[symbol]) / passed if passed > 0.2 else 0.0,
                counts[symbol],
                quantile(list(of[0].recent_ages), 0.5),
                len(of),
            )
            for symbol, of in tallies.items()
        ]
