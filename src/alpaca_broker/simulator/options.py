"""What a simulator is asked to be: ports, keys, market, limits.

Owns the options and their validation. Invariant: an existing `SimulatorOptions` is valid.
It does not open files or sockets.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from alpaca_broker.simulator.feeds import FEEDS
from alpaca_broker.simulator.trading_hours import NOW, moment_of
from alpaca_broker.simulator.variants import Variants


@dataclass(frozen=True, kw_only=True)
class SimulatorOptions:
    """Everything a simulator can be told. Raises `ValueError` naming the option at fault.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes any free one.
        keys: Secret by key id. Empty: every pair of non-empty texts is accepted.
        ticks: Tick zip files to replay. Empty: a synthetic market.
        speed: "1" is the files' own pace, a positive number N is N times that, "max" is as fast
            as the client takes it. Only for replays.
        seed: Same seed, same synthetic prices.
        rate: Synthetic trades per second and subscribed symbol; quotes come twice as often.
        batch: Most messages in one data frame.
        news_per_min: Invented news articles a minute; 0 for none.
        incidents_per_min: Corrections, cancellations, halts and late trades a minute and invented
            stock; 0 for none.
        absent_s: Seconds the invented market goes on for symbols whose only subscriber vanished.
        history_limit: Most trades, quotes and bars remembered per symbol, each.
        said_limit: Most other messages remembered per symbol.
        unknown_assets: Symbols that do not exist here, as with a typo: the streams take them and
            bring nothing, REST and orders know no such asset.
        option_quote_limit: Most option contracts with quotes of one session; above: 405.
        symbol_limit: Most distinct symbols over trades and quotes of one session; above: 405.
        auth_timeout_s: Seconds a market-data session may stay unauthenticated.
        refused_feeds: Feeds outside the plan: authentication on them is answered 409.
        trading_connection_limit: Most trading WebSockets of one account; above: HTTP 429.
        recent_sip: Whether the plan has SIP data of the last 15 minutes by REST, else 403.
        rest_limit_per_min: REST calls a minute and account, above: HTTP 429. None: no limit.
        market_open: What the clock says at any hour, while `time` is None. While closed only
            extended-hours limit orders fill.
        time: The moment it is at the start, such as "2026-11-27T12:59" (New York unless it has an
            offset); the calendar then says whether the market is open. "now" is the real time
            with its real hours. None is the real time with `market_open` for all hours.
        quiet_when_closed: Whether the invented stock market keeps to its hours: silent while
            closed, thin before and after the regular session.
        cash: Dollars a new account starts with.
        ledger_limit: Most order events, and most fills, kept per account; the oldest are forgotten.
        order_limit: Most orders kept per account; the oldest closed ones are forgotten.
        fill_part: Shares above which an order is filled in parts.
        linger_s: Seconds the slot of a connection stays taken that broke without a close frame: of
            a market-data session, and of a trading one under `trading_connection_limit`. Alpaca is
            reported to take about 90 [T forum 10896].
        variants: What Alpaca's documentation leaves open, answered otherwise.
        send_limit_bytes: Bytes that may wait for a client before it is cut as too slow (407).
    """

    host: str = "127.0.0.1"
    port: int = 0
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    ticks: Iterable[str | Path] = ()
    speed: str = "1"
    seed: int = 1
    rate: float = 20.0
    batch: int = 50
    news_per_min: float = 6.0
    incidents_per_min: float = 0.0
    absent_s: float = 120.0
    history_limit: int = 10_000
    said_limit: int = 1_000
    unknown_assets: Collection[str] = frozenset()
    option_quote_limit: int | None = None
    symbol_limit: int | None = None
    auth_timeout_s: float = 10.0
    refused_feeds: frozenset[str] = frozenset()
    trading_connection_limit: int | None = None
    recent_sip: bool = True
    rest_limit_per_min: int | None = 200
    market_open: bool = True
    time: str | datetime | None = None
    quiet_when_closed: bool = False
    cash: Decimal = Decimal(100_000)
    ledger_limit: int = 100_000
    order_limit: int = 50_000
    fill_part: int = 100
    linger_s: float = 0.0
    send_limit_bytes: int = 8 * 1024 * 1024
    variants: Variants = field(default_factory=Variants)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ticks", tuple(Path(path) for path in self.ticks))
        object.__setattr__(self, "keys", dict(self.keys))
        object.__setattr__(self, "refused_feeds", frozenset(self.refused_feeds))
        object.__setattr__(self, "unknown_assets", frozenset(self.unknown_assets))
        object.__setattr__(self, "cash", Decimal(self.cash))
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be between 0 and 65535, not {self.port}")
        if any(not key or not secret for key, secret in self.keys.items()):
            raise ValueError("keys must not hold an empty key id or secret")
        if unknown := self.refused_feeds - FEEDS.keys():
            raise ValueError(f"refused_feeds names no feed of ours: {', '.join(sorted(unknown))}")
        self.pace()
        if isinstance(self.time, str) and self.time != NOW:
            moment_of(self.time)
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name in ("rate", "auth_timeout_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, not {value}")
        for name in ("linger_s", "news_per_min", "incidents_per_min", "absent_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be zero or more, not {value}")
        for name in (
            *("batch", "ledger_limit", "order_limit", "fill_part", "send_limit_bytes"),
            *("history_limit", "said_limit"),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in (
            *("symbol_limit", "option_quote_limit"),
            *("trading_connection_limit", "rest_limit_per_min"),
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or None, not {value}")
        if not (self.cash.is_finite() and self.cash >= 0):
            raise ValueError(f"cash must be zero or more, not {self.cash}")

    def pace(self) -> float | None:
        """How many times faster than the files a replay runs; None is as fast as possible."""
        if self.speed == "max":
            return None
        try:
            pace = float(self.speed)
        except ValueError:
            pace = math.nan
        if not (math.isfinite(pace) and pace > 0):
            raise ValueError(f'speed must be "max" or a positive number, not {self.speed!r}')
        return pace

    def tick_paths(self) -> tuple[Path, ...]:
        """The tick files, as paths."""
        return tuple(Path(path) for path in self.ticks)
