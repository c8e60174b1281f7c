"""The order books of one feed as they stand, so that whoever comes later gets them whole.

Owns the levels: Alpaca sends a book whole once, when it is subscribed, and its changes from then
on. Bounded: what is beyond has no book here, and only its changes are told. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from alpaca_broker.core.market_data import Level, Orderbook

MOST_BOOKS = 1_000
MOST_LEVELS = 5_000  # of one side


class Book:
    """Price -> size, of both sides."""

    __slots__ = ("asks", "at", "bids")

    def __init__(self, at: datetime) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.at = at


class Books:
    """Every book of which the beginning was seen."""

    def __init__(self) -> None:
        self._books: dict[str, Book] = {}

    @property
    def symbols(self) -> Collection[str]:
        """Whose book is known."""
        return self._books.keys()

    def take(self, change: Orderbook) -> None:
        """A change of a book; or all of it, which replaces what was known."""
        if change.r:
            self._books.pop(change.S, None)
            if len(self._books) < MOST_BOOKS:
                self._books[change.S] = Book(change.t)
        book = self._books.get(change.S)
        if book is None:
            return
        book.at = change.t
        for side, levels in ((book.bids, change.b), (book.asks, change.a)):
            for level in levels or ():
                if level.s:
                    side[level.p] = level.s
                else:
                    side.pop(level.p, None)
            if len(side) > MOST_LEVELS:
                self._books.pop(change.S, None)

    def whole(self, symbol: str) -> Orderbook | None:
        """All of a book, the best prices first, where it is known."""
        book = self._books.get(symbol)
        if book is None:
            return None
        bids = [Level(p, book.bids[p]) for p in sorted(book.bids, reverse=True)]
        asks = [Level(p, book.asks[p]) for p in sorted(book.asks)]
        return Orderbook(symbol, book.at, bids, asks, True)

    def forget(self, symbols: Iterable[str]) -> None:
        """These are no longer what Alpaca has: not subscribed, or a change was missed."""
        for symbol in list(symbols):
            self._books.pop(symbol, None)
