"""The pretend exchange: takes orders, fills them against the market, tells what happened.

Owns the accounts and the matching. Invariant: every change of an order is one event, handed to
the listener and the ledger in the order it happened. Pure: time and prices are arguments.
"""

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from alpaca_broker.simulator import brackets, funds
from alpaca_broker.simulator.accounts import Account, Fill, account_id_of, activity_json
from alpaca_broker.simulator.codec import rfc3339
from alpaca_broker.simulator.event_ids import EventIds
from alpaca_broker.simulator.instruments import instrument_of
from alpaca_broker.simulator.market import SYMBOL_LIMIT, Trade
from alpaca_broker.simulator.options import SimulatorOptions
from alpaca_broker.simulator.orders import (
    Order,
    OrderRequest,
    invalid,
    number,
)

Listener = Callable[[Account, dict[str, Any]], None]
Clock = Callable[[], int]
_MOST_PARTS = 5
_SHARE_QUANTUM = Decimal("0.000000001")
_NARROW_NS = 10**9
_ENDED_NS = {
    "canceled": "canceled_ns",
    "expired": "expired_ns",
    "rejected": "failed_ns",
    "replaced": "replaced_ns",
}


class Exchange:
    """Accounts and their orders.

    Args:
        options: Cash, part size and bounds.
        clock: Nanoseconds since 1970 now.
        price: The price of a symbol that never traded, in units of its market, or None if the
            order has to wait.
        listener: Hears every event, in order.
        is_open: Whether the market is; `market_open` of the options if nobody knows better.
    """

    def __init__(
        self,
        options: SimulatorOptions,
        clock: Clock,
        price: Callable[[str], int | None],
        listener: Listener,
        is_open: Callable[[], bool] | None = None,
    ) -> None:
        self._options = options
        self._clock = clock
        self._first_price = price
        self._listener = listener
        self._is_open = is_open or (lambda: options.market_open)
        self._accounts: dict[str, Account] = {}
        self._prices: dict[str, Decimal] = {}
        self._open: dict[str, list[tuple[Account, Order]]] = {}
        self._event_ids = EventIds()
        self._last_submission = 0

    def account(self, owner: str) -> Account:
        """The account of a key id, opened at the first use."""
        account_id = account_id_of(owner)
        if (account := self._accounts.get(account_id)) is None:
            account = self._accounts[account_id] = Account(
                owner,
                self._options.cash,
                self._clock(),
                ledger=deque(maxlen=self._options.ledger_limit),
                fills=deque(maxlen=self._options.ledger_limit),
                order_limit=self._options.order_limit,
            )
        return account

    def find(self, account_id: str) -> Account | None:
        """An account by its id."""
        return self._accounts.get(account_id)

    def now_ns(self) -> int:
        """Nanoseconds since 1970 on its clock."""
        return self._clock()

    def open_symbols(self) -> Iterable[str]:
        """Symbols with open orders."""
        return self._open.keys()

    def price(self, symbol: str) -> Decimal | None:
        """The latest trade price, invented if the market can; None if nobody knows."""
        known = self._prices.get(symbol)
        if known is None and (first := self._first_price(symbol)) is not None:
            known = self._prices[symbol] = Decimal(first) / instrument_of(symbol).unit
        return known

    def submit(self, account: Account, request: OrderRequest) -> Order:
        """Take an order: `new` at once, fills later. Raises `OrderRefused`."""
        brackets.check(request)
        symbol = request.symbol
        is_one_too_many = symbol not in self._prices and len(self._prices) >= SYMBOL_LIMIT
        if is_one_too_many or symbol in self._options.unknown_assets:
            raise invalid(f'asset "{symbol}" not found')
        funds.check(account, request, self.price)
        return self.accept(account, request)

    def accept(
        self,
        account: Account,
        request: OrderRequest,
        *,
        submitted_ns: int | None = None,
        by_hand: bool = False,
    ) -> Order:
        """Take an order without asking for money; `by_hand` keeps the market away from it.

        Raises `OrderRefused` where its client_order_id is known.
        """
        self._check_unique(account, request.client_order_id)
        order = self._made(request, submitted_ns)
        order.by_hand = by_hand
        order.legs = brackets.legs_of(order)
        self._last_submission += len(order.legs)
        self._list(account, order, "new")
        for leg in order.legs:
            self._list(account, leg, leg.status)
        return order

    def _made(self, request: OrderRequest, submitted_ns: int | None = None) -> Order:
        if submitted_ns is None:
            submitted_ns = self._next_submission()
        return Order(
            id=str(uuid.uuid4()),
            request=request,
            created_ns=submitted_ns,
            updated_ns=submitted_ns,
            qty=request.qty,
        )

    def _next_submission(self) -> int:
        # Rising, so that `after` and `until` of GET /v2/orders tell any two orders apart, unless
        # somebody has set the clock back.
        now, last = self._clock(), self._last_submission
        self._last_submission = last + 1 if 0 <= last - now < _NARROW_NS else now
        return self._last_submission

    def cancel(self, account: Account, order: Order) -> None:
        """Cancel an open order. Raises `OrderRefused` with 422 if it is closed."""
        if not order.open:
            raise invalid(f'order is already in "{order.status}" state')
        self.end(account, order, "canceled")

    def replace(self, account: Account, order: Order, changes: Mapping[str, Any]) -> Order:
        """Replace an open order by a new one with these changes. Raises `OrderRefused`."""
        if not order.open:
            raise invalid(f'order is already in "{order.status}" state')
        if order.legs or order.status == "held":
            raise invalid("the simulator replaces no entry of a bracket, and no leg that is held")
        body = {
            name: getattr(order.request, name)
            for name in OrderRequest.__dataclass_fields__
            if name not in {"client_order_id", "bracket"}
        }
        if order.request.notional is not None:
            raise invalid("notional orders cannot be replaced")
        known = ("qty", "time_in_force", "limit_price", "stop_price", "client_order_id")
        request = OrderRequest.parse(
            body | {name: changes[name] for name in known if changes.get(name) is not None}
        )
        self._check_unique(account, request.client_order_id)
        if request.qty is not None and request.qty <= order.filled_qty:
            raise invalid("qty must be greater than filled_qty")
        if request.qty is not None:  # the successor has what is still to fill [I]
            request = replace(request, qty=request.qty - order.filled_qty)
        if not order.by_hand:
            funds.check(account, request, self.price, instead_of=order)
        successor = self._made(request)
        successor.replaces = order.id
        successor.triggered, successor.by_hand = order.triggered, order.by_hand
        if (entry := order.parent) is not None:
            successor.parent = entry
            entry.legs.append(successor)
        order.replaced_by = successor.id
        self.end(account, order, "replaced")
        self._list(account, successor, "new")
        return successor

    def on_trades(self, symbol: str, trades: Sequence[Trade]) -> None:
        """Hear trades of the market: stops trigger, limits fill when the price crosses them."""
        if symbol not in self._open:
            trades = trades[-1:]  # nobody waits for what happened in between
        unit = instrument_of(symbol).unit
        for trade in trades:
            if trade.price <= 0:
                continue  # real files have such rows; nothing can be bought for nothing
            self._prices[symbol] = price = Decimal(trade.price) / unit
            self._match(symbol, price, resting_only=True)

    def work(self) -> None:
        """Fill what the latest prices allow, one part of each order; call it again and again."""
        for symbol in list(self._open):
            if (price := self.price(symbol)) is not None:
                self._match(symbol, price, resting_only=False)
            else:
                self._drop_impatient(symbol)

    def buying_power(self, account: Account) -> Decimal:
        """Dollars left for new orders."""
        return funds.buying_power(account, self.price)

    def _list(self, account: Account, order: Order, event: str) -> None:
        account.add(order)
        if not order.by_hand:
            self._open.setdefault(order.request.symbol, []).append((account, order))
        self._tell(account, order, event)

    def _match(self, symbol: str, price: Decimal, *, resting_only: bool) -> None:
        for account, order in list(self._open.get(symbol, ())):
            if resting_only and order.request.type == "market":
                continue  # filled by work(), shortly after its `new`
            if not order.open or order.status == "held":
                continue  # ended while we went through them, or not its turn yet
            self._trigger(order, price)
            if not self._may_fill(order, price):
                if order.request.time_in_force in {"ioc", "fok"} and not resting_only:
                    self.end(account, order, "canceled")
                continue
            whole = order.request.time_in_force in {"ioc", "fok"}
            self._fill_part(account, order, price)
            while whole and order.open:
                self._fill_part(account, order, price)

    def _trigger(self, order: Order, price: Decimal) -> None:
        if (stop := order.request.stop_price) is not None and not order.triggered:
            order.triggered = self._trades_now(order) and (price - stop) * order.sign >= 0

    def _may_fill(self, order: Order, price: Decimal) -> bool:
        request = order.request
        if not self._trades_now(order) or (request.stop_price is not None and not order.triggered):
            return False
        return request.limit_price is None or (request.limit_price - price) * order.sign >= 0

    def _trades_now(self, order: Order) -> bool:
        request = order.request
        return self._is_open() or request.extended_hours or request.instrument.always_open

    def _fill_part(self, account: Account, order: Order, price: Decimal) -> None:
        if order.qty is None:
            notional = order.request.notional or Decimal(0)
            order.qty = max(_SHARE_QUANTUM, (notional / price).quantize(_SHARE_QUANTUM))
        part_size = max(Decimal(self._options.fill_part), order.qty // _MOST_PARTS)
        self.execute(account, order, min(order.qty - order.filled_qty, part_size), price)

    def execute(self, account: Account, order: Order, qty: Decimal, price: Decimal) -> None:
        """Fill `qty` shares of an open order, no more than it has left, at a price."""
        order.filled_qty += qty
        order.filled_value += qty * price
        done = order.filled_qty == order.qty
        order.status = "filled" if done else "partially_filled"
        order.filled_ns = self._clock()
        position = account.take_fill(order.request.symbol, qty * order.sign, price)
        if done:
            self._close(account, order)
        execution = {"price": number(price), "qty": number(qty), "position_qty": number(position)}
        event = self._tell(account, order, "fill" if done else "partial_fill", **execution)
        account.fills.append(Fill(order.updated_ns, activity_json(order, event)))
        if done:
            self._follow(account, order)

    def end(self, account: Account, order: Order, status: str) -> None:
        """End an open order: canceled, expired, rejected or replaced."""
        order.status = status
        setattr(order, _ENDED_NS[status], self._clock())
        self._close(account, order)
        self._tell(account, order, status)
        if status != "replaced":
            self._follow(account, order)

    def _follow(self, account: Account, ended: Order) -> None:
        """What the end of an order means for those that belong to it."""
        of_equals = ended.parent is not None or ended.order_class == brackets.OCO
        for leg in brackets.open_legs(ended):
            if not leg.open:
                continue  # ended with the leg before
            if of_equals or not ended.filled_qty:
                self.end(account, leg, "canceled")
            elif leg.status == "held":
                leg.status, leg.qty = "new", ended.filled_qty
                self._tell(account, leg, "new")

    def _close(self, account: Account, order: Order) -> None:
        account.open_orders.pop(order.id, None)
        if order.by_hand:
            return
        symbol = order.request.symbol
        self._open[symbol] = [pair for pair in self._open[symbol] if pair[1] is not order]
        if not self._open[symbol]:
            del self._open[symbol]

    def _drop_impatient(self, symbol: str) -> None:
        for account, order in list(self._open[symbol]):
            if order.request.time_in_force in {"ioc", "fok"}:
                self.end(account, order, "canceled")

    def _tell(
        self, account: Account, order: Order, event: str, **execution: str | None
    ) -> dict[str, Any]:
        order.updated_ns = now = self._clock()
        update: dict[str, Any] = {
            "event": event,
            "event_id": self._event_ids.next(now),
            "execution_id": str(uuid.uuid4()),
            "at": rfc3339(now),
            "timestamp": rfc3339(now),
            "order": order.as_json(),
            **execution,
        }
        account.ledger.append(update)
        self._listener(account, update)
        return update

    def _check_unique(self, account: Account, client_order_id: str) -> None:
        if client_order_id in account.by_client_id:
            raise invalid("client_order_id must be unique")
