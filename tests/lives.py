"""Orders at a pretend Alpaca, moved by hand: what the stream says of each, and what REST shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from alpaca_broker.core.orders import OrderEvent, order_event
from alpaca_broker.core.snapshot import Snapshot

BEGAN = 1_700_000_000.0


def text(at: float) -> str:
    """A time as Alpaca writes it."""
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


class Life:
    """One order at a pretend Alpaca: its events by stream, its state and its fills by REST."""

    def __init__(self, order_id: str = "o1", qty: int = 30, at: float = BEGAN + 1_000) -> None:
        self.now = at
        self.order: dict[str, Any] = {
            "id": order_id,
            "client_order_id": f"bot.{order_id}",
            "symbol": "AAPL",
            "side": "buy",
            "qty": str(qty),
            "filled_qty": "0",
            "filled_avg_price": None,
            "status": "new",
            "submitted_at": text(at),
            "updated_at": text(at),
        }
        self.activities: list[dict[str, Any]] = []
        self.count = 0

    def event(self, event: str, status: str, **more: Any) -> OrderEvent:
        """Something happens; what the stream says of it."""
        self.now += 0.25
        self.count += 1
        reached = {"canceled": "canceled_at", "expired": "expired_at"}.get(status)
        self.order |= {"status": status, "updated_at": text(self.now)}
        if reached:
            self.order[reached] = text(self.now)
        data = {
            "event": event,
            "timestamp": text(self.now),
            "event_id": f"{self.order['id']}-{self.count}",
            "order": dict(self.order),
            **more,
        }
        found = order_event(data, account_id="a", environment="paper", received_at=self.now)
        assert found is not None
        return found

    def begin(self, status: str = "new") -> OrderEvent:
        return self.event(status, status)

    def fill(self, qty: int, price: str = "10") -> OrderEvent:
        """Some of it is filled, or the rest."""
        filled = int(self.order["filled_qty"]) + qty
        done = filled == int(self.order["qty"])
        status, event = ("filled", "fill") if done else ("partially_filled", "partial_fill")
        self.order |= {"filled_qty": str(filled), "filled_avg_price": price}
        found = self.event(event, status, price=price, qty=str(qty), execution_id=f"x{self.count}")
        self.activities.append(
            {
                "id": f"{self.count}",
                "type": event,
                "transaction_time": text(self.now),
                "price": price,
                "qty": str(qty),
                "cum_qty": str(filled),
                "leaves_qty": str(int(self.order["qty"]) - filled),
                "order_id": self.order["id"],
                "order_status": status,
            }
        )
        return found

    def cancel(self) -> OrderEvent:
        return self.event("canceled", "canceled")


def snapshot(*lives: Life, fills: bool = True, taken_at: float | None = None) -> Snapshot:
    """What REST shows of these orders."""
    found = Snapshot(
        account_id="a",
        environment="paper",
        taken_at=taken_at or max((life.now for life in lives), default=BEGAN),
        complete=True,
    )
    found.add_orders([dict(life.order) for life in lives])
    if fills:
        found.add_fills([activity for life in lives for activity in life.activities])
    return found
