"""Option contracts out of thin air: OCC symbols and how their walks look.

Owns the contracts that "*" stands for. Invariant: pure, the day is an argument. Prices have nothing
to do with those of the underlying.
"""

import random
import re
from datetime import date, timedelta

from alpaca_broker.simulator.market import PRICE_UNIT, OptionQuote, OptionTrade
from alpaca_broker.simulator.synthetic import Walk

_OCC = re.compile(r"[A-Z]{1,6}\d?\d{6}[CP]\d{8}")
_CENT = PRICE_UNIT // 100
_STRIKES = {"AAPL": (180, 200, 220), "SPY": (480, 500, 520), "TSLA": (200, 250, 300)}
_EXCHANGES = "CNXPQ"
_FRIDAY = 4
_SOON = timedelta(days=7)


def is_contract(symbol: str) -> bool:
    """Whether this is an OCC symbol, such as AAPL240315C00172500."""
    return _OCC.fullmatch(symbol) is not None


def contracts(today: date) -> tuple[str, ...]:
    """A few contracts that expire on the next third Friday, at least a week away."""
    month = today.replace(day=1)
    while (expiry := _third_friday(month)) < today + _SOON:
        month = (month + timedelta(days=31)).replace(day=1)
    return tuple(
        f"{root}{expiry:%y%m%d}{side}{strike * 1000:08d}"
        for root, strikes in _STRIKES.items()
        for strike in strikes
        for side in "CP"
    )


class Contracts:
    """Contracts, in cents."""

    def walk(self, symbol: str, source: random.Random) -> Walk:
        """Between half a dollar and 40."""
        return Walk(symbol, source, source.randrange(50, 4000) * _CENT, _CENT)

    def trade(self, walk: Walk, now_ns: int) -> OptionTrade:
        """A few contracts."""
        price = walk.move()
        size = walk.random.choice((1, 1, 1, 2, 5, 10))
        exchange = walk.random.choice(_EXCHANGES)
        return OptionTrade(walk.symbol, now_ns, walk.trades, exchange, price, size, "", ("I",))

    def quote(self, walk: Walk, now_ns: int) -> OptionQuote:
        """Wider than a stock's."""
        bid = max(_CENT, walk.price - 3 * _CENT)
        return OptionQuote(
            *(walk.symbol, now_ns, "C", bid, 20, "X", walk.price + 3 * _CENT, 30, "", ("A",))
        )


def _third_friday(month: date) -> date:
    return month + timedelta(days=(_FRIDAY - month.weekday()) % 7 + 14)
