"""The markets of the simulator: which there are, and what each one trades.

Owns the list. Invariant: every feed's venue is in it. Equal seeds make equal venues, but for the
option contracts, which expire.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from alpaca_broker.simulator.coins import COINS, Coins, is_pair
from alpaca_broker.simulator.contracts import Contracts, contracts, is_contract
from alpaca_broker.simulator.feeds import CRYPTO_LOCATIONS, TEST_SYMBOL, Kind
from alpaca_broker.simulator.instruments import COIN
from alpaca_broker.simulator.market import CryptoBar, Market, Trade
from alpaca_broker.simulator.options import SimulatorOptions
from alpaca_broker.simulator.synthetic import UNIVERSE, Style, SyntheticMarket
from alpaca_broker.simulator.venue import Venue

OnTrades = Callable[[str, Sequence[Trade]], None]


def venues(
    options: SimulatorOptions,
    now_ns: int,
    on_trades: OnTrades,
    *,
    replayed: bool,
) -> dict[str, Venue]:
    """All venues by name; `on_trades` hears the trades that orders are filled against."""

    def prices(style: Style | None = None, prefix: str = "") -> SyntheticMarket:
        return SyntheticMarket(f"{prefix}{options.seed}", options.rate, style)

    limit, absent_s = options.history_limit, options.absent_s

    def real(symbol: str) -> bool:
        return symbol not in options.unknown_assets

    def only_real(takes: Callable[[str], bool]) -> Callable[[str], bool]:
        return lambda symbol: real(symbol) and takes(symbol)

    shares, coins = tuple(filter(real, UNIVERSE)), tuple(filter(real, COINS))
    is_stock, is_coin = only_real(_is_stock), only_real(is_pair)
    listed = contracts(datetime.fromtimestamp(now_ns / 10**9, UTC).date())
    stocks = Market(on_trades, history_limit=limit)
    test, news = (Market(history_limit=limit) for _ in range(2))
    chain = Market(on_trades, history_limit=limit)
    source = None if replayed else prices()
    fake = (TEST_SYMBOL,)
    made = [
        Venue("stocks", Kind.STOCKS, stocks, source, shares, is_stock, absent_s),
        Venue("test", Kind.TEST, test, prices(), fake, fake.__contains__, absent_s),
        Venue("options", Kind.OPTIONS, chain, prices(Contracts()), listed, is_contract, absent_s),
        Venue("news", Kind.NEWS, news, None, UNIVERSE, lambda symbol: True, absent_s),
    ]
    for location in CRYPTO_LOCATIONS:
        name = f"crypto/{location}"
        fills = (on_trades,) if name == COIN.venue else ()
        market = Market(*fills, bar=CryptoBar, history_limit=limit)
        walks = prices(Coins(), f"{location}:")
        made.append(Venue(name, Kind.CRYPTO, market, walks, coins, is_coin, absent_s))
    return {venue.name: venue for venue in made}


def _is_stock(symbol: str) -> bool:
    return symbol != TEST_SYMBOL and not is_pair(symbol) and not is_contract(symbol)
