"""Alpaca's order events as the contract's `order_update`.

Owns the translation and the dedupe key. Every field of Alpaca's is optional here but the order's
id, its status and the event: one that lacks the rest is still passed on, for it may be a fill.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Literal

from alpaca_broker.core.messages import OrderUpdate
from alpaca_broker.core.wire import epoch_seconds, number

# Terminal order statuses (alpaca-py 0.44 enums, Alpaca's page "Orders"); done_for_day resumes.
CLOSED = frozenset({"filled", "canceled", "expired", "replaced", "rejected"})
FILLS = frozenset({"fill", "partial_fill"})

_BOT = re.compile(r"([A-Za-z0-9_-]{1,64})\..+\Z", re.DOTALL)


def bot_of(client_order_id: str | None) -> str | None:
    """The bot that placed an order: `momentum.42` was placed by `momentum`."""
    found = _BOT.match(client_order_id) if client_order_id else None
    return found.group(1) if found else None


def order_update(
    data: dict[str, Any],
    *,
    account_id: str,
    environment: Literal["paper", "live"],
    received_at: float,
) -> OrderUpdate | None:
    """The update for one `trade_updates` payload, or None where it names no order or event."""
    order = data.get("order")
    event = _text(data.get("event"))
    if not isinstance(order, dict) or event is None:
        return None
    order_id, status = _text(order.get("id")), _text(order.get("status"))
    if order_id is None or status is None:
        return None
    is_fill = event in FILLS
    client_order_id = _text(order.get("client_order_id"))
    return OrderUpdate(
        order_id=order_id,
        status=status,
        filled_qty=number(order.get("filled_qty")) or Decimal(0),
        filled_avg_price=number(order.get("filled_avg_price")),
        side=_text(order.get("side")) or "",
        timestamp=event_time(data, order) or received_at,
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
        execution_price=number(data.get("price")) if is_fill else None,
        execution_qty=number(data.get("qty")) if is_fill else None,
        execution_id=_text(data.get("execution_id")) if is_fill else None,
        position_qty=number(data.get("position_qty")) if is_fill else None,
        bot_id=bot_of(client_order_id),
        received_at=received_at,
    )


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
        return f"fill|{update.order_id}|{_plain(update.filled_qty)}"
    if isinstance(event_id, str) and event_id:
        return f"id|{event_id}"
    return f"event|{update.order_id}|{update.event}|{update.timestamp}|{update.qty}"


def _plain(quantity: Decimal) -> str:
    """Without trailing zeros: 10 and 10.000 are the same; all digits count (normalize rounds)."""
    text = format(quantity, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def is_open(update: OrderUpdate) -> bool:
    """Whether the order can still change."""
    return update.status not in CLOSED


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
