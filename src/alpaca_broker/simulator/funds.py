"""What orders cost, and what an account can afford.

Owns the arithmetic of buying power. Invariant: no margin; short positions bind their value twice,
open orders what they would cost. Pure: prices are an argument.
"""

from collections.abc import Callable
from decimal import Decimal

from alpaca_broker.simulator.accounts import Account
from alpaca_broker.simulator.instruments import SHARE
from alpaca_broker.simulator.orders import FORBIDDEN, Order, OrderRefused, OrderRequest, invalid

Price = Callable[[str], Decimal | None]


def buying_power(account: Account, price: Price, instead_of: Order | None = None) -> Decimal:
    """Dollars left for new orders, or for one `instead_of` another."""
    short = sum(
        (
            -held.qty * (price(symbol) or held.average)
            for symbol, held in account.positions.items()
            if held.qty < 0
        ),
        Decimal(0),
    )
    reserved = sum(
        (
            _cost(account, order.request, order.remaining, price)
            for order in account.open_orders.values()
            # What closes a bracket was paid for with its entry.
            if order is not instead_of and order.parent is None
        ),
        Decimal(0),
    )
    return max(Decimal(0), account.cash - 2 * short - reserved)


def check(
    account: Account, request: OrderRequest, price: Price, instead_of: Order | None = None
) -> None:
    """Raises `OrderRefused` where the account cannot afford an order."""
    qty = request.qty
    cost = _cost(account, request, qty, price)
    if request.side == "sell" and request.instrument is not SHARE:
        held = account.held_for_orders(request.symbol, instead_of)
        if qty is None or qty + held > account.position_qty(request.symbol):
            raise OrderRefused(403, FORBIDDEN, "insufficient balance: only shares are sold short")
        return
    if request.side == "sell" and qty is not None:
        held = account.held_for_orders(request.symbol, instead_of)
        cost = _cost(account, request, qty + held, price)
        if cost and qty % 1:
            raise invalid("fractional orders cannot be sold short")
    if cost > buying_power(account, price, instead_of):
        raise OrderRefused(403, FORBIDDEN, "insufficient buying power")


def _cost(account: Account, request: OrderRequest, qty: Decimal | None, price: Price) -> Decimal:
    """Dollars an order binds; selling what one has binds nothing."""
    each = request.limit_price or request.stop_price or price(request.symbol)
    if request.side == "sell":
        short = (qty or Decimal(0)) - max(Decimal(0), account.position_qty(request.symbol))
        return max(Decimal(0), short) * (each or Decimal(0))
    if qty is None:
        return request.notional or Decimal(0)
    return qty * (each or Decimal(0)) * request.instrument.multiplier
