"""Crypto out of thin air: coin prices in billionths, and the order books around them.

Owns the style of a coin's walk and the levels of its book. Invariant: a book's update, applied to
what was shown before, gives the book as it is now; a size of 0 removes a level [D RTC]. Pure.
"""

import random
from collections.abc import Mapping
from typing import Any

from alpaca_broker.simulator.market import COIN_UNIT, CryptoQuote, CryptoTrade
from alpaca_broker.simulator.synthetic import Walk

COINS = (
    *("AAVE/USD", "AVAX/USD", "BCH/USD", "BTC/USD", "BTC/USDT", "DOGE/USD", "DOT/USD", "ETH/BTC"),
    *("ETH/USD", "LINK/USD", "LTC/USD", "SHIB/USD", "SOL/USD", "UNI/USD", "USDC/USD", "XRP/USD"),
)
_DOLLARS = {
    **{"BTC/USD": 67_000.0, "BTC/USDT": 67_010.0, "ETH/USD": 3_200.0, "ETH/BTC": 0.0478},
    **{"SHIB/USD": 0.000021, "DOGE/USD": 0.13, "SOL/USD": 150.0, "USDC/USD": 1.0},
}
_FIRST_ID = 3 * 10**18  # above what a float can hold exactly, as the real ids are
DEPTH = 10


def is_pair(symbol: str) -> bool:
    """Whether this names a pair of currencies, such as BTC/USD."""
    base, slash, quoted = symbol.partition("/")
    return bool(base and slash and quoted) and (base + quoted).isalnum()


class Coins:
    """Coins in a step of about a hundred-thousandth of their price."""

    def walk(self, symbol: str, source: random.Random) -> Walk:
        """Near a familiar price where there is one."""
        dollars = _DOLLARS.get(symbol) or source.uniform(0.5, 500)
        price = max(100, int(dollars * source.uniform(0.9, 1.1) * COIN_UNIT))
        step = 10 ** (len(str(max(1, price // 100_000))) - 1)
        trades = _FIRST_ID + source.randrange(10**17)
        return Walk(symbol, source, price // step * step, step, trades)

    def trade(self, walk: Walk, now_ns: int) -> CryptoTrade:
        """Worth ten to a few thousand of what it is priced in."""
        before, price = walk.price, walk.move()
        worth = walk.random.randrange(10, 5000) * COIN_UNIT
        size = max(1, worth * COIN_UNIT // price)
        taker = "S" if price < before else "B"
        return CryptoTrade(
            walk.symbol, now_ns, walk.trades, "", price, size, "", conditions=(), taker=taker
        )

    def quote(self, walk: Walk, now_ns: int) -> CryptoQuote:
        """The inside of the book."""
        bid, ask = (next(iter(levels(walk, side))) for side in (-1, 1))
        return CryptoQuote(
            *(walk.symbol, now_ns, "", bid, _size(walk, bid), "", ask, _size(walk, ask), ""),
            conditions=(),
        )


def levels(walk: Walk, side: int) -> dict[int, int]:
    """Size by price on one side of the walk's price: bids (-1) or asks (+1), inside first."""
    prices = (walk.price + side * n * walk.step for n in range(1, DEPTH + 1))
    return {price: _size(walk, price) for price in prices if price > 0} or {walk.step: COIN_UNIT}


class OrderBook:
    """What the clients of one pair's book have been shown."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._shown = {side: levels(walk, side) for side in (-1, 1)}

    def update(self) -> dict[str, Any] | None:
        """The levels that changed since the last update; None if none did."""
        changed: dict[int, dict[int, int]] = {}
        for side, before in self._shown.items():
            after = levels(self._walk, side)
            gone = dict.fromkeys(before.keys() - after.keys(), 0)
            news = {p: size for p, size in after.items() if before.get(p) != size}
            changed[side] = gone | news
            self._shown[side] = after
        return self._message(changed, reset=False) if any(changed.values()) else None

    def snapshot(self) -> dict[str, Any]:
        """The whole book as it was last shown [D RTC]."""
        return self._message(self._shown, reset=True)

    def _message(self, sides: Mapping[int, Mapping[int, int]], *, reset: bool) -> dict[str, Any]:
        shown = {
            name: [
                {"p": price / COIN_UNIT, "s": size / COIN_UNIT}
                for price, size in sorted(sides[side].items(), reverse=side < 0)
            ]
            for name, side in (("b", -1), ("a", 1))
        }
        return {"T": "o", "S": self._walk.symbol} | shown | {"r": reset}


def _size(walk: Walk, price: int) -> int:
    # A level keeps its size while it stands, and is never the same as its neighbours'.
    worth = 500 + (price // walk.step * 7919 + walk.step) % 20_000
    return max(1, worth * COIN_UNIT * COIN_UNIT // price)
