"""A market out of thin air: seeded random walks, one per symbol.

Owns the walks. Invariant: the prices of a symbol depend on the seed and the symbol only; when
they come depends on the caller, who passes the time. It reads no clock. What a walk is made into,
stock, coin or contract, is its `Style`.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from alpaca_broker.simulator.market import PRICE_UNIT, SYMBOL_LIMIT, Quote, Trade, tape_of

UNIVERSE = (
    *("AAPL", "AMD", "AMZN", "BA", "BAC", "C", "COIN", "CSCO", "DIS", "F", "GE", "GM", "GOOG"),
    *("GOOGL", "IBM", "INTC", "IWM", "JNJ", "JPM", "KO", "META", "MSFT", "NFLX", "NVDA", "ORCL"),
    *("PFE", "QQQ", "SPY", "TSLA", "WMT", "XOM"),
)
"""The symbols that "*" stands for, and that the asset list always holds."""

_EXCHANGES = "VPQZNKD"
_CENT = PRICE_UNIT // 100
_BURST_LIMIT_S = 1.0  # after a stall the market goes on; it does not catch up
STEPS = (-2, -1, -1, 0, 0, 0, 1, 1, 2)


@dataclass
class Walk:
    """One symbol's way: its price now, the smallest step, the id of its last trade."""

    symbol: str
    random: random.Random
    price: int
    step: int
    trades: int = 0
    owed_trades: float = field(default=0.0)
    owed_quotes: float = field(default=0.0)

    def move(self) -> int:
        """Take a step; the new price, which never falls below one step."""
        self.price = max(self.step, self.price + self.random.choice(STEPS) * self.step)
        self.trades += 1
        return self.price


class Style(Protocol):
    """How a walk shows itself."""

    def walk(self, symbol: str, source: random.Random) -> Walk:
        """Begin somewhere."""

    def trade(self, walk: Walk, now_ns: int) -> Trade:
        """The next trade."""

    def quote(self, walk: Walk, now_ns: int) -> Quote:
        """The quote at this price.

        Derived from the price alone: a random draw would make the prices depend on how trades
        and quotes interleave.
        """


class Stocks:
    """Shares, in cents."""

    def walk(self, symbol: str, source: random.Random) -> Walk:
        """Between 10 and 400 dollars."""
        price = source.randrange(10, 400) * PRICE_UNIT + source.randrange(100) * _CENT
        return Walk(symbol, source, price, _CENT)

    def trade(self, walk: Walk, now_ns: int) -> Trade:
        """Mostly round lots."""
        price = walk.move()
        size = walk.random.choice((1, 10, 50, 100, 100, 100, 200, 500))
        exchange = walk.random.choice(_EXCHANGES)
        return Trade(walk.symbol, now_ns, walk.trades, exchange, price, size, tape_of(walk.symbol))

    def quote(self, walk: Walk, now_ns: int) -> Quote:
        """A few cents wide."""
        spread = _CENT * (1 + walk.price // _CENT % 3)
        bid = max(_CENT, walk.price - spread)
        return Quote(
            *(walk.symbol, now_ns, "V", bid, 100, "V", walk.price + spread, 200),
            tape=tape_of(walk.symbol),
        )


class SyntheticMarket:
    """Trades and quotes for whatever symbols are wanted, `rate` trades a second each."""

    def __init__(self, seed: int | str, rate: float, style: Style | None = None) -> None:
        self._seed = seed
        self._rate = rate
        self._style = style or Stocks()
        self._walks: dict[str, Walk] = {}

    def price(self, symbol: str) -> int:
        """The symbol's price now, invented if nobody asked before."""
        return self.walk(symbol).price

    def advance(
        self, symbols: Collection[str], now_ns: int, passed_s: float
    ) -> list[Trade | Quote]:
        """What happens to the symbols in the `passed_s` seconds that end now."""
        passed_s = min(passed_s, _BURST_LIMIT_S)
        style = self._style
        events: list[Trade | Quote] = []
        for symbol in symbols:
            if symbol not in self._walks and len(self._walks) >= SYMBOL_LIMIT:
                continue
            walk = self.walk(symbol)
            walk.owed_trades += self._rate * passed_s
            walk.owed_quotes += 2 * self._rate * passed_s
            while walk.owed_quotes >= 1 or walk.owed_trades >= 1:
                if walk.owed_quotes >= 1:
                    walk.owed_quotes -= 1
                    events.append(style.quote(walk, now_ns))
                if walk.owed_trades >= 1 and walk.owed_trades * 2 >= walk.owed_quotes:
                    walk.owed_trades -= 1
                    events.append(style.trade(walk, now_ns))
        return events

    def walk(self, symbol: str) -> Walk:
        """The symbol's walk, begun if nobody asked before."""
        if (walk := self._walks.get(symbol)) is None:
            # A text seeds the same on every run and machine, unlike hash().
            source = random.Random(f"{self._seed}:{symbol}")  # noqa: S311 - not for secrets
            walk = self._walks[symbol] = self._style.walk(symbol, source)
            walk.owed_trades = source.random()
        return walk
