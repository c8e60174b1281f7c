"""Orders that belong together: bracket, OTO (an entry and one exit) and OCO (two exits).

Owns what such a request must say and what its legs look like. Invariant: the legs close what the
entry opens: other side, same quantity; of two exits one ends the other. It moves no order; the
exchange does.
"""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from alpaca_broker.simulator.instruments import SHARE
from alpaca_broker.simulator.orders import Bracket, Order, OrderRequest, invalid, positive

OTO, OCO = "oto", "oco"


def request_of(body: Mapping[str, Any]) -> OrderRequest:
    """Read a request body with its legs. Raises `OrderRefused` with 422."""
    bracket = _bracket_of(body)
    if bracket is not None and bracket.order_class == OCO:
        body = {**body, "limit_price": str(bracket.take_profit)}  # it is the first exit itself
    return OrderRequest.parse(body, bracket)


def _bracket_of(body: Mapping[str, Any]) -> Bracket | None:
    order_class = body.get("order_class") or "simple"
    profit, loss = body.get("take_profit") or {}, body.get("stop_loss") or {}
    if order_class == "simple":
        if profit or loss or body.get("legs"):
            raise invalid("simple orders have no legs")
        return None
    if order_class not in {"bracket", OTO, OCO}:
        raise invalid(f"order class {order_class} is not supported by the simulator")
    if not isinstance(profit, Mapping) or not isinstance(loss, Mapping):
        raise invalid("take_profit and stop_loss must be JSON objects")
    limit, stop = positive(profit, "limit_price"), positive(loss, "stop_price")
    given = (limit is not None) + (stop is not None)
    if order_class == OTO and given != 1:
        raise invalid("oto orders require take_profit.limit_price or stop_loss.stop_price")
    if order_class != OTO and given != 2:
        raise invalid(
            f"{order_class} orders require take_profit.limit_price and stop_loss.stop_price"
        )
    return Bracket(limit, stop, positive(loss, "limit_price"), order_class)


def check(request: OrderRequest) -> None:
    """What Alpaca asks of an order with legs. Raises `OrderRefused` with 422."""
    if request.bracket is None:
        return
    name = request.bracket.order_class
    if request.instrument is not SHARE:
        raise invalid(f"no {name} orders of {request.instrument.asset_class}")
    types = {"limit"} if name == OCO else {"market", "limit"}
    if request.type not in types or request.time_in_force not in {"day", "gtc"}:
        raise invalid(f"{name} orders must be DAY or GTC {' or '.join(sorted(types))} orders")
    if request.extended_hours or request.qty is None or request.qty % 1:
        raise invalid(f"{name} orders must be for whole shares in regular hours")


def legs_of(entry: Order) -> list[Order]:
    """The exits of an accepted entry, held until it has filled; of an OCO the one beside it."""
    request, bracket = entry.request, entry.request.bracket
    if bracket is None:
        return []
    side = request.side
    if bracket.order_class != OCO:
        side = "sell" if side == "buy" else "buy"
    exit_ = replace(request, side=side, limit_price=None, bracket=None)
    exits = []
    if bracket.take_profit is not None and bracket.order_class != OCO:
        exits.append(replace(exit_, type="limit", limit_price=bracket.take_profit))
    if bracket.stop is not None:
        loss = replace(
            exit_,
            type="stop" if bracket.stop_limit is None else "stop_limit",
            stop_price=bracket.stop,
            limit_price=bracket.stop_limit,
        )
        exits.append(loss)
    return [_leg(entry, one, place) for place, one in enumerate(exits, 1)]


def _leg(entry: Order, request: OrderRequest, place: int) -> Order:
    return Order(
        id=str(uuid.uuid4()),
        request=replace(request, client_order_id=str(uuid.uuid4())),
        created_ns=entry.created_ns + place,
        updated_ns=entry.created_ns + place,
        status="new" if entry.order_class == OCO else "held",
        qty=request.qty,
        parent=entry,
        by_hand=entry.by_hand,
    )


def open_legs(order: Order) -> list[Order]:
    """The legs of an entry that may still change, the siblings of a leg; of an OCO the other."""
    entry = order.parent or order
    family = [entry, *entry.legs] if entry.order_class == OCO else entry.legs
    return [leg for leg in family if leg.open and leg is not order]
