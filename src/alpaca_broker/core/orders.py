"""Alpaca's order events as the contract's `order_update`.

Owns the translation, of stream events, REST's orders and its fills, and the dedupe key. Every field
of Alpaca's is optional here but the order's id, its status and the event: one that lacks the rest
is still passed on, for it may be a fill.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Literal

from msgspec import Struct

from alpaca_broker.core.messages import OrderUpdate
from alpaca_broker.core.wire import epoch_seconds, number

# Terminal order statuses (alpaca-py 0.44 enums, Alpaca's page "Orders"); done_for_day resumes.
CLOSED = frozenset({"filled", "canceled", "expired", "replaced", "rejected"})
FILLS = frozenset({"fill", "partial_fill"})
BUSTS = frozenset({"trade_bust", "trade_correct"})
# With these an order's life may begin; before any other event it was `new`.
BEGINNINGS = frozenset(
    {"new", "accepted", "pending_new", "accepted_for_bidding", "held", "pending_review", "rejected"}
)

Environment = Literal["paper", "live"]

_BOT = re.compile(r"([A-Za-z0-9_-]{1,64})\..+\Z", re.DOTALL)


def bot_of(client_order_id: str | None) -> str | None:
    """The bot that placed an order: `momentum.42` was placed by `momentum`."""
    found = _BOT.match(client_order_id) if client_order_id else None
    return found.group(1) if found else None


class OrderEvent(Struct):
    """An update on its way to the journal, with what only the order book needs to know."""

    update: OrderUpdate
    key: str  # the same event has the same key, from whichever source it comes
    changed_at: float | None = None  # the order's `updated_at`
    created_at: float | None = None  # the order's `submitted_at`
    after: Decimal | None = None  # one event for all fills from this quantity on
    is_late: bool = False  # older than what was told before: the order's state stays as it is
    lacks_since: float | None = None  # told without a fill before it, which was later than this


class Fill(Struct, frozen=True):
    """One fill as `GET /v2/account/activities/FILL` shows it: without execution id and state."""

    order_id: str
    event: str
    cum_qty: Decimal
    qty: Decimal
    price: Decimal | None
    at: float


def fill_of(activity: dict[str, Any]) -> Fill | None:
    """An activity as a fill, or None where it lacks what makes one."""
    order_id, at = _text(activity.get("order_id")), epoch_seconds(activity.get("transaction_time"))
    cum_qty, qty = number(activity.get("cum_qty")), number(activity.get("qty"))
    if order_id is None or at is None or not cum_qty or not qty:
        return None
    leaves = number(activity.get("leaves_qty"))
    event = _text(activity.get("type"))
    if event not in FILLS:
        event = "partial_fill" if leaves else "fill"
    return Fill(order_id, event, cum_qty, qty, number(activity.get("price")), at)


def order_event(
    data: dict[str, Any],
    *,
    account_id: str,
    environment: Environment,
    received_at: float,
) -> OrderEvent | None:
    """The event of one `trade_updates` payload, or None where it names no order or event."""
    order = data.get("order")
    event = _text(data.get("event"))
    if not isinstance(order, dict) or event is None:
        return None
    update = shown(
        order,
        event,
        event_time(data, order) or received_at,
        account_id=account_id,
        environment=environment,
        received_at=received_at,
        source="stream",
    )
    if update is None:
        return None
    if event in FILLS or event in BUSTS:
        update.execution_price = number(data.get("price"))
        update.execution_qty = number(data.get("qty"))
        update.execution_id = _text(data.get("execution_id"))
        update.position_qty = number(data.get("position_qty"))
    return OrderEvent(
        update,
        dedupe_key(update, data.get("event_id")),
        epoch_seconds(order.get("updated_at")),
        created_at(order),
    )


def shown(
    order: dict[str, Any],
    event: str,
    timestamp: float,
    *,
    account_id: str,
    environment: Environment,
    received_at: float,
    source: Literal["stream", "reconcile"] = "reconcile",
) -> OrderUpdate | None:
    """The update that an order object of Alpaca's makes, or None where it lacks id or status."""
    order_id, status = _text(order.get("id")), _text(order.get("status"))
    if order_id is None or status is None:
        return None
    client_order_id = _text(order.get("client_order_id"))
    return OrderUpdate(
        order_id=order_id,
        status=status,
        filled_qty=number(order.get("filled_qty")) or Decimal(0),
        filled_avg_price=number(order.get("filled_avg_price")),
        side=_text(order.get("side")) or "",
        timestamp=timestamp,
        event=event,
        symbol=_text(order.get("symbol")),
        client_order_id=client_order_id,
        account_id=account_id,
        environment=environment,
        order_type=_text(order.get("order_type")) or _text(order.get("type")),
        order_class=_text(order.get("order_class")),
        qty=number(order.get("qty")),
        notional=number(order.get("notional")),
        limit_price=number(order.get("limit_price")),
        stop_price=number(order.get("stop_price")),
        time_in_force=_text(order.get("time_in_force")),
        execution_price=None,
        execution_qty=None,
        execution_id=None,
        position_qty=None,
        bot_id=bot_of(client_order_id),
        received_at=received_at,
        source=source,
    )


def created_at(order: dict[str, Any]) -> float | None:
    """When an order was submitted: what `after` of `GET /v2/orders` filters on."""
    return epoch_seconds(order.get("submitted_at")) or epoch_seconds(order.get("created_at"))


def event_time(data: dict[str, Any], order: dict[str, Any]) -> float | None:
    """When it happened: `timestamp` is documented for some events only, `at` for newer ones."""
    return (
        epoch_seconds(data.get("timestamp"))
        or epoch_seconds(data.get("at"))
        or epoch_seconds(order.get("updated_at"))
    )


def dedupe_key(update: OrderUpdate, event_id: object) -> str:
    """What makes an event the same event, from whichever source it comes (contract, section 4)."""
    if update.event in FILLS and update.filled_qty:
        return fill_key(update.order_id, update.filled_qty)
    if update.event in BUSTS and update.execution_id:
        return f"{update.event}|{update.execution_id}"
    if isinstance(event_id, str) and event_id:
        return f"id|{event_id}"
    return f"event|{update.order_id}|{update.event}|{update.timestamp}|{update.qty}"


def fill_key(order_id: str, filled_qty: Decimal) -> str:
    """A fill is known by the order's cumulative quantity: REST's fills carry no execution id."""
    return f"fill|{order_id}|{_plain(filled_qty)}"


def _plain(quantity: Decimal) -> str:
    """Without trailing zeros: 10 and 10.000 are the same; all digits count (normalize rounds)."""
    text = format(quantity, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def is_open(update: OrderUpdate) -> bool:
    """Whether the order can still change."""
    return update.status not in CLOSED


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
