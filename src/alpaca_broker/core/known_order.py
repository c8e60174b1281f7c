"""What is known of one order: its state, its fills, and what still waits for a fill before it.

Owns the questions that one order answers by itself; the book of all orders asks them.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct, field

from alpaca_broker.core.messages import OrderUpdate
from alpaca_broker.core.orders import BUSTS, CLOSED, FILLS, OrderEvent

GONE = "gone"  # Alpaca knows it no more
HOLD_S = 5.0  # an event whose predecessor is missing
ROUNDING = Decimal("0.00000001")  # between sums of rounded quantities


class Order(Struct):
    """One order. Quantities are cumulative; times are epoch seconds."""

    status: str
    filled_qty: Decimal
    first_seen: float
    changed_at: float | None = None
    fills: set[Decimal] = field(default_factory=set)
    merged: list[tuple[Decimal, Decimal]] = field(default_factory=list)  # told as one fill
    busted: set[Decimal] = field(default_factory=set)  # may be filled once more
    busted_from: Decimal | None = None  # also any quantity above this that was not told alone
    busted_at: float = 0.0
    untold: set[Decimal] = field(default_factory=set)  # shown by the first snapshot ever
    told: dict[str, float] = field(default_factory=dict)  # by REST: event -> until when it stands
    held: list[tuple[float, OrderEvent]] = field(default_factory=list)  # since when, what
    last: OrderUpdate | None = None
    looked_up_at: float | None = None  # by its id, when it was not among the open ones
    gone_at: float | None = None  # when Alpaca first said that it knows none

    @property
    def is_open(self) -> bool:
        """Whether it can still change."""
        return self.status not in CLOSED and self.status != GONE

    @property
    def told_until(self) -> float:
        """When the last of it that was told happened."""
        return self.last.timestamp if self.last is not None else self.first_seen

    def has_fill(self, quantity: Decimal) -> bool:
        """Whether the fill up to this quantity has been told, alone or with others."""
        return quantity in self.fills or any(low < quantity <= high for low, high in self.merged)

    def bust(self, filled_qty: Decimal, at: float) -> None:
        """What was filled above this quantity does not count, and may be filled once more."""
        self.busted |= {cum for cum in self.fills if cum > filled_qty}
        self.busted_from = min(self.busted_from or filled_qty, filled_qty)
        self.busted_at = max(self.busted_at, at)

    def may_refill(self, quantity: Decimal) -> bool:
        """Whether a known fill up to this quantity may be another one: the first was busted."""
        if self.busted_from is None or quantity <= self.busted_from:
            return False
        return quantity in self.busted or quantity not in self.fills


def before(update: OrderUpdate) -> Decimal:
    """The quantity that was filled before this event."""
    if update.event in FILLS:
        return update.filled_qty - (update.execution_qty or update.filled_qty)
    return update.filled_qty


def in_its_order(update: OrderUpdate) -> tuple[Decimal, bool]:
    """Sorts an order's events: a fill goes before what else happened at the quantity it made."""
    return update.filled_qty, update.event not in FILLS


def lacks(order: Order, update: OrderUpdate) -> bool:
    """Whether a fill before this event has not been told."""
    if update.event in BUSTS or (update.event in FILLS and update.execution_qty is None):
        return False
    return before(update) > order.filled_qty + ROUNDING


def is_older(order: Order, event: OrderEvent) -> bool:
    """Whether the event comes from before what is known: then it changes nothing."""
    update = event.update
    if update.event in BUSTS or order.status in ("", GONE):
        return False
    if update.filled_qty != order.filled_qty:
        return update.filled_qty < order.filled_qty
    if order.is_open is not (update.status not in CLOSED):
        return not order.is_open  # closed is the end, whatever the times say
    known, changed_at = order.changed_at, event.changed_at
    return known is not None and changed_at is not None and changed_at < known
