"""A market out of thin air: seeded random walks, one per symbol.

Owns the walks. Invariant: the prices of a symbol depend on the seed and the symbol only; when
they come depends on the caller, who passes the time. It reads no clock.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass, field

from alpaca_broker.simulator.market import PRICE_UNIT, SYMBOL_LIMIT, Quote, Trade, tape_of

UNIVERSE = (
    *("AAPL", "AMD", "AMZN", "BA", "BAC", "C", "COIN", "CSCO", "DIS", "F", "GE", "GM", "GOOG"),
    *("GOOGL", "IBM", "INTC", "IWM", "JNJ", "JPM", "KO", "META", "MSFT", "NFLX", "NVDA", "ORCL"),
    *("PFE", "QQQ", "SPY", "TSLA", "WMT", "XOM"),
)
"""The symbols that "*" stands for, and that the asset list always holds."""

TEST_SYMBOL = "FAKEPACA"
_EXCHANGES = "VPQZNKD"
_CENT = PRICE_UNIT // 100
_BURST_LIMIT_S = 1.0  # after a stall the market goes on; it does not catch up


@dataclass
class _Walk:
    symbol: str
    random: random.Random
    price: int
    trades: int = 0
    owed_trades: float = field(default=0.0)
    owed_quotes: float = field(default=0.0)


class SyntheticMarket:
    """Trades and quotes for whatever symbols are wanted, `rate` trades a second each."""

    def __init__(self, seed: int, rate: float) -> None:
        self._seed = seed
        self._rate = rate
        self._walks: dict[str, _Walk] = {}

    def price(self, symbol: str) -> int:
        """The symbol's price now, invented if nobody asked before."""
        return self._walk(symbol).price

    def advance(
        self, symbols: Collection[str], now_ns: int, passed_s: float
    ) -> list[Trade | Quote]:
        """What happens to the symbols in the `passed_s` seconds that end now."""
        passed_s = min(passed_s, _BURST_LIMIT_S)
        events: list[Trade | Quote] = []
        for symbol in symbols:
            if symbol not in self._walks and len(self._walks) >= SYMBOL_LIMIT:
                continue
            walk = self._walk(symbol)
            walk.owed_trades += self._rate * passed_s
            walk.owed_quotes += 2 * self._rate * passed_s
            while walk.owed_quotes >= 1 or walk.owed_trades >= 1:
                if walk.owed_quotes >= 1:
                    walk.owed_quotes -= 1
                    events.append(_quote(walk, now_ns))
                if walk.owed_trades >= 1 and walk.owed_trades * 2 >= walk.owed_quotes:
                    walk.owed_trades -= 1
                    events.append(_trade(walk, now_ns))
        return events

    def _walk(self, symbol: str) -> _Walk:
        if (walk := self._walks.get(symbol)) is None:
            # A text seeds the same on every run and machine, unlike hash().
            source = random.Random(f"{self._seed}:{symbol}")  # noqa: S311 - not for secrets
            price = source.randrange(10, 400) * PRICE_UNIT + source.randrange(100) * _CENT
            walk = self._walks[symbol] = _Walk(symbol, source, price, owed_trades=source.random())
        return walk


def _trade(walk: _Walk, now_ns: int) -> Trade:
    step = walk.random.choice((-2, -1, -1, 0, 0, 0, 1, 1, 2)) * _CENT
    walk.price = max(_CENT, walk.price + step)
    walk.trades += 1
    size = walk.random.choice((1, 10, 50, 100, 100, 100, 200, 500))
    exchange = walk.random.choice(_EXCHANGES)
    return Trade(walk.symbol, now_ns, walk.trades, exchange, walk.price, size, tape_of(walk.symbol))


def _quote(walk: _Walk, now_ns: int) -> Quote:
    # Derived from the price alone: a random draw would make the prices depend on how trades and
    # quotes interleave.
    spread = _CENT * (1 + walk.price // _CENT % 3)
    bid = max(_CENT, walk.price - spread)
    return Quote(
        *(walk.symbol, now_ns, "V", bid, 100, "V", walk.price + spread, 200),
        tape=tape_of(walk.symbol),
    )
