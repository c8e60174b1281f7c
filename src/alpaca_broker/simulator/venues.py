"""The markets of the simulator: which there are, and what each one trades.

Owns the list. Invariant: every feed's venue is in it. Equal seeds make equal venues, but for the
option contracts, which expire.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from alpaca_broker.simulator.coins import COINS, Coins, is_pair
from alpaca_broker.simulator.contracts import Contracts, contracts, is_contract
from alpaca_broker.simulator.feeds import CRYPTO_LOCATIONS, TEST_SYMBOL, Kind
from alpaca_broker.simulator.market import CryptoBar, Market, Trade
from alpaca_broker.simulator.options import SimulatorOptions
from alpaca_broker.simulator.synthetic import UNIVERSE, Style, SyntheticMarket
from alpaca_broker.simulator.venue import Venue

CRYPTO_VENUE = "crypto/us"  # where crypto orders are filled
OnTrades = Callable[[str, Sequence[Trade]], None]


def venues(
    options: SimulatorOptions,
    now_ns: int,
    on_trades: OnTrades,
    on_coin_trades: OnTrades,
    *,
    replayed: bool,
) -> dict[str, Venue]:
    """All venues by name; the callbacks hear the trades that orders are filled against."""

    def prices(style: Style | None = None, prefix: str = "") -> SyntheticMarket:
        return SyntheticMarket(f"{prefix}{options.seed}", options.rate, style)

    def coins(name: str) -> Market:
        hears = on_coin_trades if name == CRYPTO_VENUE else _nobody
        return Market(hears, bar=CryptoBar, history_limit=limit)

    limit, absent_s = options.history_limit, options.absent_s
    listed = contracts(datetime.fromtimestamp(now_ns / 10**9, UTC).date())
    stocks, test, chain, news = (
        Market(hears, history_limit=limit) for hears in (on_trades, _nobody, _nobody, _nobody)
    )
    source = None if replayed else prices()
    fake = (TEST_SYMBOL,)
    made = [
        Venue("stocks", Kind.STOCKS, stocks, source, UNIVERSE, _is_stock, absent_s),
        Venue("test", Kind.TEST, test, prices(), fake, fake.__contains__, absent_s),
        Venue("options", Kind.OPTIONS, chain, prices(Contracts()), listed, is_contract, absent_s),
        Venue("news", Kind.NEWS, news, None, UNIVERSE, lambda symbol: True, absent_s),
    ]
    for location in CRYPTO_LOCATIONS:
        name = f"crypto/{location}"
        walks = prices(Coins(), f"{location}:")
        made.append(Venue(name, Kind.CRYPTO, coins(name), walks, COINS, is_pair, absent_s))
    return {venue.name: venue for venue in made}


def _nobody(symbol: str, trades: Sequence[Trade]) -> None:
    return


def _is_stock(symbol: str) -> bool:
    return symbol != TEST_SYMBOL and not is_pair(symbol) and not is_contract(symbol)
