"""What a bot is handed: prices, orders, gaps and the heartbeat, typed.

Owns the reading of the contract's messages. Only its ● fields are required; everything else may be
missing, and what is unknown is left alone. `raw` is always the message as it was received.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct, field

Reason = Literal["cut by redis", "reconnect", "broker gap", "epoch", "stale", "journal", "slow"]
Repair = Literal["price:last", "journal", "orders:open"]


class PriceUpdate(Struct, tag_field="type", tag="price_update", gc=False):
    """One trade. `repaired`: it was read from `price:last`, in place of what was missed."""

    symbol: str
    price: float
    timestamp: float
    size: float | None = None
    exchange: str | None = None
    conditions: list[str] | None = None
    trade_id: int | None = None
    feed: str | None = None
    received_at: float | None = None
    seq: int = 0
    epoch: int = 0
    skipped: int = 0  # older prices that were left out because somebody was slow
    source: str | None = None
    repaired: bool = field(default=False, name="#repaired")  # ours: no message has such names
    payload: bytes = field(default=b"", name="#payload")

    @property
    def raw(self) -> dict[str, Any]:
        """The message as it was received; with what was left out or repaired here, if so."""
        message: dict[str, Any] = _decode(self.payload)
        if self.skipped:
            message["skipped"] = self.skipped
        if self.repaired:
            message["repaired"] = True
        return message


class OrderUpdate(Struct, tag_field="type", tag="order_update", kw_only=True):
    """One order event. `snapshot`: an open order's last event, not a new one."""

    order_id: str
    status: str
    filled_qty: Decimal
    filled_avg_price: Decimal | None
    side: str
    timestamp: float
    event: str | None = None
    symbol: str | None = None
    client_order_id: str | None = None
    account_id: str | None = None
    environment: str | None = None
    order_type: str | None = None
    order_class: str | None = None
    qty: Decimal | None = None
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str | None = None
    execution_price: Decimal | None = None
    execution_qty: Decimal | None = None
    execution_id: str | None = None
    position_qty: Decimal | None = None
    bot_id: str | None = None
    received_at: float | None = None
    seq: int = 0
    journal_id: str = ""
    epoch: int = 0
    source: str | None = None
    snapshot: bool = field(default=False, name="#snapshot")
    payload: bytes = field(default=b"", name="#payload")

    @property
    def raw(self) -> dict[str, Any]:
        """The message as it was received; with `snapshot` where it is one."""
        message: dict[str, Any] = _decode(self.payload)
        return message | {"snapshot": True} if self.snapshot else message


class Gap(
    Struct,
    tag_field="type",
    tag="gap",
    frozen=True,
    kw_only=True,
    rename={"began": "from", "ended": "to"},
):
    """Something was missed, or may have been. Times are epoch seconds."""

    reason: Reason
    symbols: tuple[str, ...] = ()
    channel: str | None = None  # whose numbers have a hole, where not the prices': `quote:`, …
    feed: str | None = None  # of the broker's own gaps: the feed that missed something
    account_id: str | None = None
    missed: int | None = None  # messages not heard (difference of seq); None: nobody can know
    began: float | None = None
    ended: float | None = None  # None: it lasts
    repaired: Repair | None = None  # where what follows was read from, in place of what was missed
    recovered: bool = False  # all that was missed was recovered
    again: bool = False  # more about a gap that was told before: same `began` and `ended`
    detail: str = ""
    payload: bytes = field(default=b"", name="#payload")  # of the broker's own gaps

    @property
    def symbol(self) -> str | None:
        """The symbol, where it is a single one."""
        return self.symbols[0] if len(self.symbols) == 1 else None

    @property
    def raw(self) -> dict[str, Any]:
        """The gap as a dict; the broker's own message where it was one."""
        if self.payload:
            message: dict[str, Any] = _decode(self.payload)
            return message
        built: dict[str, Any] = msgspec.to_builtins(self)
        del built["#payload"]
        return built


class FeedStatus(Struct, frozen=True, kw_only=True):
    """One feed, or one account, inside the status."""

    state: str
    since: float | None = None
    symbols: int = 0
    last_message: float | None = None
    error: str | None = None
    refused: dict[str, Any] = field(default_factory=dict)  # of feeds: the first hundred
    refused_total: int = 0
    skipped: int = 0  # prices and quotes that newer ones have replaced, because more came than fits
    turned_away: int = 0  # messages of symbols beyond the most that there may be
    name: str | None = None  # this and what follows: of accounts only
    environment: str | None = None
    account_number: str | None = None
    open_orders: int = 0
    reconciled: float | None = None  # until when every order event is known to be told
    recovered: int = 0  # order events that only REST has shown
    heard_until: float | None = None  # until when the order stream was whole, and is told


class Status(Struct, tag_field="type", tag="status", frozen=True, kw_only=True):
    """The broker's heartbeat."""

    state: str
    epoch: int = 0
    leader: str = ""
    timestamp: float = 0.0
    contract: int = 1
    feeds: dict[str, FeedStatus] = field(default_factory=dict)
    accounts: dict[str, FeedStatus] = field(default_factory=dict)
    bots: int = 0
    conflating: bool = False
    payload: bytes = field(default=b"", name="#payload")

    @property
    def raw(self) -> dict[str, Any]:
        """The message as it was received."""
        message: dict[str, Any] = _decode(self.payload)
        return message


class BrokerGap(
    Struct, tag_field="type", tag="gap", kw_only=True, rename={"began": "from", "ended": "to"}
):
    """The broker's own gap, as it says it."""

    began: float | None = None
    ended: float | None = None
    feed: str | None = None
    account_id: str | None = None
    symbols: list[str] = field(default_factory=list)
    reason: str = ""
    recovered: bool = False
    again: bool = False
    epoch: int = 0


class Rejected(Struct, kw_only=True):
    """Something of a registration that is not followed."""

    symbol: str | None = None
    channel: str | None = None  # a kind of data, where it is not trades
    account_id: str | None = None
    code: str | int = ""
    reason: str = ""


class Answer(Struct, tag_field="type", tag="registration", kw_only=True):
    """The broker's answer to a registration."""

    status: str
    request_id: str | None = None
    pending: bool = False
    accepted: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    epoch: int = 0


_decode = msgspec.json.Decoder().decode
decode_price = msgspec.json.Decoder(PriceUpdate).decode
decode_order = msgspec.json.Decoder(OrderUpdate).decode
_decode_status = msgspec.json.Decoder(Status | BrokerGap).decode
_decode_answer = msgspec.json.Decoder(Answer).decode

_Message = TypeVar("_Message", bound=Struct)


def price(payload: bytes) -> PriceUpdate | None:
    """A price, or None where the payload is none."""
    try:
        update = decode_price(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        rest = salvaged(PriceUpdate, "price_update", payload)
        if rest is None:
            return None
        update = rest
    update.payload = payload
    return update


def order(payload: bytes) -> OrderUpdate | None:
    """An order event, or None where the payload is none."""
    try:
        update = decode_order(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        rest = salvaged(OrderUpdate, "order_update", payload)
        if rest is None:
            return None
        update = rest
    update.payload = payload
    return update


def status_or_gap(payload: bytes) -> Status | BrokerGap | None:
    """A heartbeat or a gap of the broker, or None where the payload is neither."""
    try:
        message: Status | BrokerGap = _decode_status(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return salvaged(Status, "status", payload) or salvaged(BrokerGap, "gap", payload)
    return message


def answer(payload: bytes) -> Answer | None:
    """The broker's answer to a registration, or None where the payload is none."""
    try:
        return _decode_answer(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return salvaged(Answer, "registration", payload)


def salvaged(kind: type[_Message], tag: str, payload: bytes) -> _Message | None:
    """What can be understood: the required fields must be, of the others those that are."""
    try:
        message = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("type") != tag:
        return None
    values: dict[str, Any] = {}
    for known in msgspec.structs.fields(kind):
        if known.encode_name not in message:
            if known.required:
                return None
            continue
        try:
            values[known.name] = msgspec.convert(message[known.encode_name], known.type)
        except (msgspec.ValidationError, ValueError):
            if known.required:
                return None
    return kind(**values)
