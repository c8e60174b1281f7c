"""What an order may be for: a share, a coin or a contract, and what is different about each.

Owns the table. Invariant: a symbol is always the same kind of thing, by its shape alone. Pure.
"""

from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from alpaca_broker.simulator.coins import COINS
from alpaca_broker.simulator.contracts import is_contract
from alpaca_broker.simulator.market import COIN_UNIT, PRICE_UNIT


@dataclass(frozen=True)
class Instrument:
    """One kind of thing, as orders for it differ."""

    asset_class: str
    exchange: str
    venue: str
    """Whose trades fill its orders."""
    unit: int
    """Of the prices there."""
    types: frozenset[str]
    times_in_force: frozenset[str]
    multiplier: Decimal = Decimal(1)
    """So many times its price is what one of it costs."""
    always_open: bool = False
    only_whole: bool = False


SHARE = Instrument(
    *("us_equity", "NASDAQ", "stocks", PRICE_UNIT),
    types=frozenset({"market", "limit", "stop", "stop_limit"}),
    times_in_force=frozenset({"day", "gtc", "ioc", "fok"}),
)
COIN = Instrument(  # [D "Crypto Spot Trading"]
    *("crypto", "CRYPTO", "crypto/us", COIN_UNIT),
    types=frozenset({"market", "limit", "stop_limit"}),
    times_in_force=frozenset({"gtc", "ioc"}),
    always_open=True,
)
CONTRACT = Instrument(  # [D "Options Trading"]
    *("us_option", "", "options", PRICE_UNIT),  # no exchange that PY44 would know
    types=frozenset({"market", "limit"}),
    times_in_force=frozenset({"day"}),
    multiplier=Decimal(100),
    only_whole=True,
)
_BY_SHORT_NAME = {coin.replace("/", ""): coin for coin in COINS}
_FOR_DOLLARS = frozenset(coin for coin in COINS if coin.endswith("/USD"))


def spelled(symbol: str) -> str:
    """The symbol as the market spells it: orders may say BTCUSD for BTC/USD."""
    return _BY_SHORT_NAME.get(symbol, symbol)


@lru_cache(maxsize=65_536)
def instrument_of(symbol: str) -> Instrument:
    """What a symbol names; whatever is no coin and no contract is a share."""
    if symbol in _FOR_DOLLARS:
        return COIN
    return CONTRACT if is_contract(symbol) else SHARE
