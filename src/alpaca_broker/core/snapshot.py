"""What Alpaca's REST shows of an account at one moment: orders, and fills.

Owns the reading of it. Anything malformed is left out and counted, never guessed at: a snapshot
that is not `complete` must not be taken for "there is nothing".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from msgspec import Struct, field

from alpaca_broker.core.messages import OrderUpdate
from alpaca_broker.core.orders import Environment, Fill, created_at, fill_of, shown
from alpaca_broker.core.wire import epoch_seconds, number

# When an order reached a state, by that state (alpaca-py's Order model).
_REACHED = {
    "canceled": "canceled_at",
    "expired": "expired_at",
    "replaced": "replaced_at",
    "rejected": "failed_at",
}


class ShownOrder(Struct, frozen=True):
    """One order as REST shows it; `raw` is Alpaca's own object."""

    id: str
    status: str
    filled_qty: Decimal
    filled_avg_price: Decimal | None
    created_at: float | None
    changed_at: float | None
    raw: dict[str, Any]

    def reached_at(self) -> float | None:
        """When it came into its present state."""
        name = _REACHED.get(self.status)
        at = epoch_seconds(self.raw.get(name)) if name else None
        return at or self.changed_at or self.created_at


class Snapshot(Struct, kw_only=True):
    """One look at an account. `taken_at` is when it began, in epoch seconds."""

    account_id: str
    environment: Environment
    taken_at: float
    orders: dict[str, ShownOrder] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    looked_up: set[str] = field(default_factory=set)  # orders that were asked for by id
    gone: set[str] = field(default_factory=set)  # of these, those that Alpaca does not know
    complete: bool = False

    def add_orders(self, objects: Iterable[object]) -> None:
        """Take in orders; of the same order the one that changed last stays."""
        for raw in objects:
            order = _order(raw)
            if order is None:
                continue
            known = self.orders.get(order.id)
            if known is None or (known.changed_at or 0.0) <= (order.changed_at or 0.0):
                self.orders[order.id] = order

    def add_fills(self, objects: Iterable[object]) -> None:
        """Take in activities of the type FILL."""
        for raw in objects:
            fill = fill_of(raw) if isinstance(raw, dict) else None
            if fill is not None:
                self.fills.append(fill)

    def by_order(self, is_news: Callable[[Fill], bool]) -> dict[str, list[Fill]]:
        """Each order's fills that are news, by quantity; orders without any come, too."""
        found: dict[str, list[Fill]] = {order_id: [] for order_id in self.orders}
        for fill in sorted(self.fills, key=lambda fill: fill.cum_qty):
            if is_news(fill):
                found.setdefault(fill.order_id, []).append(fill)
        return found

    def update(
        self, order: ShownOrder, event: str, timestamp: float | None, **changes: Any
    ) -> OrderUpdate | None:
        """An `order_update` of this order, with what is different at the event."""
        update = shown(
            order.raw,
            event,
            timestamp or self.taken_at,
            account_id=self.account_id,
            environment=self.environment,
            received_at=self.taken_at,
        )
        if update is not None:
            for name, value in changes.items():
                setattr(update, name, value)
        return update


def _order(raw: object) -> ShownOrder | None:
    if not isinstance(raw, dict):
        return None
    order_id, status = raw.get("id"), raw.get("status")
    if not isinstance(order_id, str) or not isinstance(status, str) or not (order_id and status):
        return None
    return ShownOrder(
        order_id,
        status,
        number(raw.get("filled_qty")) or Decimal(0),
        number(raw.get("filled_avg_price")),
        created_at(raw),
        epoch_seconds(raw.get("updated_at")),
        raw,
    )
