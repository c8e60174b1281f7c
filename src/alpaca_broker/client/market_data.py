"""The other kinds of market data as a bot gets them: quotes, bars, halts, corrections, news, books.

Owns their types, and which of them belong to which kind. Read leniently, as prices are: only
`type`, `symbol` and `timestamp` are required, what is unknown is left alone, and `raw` is the
message as it was received. What a field means is the contract's to say.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field

from alpaca_broker.client.updates import PriceUpdate, salvaged
from alpaca_broker.core.channels import HEARD_ON
from alpaca_broker.core.feeds import CONTENT

# On which channel each kind is heard. Trades have their own way.
CHANNEL_OF = {kind: channel for kind, channel in HEARD_ON.items() if kind != "trades"}
KINDS = tuple(kind for kind in HEARD_ON if kind != CONTENT)  # what a bot may ask for


class _Common(Struct, kw_only=True, gc=False):
    symbol: str
    timestamp: float
    feed: str | None = None
    received_at: float | None = None
    seq: int = 0
    epoch: int = 0
    payload: bytes = field(default=b"", name="#payload")  # ours: no message has such names

    @property
    def raw(self) -> dict[str, Any]:
        """The message as it was received."""
        message: dict[str, Any] = msgspec.json.decode(self.payload)
        return message


class QuoteUpdate(_Common, tag_field="type", tag="quote_update", kw_only=True):
    """The best bid and ask."""

    bid_price: float | None = None
    bid_size: float | None = None
    bid_exchange: str | None = None
    ask_price: float | None = None
    ask_size: float | None = None
    ask_exchange: str | None = None
    conditions: list[str] | None = None
    skipped: int = 0  # older quotes that were left out because the bot was slow

    @property
    def raw(self) -> dict[str, Any]:
        """The message as it was received; with what was left out, if so."""
        message: dict[str, Any] = msgspec.json.decode(self.payload)
        return message | {"skipped": self.skipped} if self.skipped else message


class BarUpdate(_Common, tag_field="type", tag="bar_update", kw_only=True):
    """A bar of a minute, or of the day so far; `updated` by a late trade."""

    timeframe: str = "1Min"
    updated: bool = False
    open: float | None = None
    high: float | None = None
    low: float | None = None
    close: float | None = None
    volume: float | None = None
    vwap: float | None = None
    trade_count: int | None = None
    source: str | None = None


class TradingStatus(_Common, tag_field="type", tag="trading_status", kw_only=True):
    """A halt, a resumption, or the bands of LULD."""

    status_code: str | None = None
    status_message: str | None = None
    reason_code: str | None = None
    reason_message: str | None = None
    limit_up: float | None = None
    limit_down: float | None = None
    indicator: str | None = None


class TradeCorrection(_Common, tag_field="type", tag="trade_correction", kw_only=True):
    """A trade that was reported wrongly."""

    original: dict[str, Any] = field(default_factory=dict)
    corrected: dict[str, Any] = field(default_factory=dict)


class TradeCancel(_Common, tag_field="type", tag="trade_cancel", kw_only=True):
    """A trade that is taken back."""

    original: dict[str, Any] = field(default_factory=dict)
    action: str | None = None


class News(_Common, tag_field="type", tag="news", kw_only=True):
    """An article."""

    id: int | None = None
    headline: str | None = None
    summary: str | None = None
    author: str | None = None
    url: str | None = None
    source: str | None = None
    symbols: list[str] = field(default_factory=list)
    created_at: float | None = None
    updated_at: float | None = None
    content: str | None = None


class OrderbookUpdate(_Common, tag_field="type", tag="orderbook_update", kw_only=True):
    """Changed levels of a book, [price, size], or with `snapshot` all of it."""

    bids: list[list[float]] = field(default_factory=list)
    asks: list[list[float]] = field(default_factory=list)
    snapshot: bool = False


MarketData = (
    QuoteUpdate
    | BarUpdate
    | TradingStatus
    | TradeCorrection
    | TradeCancel
    | News
    | OrderbookUpdate
    | PriceUpdate  # of `backfill`
)

_decode = msgspec.json.Decoder(MarketData).decode
_TYPES: dict[str, type[Any]] = {
    str(kind.__struct_config__.tag): kind for kind in MarketData.__args__
}


def market_data(payload: bytes) -> MarketData | None:
    """An update, or None where the payload is none."""
    update: MarketData | None
    try:
        update = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = (salvaged(kind, tag, payload) for tag, kind in _TYPES.items())
        update = next((one for one in found if one is not None), None)
    if update is not None:
        update.payload = payload
    return update


def is_of(kind: str, update: MarketData) -> bool:
    """Whether it is what a bot registers for as `kind`: some kinds share a channel."""
    if isinstance(update, BarUpdate):
        if update.timeframe == "1Day":
            return kind == "dailyBars"
        return kind == ("updatedBars" if update.updated else "bars")
    if isinstance(update, TradingStatus):
        has_bands = update.limit_up is not None or update.limit_down is not None
        return kind == ("lulds" if has_bands else "statuses")
    return True
