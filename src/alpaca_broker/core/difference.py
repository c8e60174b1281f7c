"""What REST shows of one order and nobody has told: the events that must have been.

Owns the way back from states to events. The stream tells `new`, `partial_fill`, `fill`; REST shows
an order that is filled, and its fills. States that an order left again are not shown, so they are
not made up; only its beginning is, since there must have been one.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from msgspec import Struct, structs

from alpaca_broker.core.known_order import HOLD_S, ROUNDING, Order
from alpaca_broker.core.messages import OrderUpdate
from alpaca_broker.core.orders import BEGINNINGS, CLOSED, Fill, OrderEvent, fill_key
from alpaca_broker.core.snapshot import ShownOrder, Snapshot

WAIT_FOR_FILLS_S = 10.0  # a filled quantity that no fill explains


class Missing(Struct, frozen=True):
    """An event that nobody has told, and how long to wait for a better source (0: as usual)."""

    event: OrderEvent
    patience_s: float = 0.0
    lacks_since: float | None = None  # a fill before it, and after this time, is not shown either


def missing(
    snapshot: Snapshot, order_id: str, fills: list[Fill], known: Order | None, floor: float
) -> Iterator[Missing]:
    """The events of one order in its own sequence; `fills` are those that are news."""
    order = snapshot.orders.get(order_id)
    if order is None:
        return  # a fill whose order could not be looked up: the next snapshot will
    if known is None:
        is_ours = order.created_at is None or order.created_at >= floor
        if not (is_ours or fills or order.status not in CLOSED):
            return
        yield from _event(_first(snapshot, order) if is_ours else None, order)
        if not is_ours and not fills:
            yield from _event(snapshot.update(order, order.status, order.reached_at()), order)
    filled, status = _told(order, fills, known, floor)
    average = known.last.filled_avg_price if known is not None and known.last else None
    told_until = known.told_until if known is not None else order.created_at or 0.0
    for fill in fills:
        update = _filled(snapshot, order, fill, filled, average)
        lacks = fill.cum_qty - fill.qty > filled + ROUNDING and not _was_busted(known)
        for one in _event(update, order):
            yield Missing(one.event, HOLD_S, told_until) if lacks else one
        told_until = fill.at
        average = update.filled_avg_price if update is not None else None
        filled, status = max(filled, fill.cum_qty), _status(fill)
    if order.filled_qty > filled and not (known is not None and known.busted):
        yield from _unexplained(snapshot, order, filled, average)
    if order.filled_qty < filled and order.status not in CLOSED:
        return  # the list of orders is older than the fills: the next one shows what came of it
    if _is_news(order, status, known):
        yield from _event(snapshot.update(order, order.status, order.reached_at()), order)


def beginning(update: OrderUpdate, created_at: float) -> OrderUpdate:
    """The `new` that must have come before an update."""
    return structs.replace(
        update,
        event="new",
        status="new",
        timestamp=created_at,
        source="reconcile",
        filled_qty=Decimal(0),
        filled_avg_price=None,
        execution_price=None,
        execution_qty=None,
        execution_id=None,
        position_qty=None,
    )


def _first(snapshot: Snapshot, order: ShownOrder) -> OrderUpdate | None:
    update = snapshot.update(order, order.status, order.reached_at())
    if update is None or (order.status in BEGINNINGS and not order.filled_qty):
        return update
    return beginning(update, order.created_at or update.timestamp)


def _was_busted(known: Order | None) -> bool:
    return known is not None and known.busted_from is not None


def _told(
    order: ShownOrder, fills: list[Fill], known: Order | None, floor: float
) -> tuple[Decimal, str]:
    """The quantity and the state that have been told when the first of these fills comes."""
    if known is not None and known.status:
        return known.filled_qty, known.status
    if order.created_at is None or order.created_at >= floor:
        return Decimal(0), order.status if order.status in BEGINNINGS else "new"
    # An old order of which we know nothing: what it had before is not ours to tell.
    return (fills[0].cum_qty - fills[0].qty, "") if fills else (order.filled_qty, order.status)


def _filled(
    snapshot: Snapshot, order: ShownOrder, fill: Fill, filled: Decimal, average: Decimal | None
) -> OrderUpdate | None:
    """A fill as an update; `filled` at `average` is what was before it."""
    is_last = fill.cum_qty == order.filled_qty
    return snapshot.update(
        order,
        fill.event,
        fill.at,
        status=_status(fill),
        filled_qty=fill.cum_qty,
        filled_avg_price=order.filled_avg_price if is_last else _average(fill, filled, average),
        execution_price=fill.price,
        execution_qty=fill.qty,
    )


def _status(fill: Fill) -> str:
    """After the fill; what REST calls `order_status` may be the order's present one."""
    return "filled" if fill.event == "fill" else "partially_filled"


def _average(fill: Fill, filled: Decimal, average: Decimal | None) -> Decimal | None:
    """The average price after a fill, where that before it is known."""
    if fill.price is None or fill.cum_qty - fill.qty != filled or (filled and average is None):
        return None
    value = fill.qty * fill.price + filled * (average or Decimal(0))
    return _rounded(value / fill.cum_qty)


def _unexplained(
    snapshot: Snapshot, order: ShownOrder, filled: Decimal, average: Decimal | None
) -> Iterator[Missing]:
    """One event for a quantity that REST's fills do not explain, when they have had their time."""
    qty, price = order.filled_qty - filled, order.filled_avg_price
    if filled and price is not None:
        value = price * order.filled_qty - average * filled if average is not None else None
        price = _rounded(value / qty) if value is not None else None
    is_filled = order.status == "filled"
    update = snapshot.update(
        order,
        "fill" if is_filled else "partial_fill",
        order.changed_at,
        status="filled" if is_filled else "partially_filled",
        execution_price=price,
        execution_qty=qty,
    )
    for one in _event(update, order):
        one.event.after = filled
        yield Missing(one.event, WAIT_FOR_FILLS_S)


def _rounded(price: Decimal) -> Decimal:
    """To a millionth, and never written as 1.5E+2."""
    rounded = round(price, 6).normalize()
    return rounded.quantize(Decimal(1)) if rounded == rounded.to_integral_value() else rounded


def _is_news(order: ShownOrder, status: str, known: Order | None) -> bool:
    """Whether the order is in a state that fills do not tell, and nobody has told."""
    if order.status in ("partially_filled", status):
        return False
    if order.status == "filled":  # all of it was told, but not that this is all
        return known is not None and known.is_open and known.filled_qty >= order.filled_qty
    if known is None or not known.status:
        return order.status not in BEGINNINGS or order.status in CLOSED
    if not known.is_open:
        return False
    if order.status in CLOSED or known.changed_at is None or order.changed_at is None:
        return True
    return order.changed_at > known.changed_at


def _event(update: OrderUpdate | None, order: ShownOrder) -> Iterator[Missing]:
    if update is None:
        return
    if update.execution_qty is not None:
        key = fill_key(update.order_id, update.filled_qty)
    else:
        key = f"state|{update.order_id}|{update.event}|{update.timestamp}"
    yield Missing(OrderEvent(update, key, order.changed_at, order.created_at))
