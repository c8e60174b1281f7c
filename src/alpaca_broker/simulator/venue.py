"""One market behind one or more feeds: its prices, its memory, and whose symbols it makes.

Owns which symbols are alive. Invariant: a symbol is alive while somebody is subscribed to it, and
for a while after its last subscriber vanished, so that there is something to have missed. Time
is an argument.
"""

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

from alpaca_broker.simulator.coins import OrderBook
from alpaca_broker.simulator.feeds import Kind
from alpaca_broker.simulator.market import SYMBOL_LIMIT, Market
from alpaca_broker.simulator.subscriptions import STAR
from alpaca_broker.simulator.synthetic import SyntheticMarket

Topic = tuple[str, str]


class Venue:
    """A market and what moves it.

    Args:
        name: What feeds call it.
        kind: What is traded there.
        market: Its memory.
        synthetic: Where its prices come from; None if they come from elsewhere.
        universe: The symbols that "*" stands for.
        takes: Which other symbols exist there.
        absent_s: Seconds a symbol stays alive without a subscriber.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        market: Market,
        synthetic: SyntheticMarket | None,
        universe: Collection[str],
        takes: Callable[[str], bool],
        absent_s: float,
    ) -> None:
        self.name = name
        self.kind = kind
        self.market = market
        self.synthetic = synthetic
        self.universe = universe
        self._takes = takes
        self._absent_s = absent_s
        self._books: dict[str, OrderBook] = {}
        self._left: dict[str, float] = {}
        self._halted: set[str] = set()
        self._topics: frozenset[Topic] | None = None
        self._alive: list[str] = []
        self._next_death = math.inf

    def left(self, topics: Iterable[Topic], now_s: float) -> None:
        """Hear that somebody vanished without unsubscribing from these."""
        for symbol in self.named(topics):
            if symbol in self._left or len(self._left) < SYMBOL_LIMIT:
                self._left[symbol] = now_s + self._absent_s
        self._topics = None

    def halt(self, symbol: str, *, halted: bool = True) -> None:
        """Stop a symbol, or let it go on."""
        if not halted:
            self._halted.discard(symbol)
        elif len(self._halted) < SYMBOL_LIMIT:
            self._halted.add(symbol)
        self._topics = None

    def trading(self, alive: list[str], waited_for: Iterable[str] = ()) -> list[str]:
        """The symbols that may trade, sorted: those alive and those waited for, but no halted."""
        more = set(waited_for)
        if not self._halted and (not more or more <= set(alive)):
            return alive
        return sorted(more.union(alive) - self._halted)

    def alive(self, topics: frozenset[Topic], now_s: float) -> list[str]:
        """The symbols to move on, sorted: who is subscribed to, or was until recently."""
        if topics is not self._topics or now_s >= self._next_death:
            self._left = {s: until for s, until in self._left.items() if until > now_s}
            self._next_death = min(self._left.values(), default=math.inf)
            self._topics = topics
            # Sorted, so that the order of messages does not depend on the hash seed.
            self._alive = sorted(self.named(topics) | self._left.keys())
        return self._alive

    def named(self, topics: Iterable[Topic], channel: str | None = None) -> set[str]:
        """The symbols of these topics that exist here, "*" written out."""
        names = {symbol for c, symbol in topics if channel in (None, c)}
        known = self.known(names)
        return known.union(self.universe) if STAR in names else known

    def known(self, symbols: Iterable[str]) -> set[str]:
        """Those of the symbols that exist here."""
        return {symbol for symbol in symbols if symbol != STAR and self._takes(symbol)}

    def book(self, symbol: str) -> OrderBook | None:
        """The order book of a symbol, opened if nobody asked before; only coins have one."""
        if self.kind is not Kind.CRYPTO or self.synthetic is None:
            return None
        if (book := self._books.get(symbol)) is None and len(self._books) < SYMBOL_LIMIT:
            book = self._books[symbol] = OrderBook(self.synthetic.walk(symbol))
        return book

    def book_updates(self) -> list[dict[str, Any]]:
        """What changed in the open order books since the last call."""
        return [update for book in self._books.values() if (update := book.update())]
