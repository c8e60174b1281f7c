"""The lists a client reconciles with: orders and fill activities, filtered, in order, paged.

Owns the query parameters of both. Invariant: a page never skips or repeats what lies between two
reads of the same list; bounds in time exclude themselves. It changes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from alpaca_broker.simulator.accounts import Account, Fill
from alpaca_broker.simulator.instruments import spelled
from alpaca_broker.simulator.orders import Order, invalid
from alpaca_broker.simulator.rest import count_of, list_of, time_of

T = TypeVar("T")
Query = Mapping[str, str]
_ACTIVITY_TYPES = {"FILL"}


def orders(account: Account, query: Query) -> list[dict[str, Any]]:
    """What GET /v2/orders says. Raises `OrderRefused` with 422 for a parameter at fault."""
    wanted, limit = _wanted(query), count_of(query, "limit", 50, 500)
    nested = query.get("nested", "").lower() == "true"
    # By submission, not by arrival: an order from yesterday may have been told us today.
    found = sorted(filter(wanted, account.orders.values()), key=lambda order: order.created_ns)
    found = _between_ids(_directed(found, query), account, query)
    if nested:  # a leg whose entry is not in the answer stands for itself, else it were lost [I]
        listed = {order.id for order in found}
        found = [o for o in found if o.parent is None or o.parent.id not in listed]
    return [order.as_json(nested=nested) for order in found[:limit]]


def activities(account: Account, query: Query, types: Sequence[str]) -> list[dict[str, Any]]:
    """What GET /v2/account/activities says. Raises `OrderRefused` with 422."""
    after, until = time_of(query, "after"), time_of(query, "until")
    day, size = query.get("date", ""), count_of(query, "page_size", 100, 100)
    if day and (after is not None or until is not None):
        raise invalid("date and after or until exclude each other")
    fills = _directed(list(account.fills), query)
    if token := query.get("page_token"):
        ids = (place for place, fill in enumerate(fills) if fill.activity["id"] == token)
        if (place := next(ids, None)) is None:
            raise invalid("page_token is no id of an activity")
        fills = fills[place + 1 :]
    if types and not _ACTIVITY_TYPES & set(types):
        return []

    def wanted(fill: Fill) -> bool:
        return (
            (after is None or fill.ns > after)
            and (until is None or fill.ns < until)
            and (not day or fill.activity["transaction_time"].startswith(day))
        )

    return [fill.activity for fill in filter(wanted, fills)][:size]


def _directed(oldest_first: list[T], query: Query) -> list[T]:
    direction = query.get("direction") or "desc"
    if direction not in {"asc", "desc"}:
        raise invalid("direction must be asc or desc")
    return oldest_first if direction == "asc" else oldest_first[::-1]


def _wanted(query: Query) -> Callable[[Order], bool]:
    status, side = query.get("status") or "open", query.get("side") or ""
    if status not in {"open", "closed", "all"}:
        raise invalid("status must be open, closed or all")
    if side not in {"", "buy", "sell"}:
        raise invalid("side must be buy or sell")
    after, until = time_of(query, "after"), time_of(query, "until")
    symbols = {spelled(symbol) for symbol in list_of(query, "symbols")}
    classes = set(list_of(query, "asset_class")) - {"all"}

    def wanted(order: Order) -> bool:
        return (
            (not classes or order.request.instrument.asset_class in classes)
            and (status == "all" or order.open == (status == "open"))
            and (after is None or order.created_ns > after)
            and (until is None or order.created_ns < until)
            and (not symbols or order.request.symbol in symbols)
            and (not side or order.request.side == side)
        )

    return wanted


def _between_ids(found: list[Order], account: Account, query: Query) -> list[Order]:
    bounds = {name: query[name] for name in ("before_order_id", "after_order_id") if name in query}
    if not bounds:
        return found
    if len(bounds) > 1 or query.get("after") or query.get("until"):
        raise invalid("before_order_id, after_order_id and after or until exclude each other")
    ((name, order_id),) = bounds.items()
    if (bound := account.orders.get(order_id)) is None:
        raise invalid(f"{name} is no id of an order")
    if name == "after_order_id":
        return [order for order in found if order.created_ns > bound.created_ns]
    return [order for order in found if order.created_ns < bound.created_ns]
