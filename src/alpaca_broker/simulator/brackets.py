"""A bracket: an entry whose two exits wait for it.

Owns what a bracket request must say and what its legs look like. Invariant: the legs close what the
entry opens: other side, same quantity. It moves no order; the exchange does.
"""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from alpaca_broker.simulator.instruments import SHARE
from alpaca_broker.simulator.orders import Bracket, Order, OrderRequest, invalid, positive


def bracket_of(body: Mapping[str, Any]) -> Bracket | None:
    """The exits a request asks for, None for a simple order. Raises `OrderRefused` with 422."""
    order_class = body.get("order_class") or "simple"
    profit, loss = body.get("take_profit"), body.get("stop_loss")
    if order_class == "simple":
        if profit or loss or body.get("legs"):
            raise invalid("orders with legs are not supported by the simulator without a bracket")
        return None
    if order_class != "bracket":
        raise invalid(f"order class {order_class} is not supported by the simulator")
    if not isinstance(profit, Mapping) or not isinstance(loss, Mapping):
        raise invalid("bracket orders require take_profit and stop_loss")
    limit, stop = positive(profit, "limit_price"), positive(loss, "stop_price")
    if limit is None or stop is None:
        raise invalid("bracket orders require take_profit.limit_price and stop_loss.stop_price")
    return Bracket(limit, stop, positive(loss, "limit_price"))


def check(request: OrderRequest) -> None:
    """What Alpaca asks of the entry of a bracket. Raises `OrderRefused` with 422."""
    if request.bracket is None:
        return
    if request.instrument is not SHARE:
        raise invalid(f"no bracket orders of {request.instrument.asset_class}")
    if request.type not in {"market", "limit"} or request.time_in_force not in {"day", "gtc"}:
        raise invalid("the entry of a bracket must be a DAY or GTC market or limit order")
    if request.extended_hours or request.qty is None or request.qty % 1:
        raise invalid("bracket orders must be for whole shares in regular hours")


def legs_of(entry: Order) -> list[Order]:
    """The two exits of an accepted entry: held until it has filled."""
    request, bracket = entry.request, entry.request.bracket
    if bracket is None:
        return []
    exit_ = replace(
        request, side="sell" if request.side == "buy" else "buy", limit_price=None, bracket=None
    )
    profit = replace(exit_, type="limit", limit_price=bracket.take_profit)
    loss = replace(
        exit_,
        type="stop" if bracket.stop_limit is None else "stop_limit",
        stop_price=bracket.stop,
        limit_price=bracket.stop_limit,
    )
    return [_leg(entry, profit, 1), _leg(entry, loss, 2)]


def _leg(entry: Order, request: OrderRequest, place: int) -> Order:
    return Order(
        id=str(uuid.uuid4()),
        request=replace(request, client_order_id=str(uuid.uuid4())),
        created_ns=entry.created_ns + place,
        updated_ns=entry.created_ns + place,
        status="held",
        qty=request.qty,
        parent=entry,
        by_hand=entry.by_hand,
    )


def open_legs(order: Order) -> list[Order]:
    """The legs of an entry that may still change, the siblings of a leg."""
    family = order.parent.legs if order.parent else order.legs
    return [leg for leg in family if leg.open and leg is not order]
