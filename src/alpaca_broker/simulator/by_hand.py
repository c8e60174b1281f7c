"""Orders moved by hand: a test decides when they fill, in which parts, and how they end.

Owns nothing; it is the exchange's other hand. Invariant: the market never touches an order placed
here, money is not asked for, and each move is told and kept like any other event. Use it in the
simulator's loop: `thread.call(thread.simulator.by_hand("PK1").place, "AAPL", 10)`.
"""

from decimal import Decimal
from typing import Any

from alpaca_broker.simulator.accounts import Account
from alpaca_broker.simulator.brackets import request_of
from alpaca_broker.simulator.exchange import Exchange
from alpaca_broker.simulator.orders import Order

Quantity = int | str | Decimal
_DAY_NS = 86_400 * 10**9


class ByHand:
    """The orders of one account. Raises `OrderRefused` for what Alpaca would refuse."""

    def __init__(self, exchange: Exchange, account: Account) -> None:
        self._exchange = exchange
        self._account = account

    def place(
        self,
        symbol: str,
        qty: Quantity,
        side: str = "buy",
        *,
        submitted_ns: int | None = None,
        days_ago: float = 0,
        **more: Any,
    ) -> str:
        """Place an order that waits for `fill`; its id.

        Args:
            symbol: Of a stock.
            qty: Shares.
            side: "buy" or "sell".
            submitted_ns: When it was submitted, nanoseconds since 1970; now if it is left out.
            days_ago: Or how long ago; its events are from now all the same.
            more: What else POST /v2/orders takes, such as a client_order_id or the exits of a
                bracket.
        """
        body = {"symbol": symbol, "qty": str(qty), "side": side, "type": "market"}
        body |= {"time_in_force": "gtc"} | more
        if submitted_ns is None and days_ago:
            submitted_ns = self._exchange.now_ns() - round(days_ago * _DAY_NS)
        order = self._exchange.accept(
            self._account, request_of(body), submitted_ns=submitted_ns, by_hand=True
        )
        return order.id

    def fill(self, order_id: str, qty: Quantity | None = None, price: Quantity = 100) -> None:
        """Fill an order, whole or `qty` shares of it, at a price."""
        order = self._open(order_id)
        left = order.remaining or Decimal(0)
        part = left if qty is None else Decimal(qty)
        if order.status == "held" or not 0 < part <= left:
            raise ValueError(f"{part} shares of a {order.status} order that has {left} left")
        self._exchange.execute(self._account, order, part, Decimal(price))

    def cancel(self, order_id: str) -> None:
        """End an order as `canceled`."""
        self._exchange.end(self._account, self._open(order_id), "canceled")

    def expire(self, order_id: str) -> None:
        """End an order as `expired`, as at the end of its day."""
        self._exchange.end(self._account, self._open(order_id), "expired")

    def reject(self, order_id: str) -> None:
        """End an order as `rejected`, as an exchange does after it was taken."""
        self._exchange.end(self._account, self._open(order_id), "rejected")

    def replace(self, order_id: str, **changes: Any) -> str:
        """Replace an order by one with other terms; the id of the new one."""
        return self._exchange.replace(self._account, self._open(order_id), changes).id

    def legs(self, order_id: str) -> list[str]:
        """The ids of the legs: take profit, then stop loss; an OCO has the second only."""
        return [leg.id for leg in self._account.orders[order_id].legs]

    def _open(self, order_id: str) -> Order:
        order = self._account.orders[order_id]
        if not order.open:
            raise ValueError(f"order {order_id} is {order.status} already")
        return order
