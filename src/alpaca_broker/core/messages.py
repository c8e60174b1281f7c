"""The contract's messages: the very types that are encoded, so that page and code cannot drift.

Fields may be added, never renamed, retyped or dropped (contract, ● fields). Times are seconds
since the Unix epoch, UTC, to the microsecond. Quantities of orders are `Decimal`, so that
Alpaca's digits arrive as they were; prices are the double nearest to them, printed shortest.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

from msgspec import UNSET, Raw, Struct, UnsetType, field, json

CONTRACT = 1

FeedState = Literal["connecting", "live", "stale", "backoff", "refused", "idle"]
AccountState = Literal["connecting", "live", "degraded", "stale", "backoff", "refused", "idle"]
OverallState = Literal["live", "degraded", "down"]


class PriceUpdate(Struct, tag_field="type", tag="price_update", gc=False):
    """One trade, on `price:SYMBOL`."""

    symbol: str
    price: float
    timestamp: float
    size: int | float | None
    exchange: str | None
    conditions: list[str] | None
    trade_id: int | None
    feed: str
    received_at: float
    seq: int
    epoch: int
    skipped: int | UnsetType = UNSET
    # `snapshot`: in `price:last`, read from REST; `backfill`: recovered after a gap.
    source: Literal["snapshot", "backfill"] | UnsetType = UNSET


class QuoteUpdate(Struct, tag_field="type", tag="quote_update", gc=False):
    """The best bid and ask, on `quote:SYMBOL`. A side that is empty may be null or 0."""

    symbol: str
    bid_price: float | None
    bid_size: int | float | None
    bid_exchange: str | None
    ask_price: float | None
    ask_size: int | float | None
    ask_exchange: str | None
    conditions: list[str] | None
    timestamp: float
    feed: str
    received_at: float
    seq: int
    epoch: int
    skipped: int | UnsetType = UNSET


class BarUpdate(Struct, tag_field="type", tag="bar_update", gc=False):
    """A bar of a minute or of the day so far, on `bar:SYMBOL`; `timestamp` is its beginning."""

    symbol: str
    timeframe: Literal["1Min", "1Day"]
    updated: bool  # sent before, and changed by a late trade
    open: float
    high: float
    low: float
    close: float
    volume: int | float | None
    vwap: float | None
    trade_count: int | None
    timestamp: float
    feed: str
    received_at: float
    seq: int
    epoch: int
    source: Literal["stream", "backfill"] = "stream"


class TradingStatus(Struct, tag_field="type", tag="trading_status", gc=False):
    """A halt, a resumption, or the bands of LULD, on `trading_status:SYMBOL`."""

    symbol: str
    timestamp: float
    feed: str
    received_at: float
    seq: int
    epoch: int
    status_code: str | None = None
    status_message: str | None = None
    reason_code: str | None = None
    reason_message: str | None = None
    limit_up: float | None = None
    limit_down: float | None = None
    indicator: str | None = None


class PrintedTrade(Struct, gc=False):
    """A trade as it was, or is, reported."""

    price: float | None
    size: int | float | None
    exchange: str | None
    conditions: list[str] | None
    trade_id: int | None


class TradeCorrection(Struct, tag_field="type", tag="trade_correction", gc=False):
    """A trade that was reported wrongly, on `correction:SYMBOL`."""

    symbol: str
    original: PrintedTrade
    corrected: PrintedTrade
    timestamp: float
    feed: str
    received_at: float
    seq: int
    epoch: int


class TradeCancel(Struct, tag_field="type", tag="trade_cancel", gc=False):
    """A trade that is taken back, on `correction:SYMBOL`."""

    symbol: str
    original: PrintedTrade
    action: str | None  # Alpaca's: C cancelled, E error
    timestamp: float
    feed: str
    received_at: float
    seq: int
    epoch: int


class NewsItem(Struct, tag_field="type", tag="news", gc=False):
    """An article, on `news:SYMBOL` for each symbol that was asked for, and on `news:*`."""

    symbol: str  # the channel's
    id: int
    headline: str | None
    summary: str | None
    author: str | None
    url: str | None
    symbols: list[str]
    created_at: float
    updated_at: float
    timestamp: float  # `updated_at`
    feed: str
    received_at: float
    seq: int
    epoch: int
    source: str | None
    content: str | UnsetType | None = UNSET  # HTML, where a bot asked for it


class OrderbookUpdate(Struct, tag_field="type", tag="orderbook_update", gc=False):
    """Changed levels of a book (size 0 takes one away), or all of it, on `orderbook:SYMBOL`."""

    symbol: str
    bids: list[list[float]]  # [price, size]
    asks: list[list[float]]
    snapshot: bool
    timestamp: float
    feed: str
    received_at: float
    seq: int
    epoch: int


class OrderUpdate(Struct, tag_field="type", tag="order_update", kw_only=True):
    """One order event, on `order:ACCOUNT_ID` and in `journal:order:ACCOUNT_ID`."""

    order_id: str
    status: str
    filled_qty: Decimal
    filled_avg_price: Decimal | None
    side: str
    timestamp: float
    event: str
    symbol: str | None
    client_order_id: str | None
    account_id: str
    environment: Literal["paper", "live"]
    order_type: str | None
    order_class: str | None
    qty: Decimal | None
    notional: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    time_in_force: str | None
    execution_price: Decimal | None
    execution_qty: Decimal | None
    execution_id: str | None
    position_qty: Decimal | None
    bot_id: str | None
    received_at: float
    seq: int = 0
    journal_id: str = ""
    epoch: int = 0
    source: Literal["stream", "reconcile"] = "stream"


class FeedStatus(Struct, frozen=True, kw_only=True):
    """One market-data feed inside the status; `since` and `last_message` are epoch seconds."""

    state: FeedState
    since: float
    symbols: int = 0
    last_message: float | None = None
    error: str | None = None
    # The first hundred: a symbol, or `kind:SYMBOL` where it is not its trades.
    refused: dict[str, int] = field(default_factory=dict)
    refused_total: int = 0
    skipped: int = 0  # prices and quotes that newer ones have replaced, since the start
    turned_away: int = 0  # messages of symbols beyond the most that there may be, in this epoch


class AccountStatus(Struct, frozen=True, kw_only=True):
    """One account's order stream inside the status."""

    name: str = ""
    environment: Literal["paper", "live"]
    state: AccountState
    since: float
    account_number: str | None = None
    last_message: float | None = None
    error: str | None = None
    open_orders: int = 0
    reconciled: float | None = None  # until when everything is known to be told
    heard_until: float | None = None  # until when the stream was whole, and is told
    recovered: int = 0  # events that only REST has shown


class Status(Struct, tag_field="type", tag="status", kw_only=True):
    """The heartbeat on `broker:status`, every second and at every change."""

    contract: int = CONTRACT
    epoch: int
    leader: str
    timestamp: float
    state: OverallState
    feeds: dict[str, FeedStatus]
    accounts: dict[str, AccountStatus]
    bots: int
    conflating: bool = False


class Rejected(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something of a registration that is not followed: a symbol, or the account."""

    symbol: str | None = None
    channel: str | None = None  # a kind of data of the symbol; absent for trades, and for all of it
    account_id: str | None = None
    code: str | int
    reason: str


class RegistrationAnswer(Struct, tag_field="type", tag="registration", kw_only=True):
    """The answer on `reply_to`, once Alpaca has confirmed or refused.

    With `pending` it comes at once, because one of the feeds is not connected: it says what is
    decided so far, and another one follows.
    """

    request_id: str | None
    status: Literal["ok", "partial", "error"]
    pending: bool = False
    accepted: list[str]
    rejected: list[Rejected]
    account_id: str | None
    last: dict[str, Raw] = field(default_factory=dict)
    epoch: int
    contract: int = CONTRACT


class Gap(
    Struct, tag_field="type", tag="gap", kw_only=True, rename={"began": "from", "ended": "to"}
):
    """What was missed, on `broker:status` and in the stream `broker:gaps` (field `data`)."""

    feed: str | UnsetType = UNSET
    account_id: str | UnsetType = UNSET
    began: float
    ended: float
    symbols: list[str]
    reason: str
    recovered: bool
    epoch: int
    again: bool | UnsetType = UNSET  # true: more about a gap that was told before, same from and to


class LogRecord(Struct, tag_field="type", tag="log", kw_only=True):
    """One line of the log, on `broker:logs`; an event's fields come along."""

    level: str
    logger: str
    message: str
    timestamp: float


_encode = json.Encoder(decimal_format="number").encode


def encode(message: Struct | dict[str, Any]) -> bytes:
    """A message as UTF-8 JSON; decimals become JSON numbers with their exact digits."""
    return _encode(message)
