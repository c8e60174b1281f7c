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
    refused: dict[str, int] = field(default_factory=dict)  # the first hundred
    refused_total: int = 0


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
    account_id: str | None = None
    code: str | int
    reason: str


class RegistrationAnswer(Struct, tag_field="type", tag="registration", kw_only=True):
    """The answer on `reply_to`, once Alpaca has confirmed or refused.

    With `pending` it comes at once, because Alpaca is not connected, and a second one follows.
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
