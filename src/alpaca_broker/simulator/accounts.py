"""An account: its money, its positions, its orders and the ledger of what happened to them.

Owns all that an account knows. Invariant: the ledger holds every event in the order it was
delivered, the oldest forgotten only above its bound. It fills no orders and reads no clock.
"""

import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from alpaca_broker.simulator.codec import rfc3339
from alpaca_broker.simulator.instruments import instrument_of
from alpaca_broker.simulator.orders import Order, OrderRefused, asset_id, number

_ACCOUNTS = uuid.UUID("0c9a5a0b-6c2e-5d59-8a57-2a1f0f0f7c11")


def account_id_of(key_id: str) -> str:
    """The account id behind a key id: always the same."""
    return str(uuid.uuid5(_ACCOUNTS, key_id))


@dataclass
class Position:
    """Shares held (negative: sold short) and what they cost on average."""

    qty: Decimal = Decimal(0)
    average: Decimal = Decimal(0)

    def fill(self, qty: Decimal, price: Decimal) -> None:
        """Take in a signed number of shares at a price."""
        after = self.qty + qty
        if self.qty * qty >= 0:
            self.average = (self.qty * self.average + qty * price) / after
        elif self.qty * after < 0:  # went through zero: what is left was bought at this price
            self.average = price
        self.qty = after


@dataclass(frozen=True)
class Fill:
    """An execution, when it happened and as the activities show it."""

    ns: int
    activity: dict[str, Any]


@dataclass
class Account:
    """One key's pretend account."""

    owner: str
    cash: Decimal
    created_ns: int
    ledger: deque[dict[str, Any]]
    fills: deque[Fill]
    order_limit: int
    positions: dict[str, Position] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    open_orders: dict[str, Order] = field(default_factory=dict)
    by_client_id: dict[str, Order] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The account id, derived from the key id."""
        return account_id_of(self.owner)

    @property
    def live(self) -> bool:
        """Whether its key is a live key; all others are paper keys."""
        return self.owner.startswith("AK")

    @property
    def account_number(self) -> str:
        """Like PA123456789."""
        return f"PA{uuid.UUID(self.id).int % 10**9:09d}"

    def add(self, order: Order) -> None:
        """Remember an order, forgetting the oldest closed one above the bound."""
        if len(self.orders) >= self.order_limit:
            oldest = next((o for o in self.orders.values() if not o.open), None)
            if oldest is None:
                raise OrderRefused(403, 40310000, f"more than {self.order_limit} open orders")
            del self.orders[oldest.id]
            self.by_client_id.pop(oldest.request.client_order_id, None)
        self.orders[order.id] = self.open_orders[order.id] = order
        self.by_client_id[order.request.client_order_id] = order

    def position_qty(self, symbol: str) -> Decimal:
        """Signed shares held."""
        position = self.positions.get(symbol)
        return position.qty if position else Decimal(0)

    def held_for_orders(self, symbol: str, but: Order | None = None) -> Decimal:
        """Shares that open sell orders are going to deliver."""
        return sum(
            (
                order.remaining or Decimal(0)
                for order in self.open_orders.values()
                if order is not but
                and order.request.side == "sell"
                and order.request.symbol == symbol
                and order.status != "held"
                # Of the two exits of a bracket only one is going to deliver.
                and not (order.parent and order.request.stop_price)
            ),
            Decimal(0),
        )

    def take_fill(self, symbol: str, qty: Decimal, price: Decimal) -> Decimal:
        """Book a signed fill; the position afterwards."""
        position = self.positions.setdefault(symbol, Position())
        position.fill(qty, price)
        self.cash -= qty * price * instrument_of(symbol).multiplier
        if not position.qty:
            del self.positions[symbol]
        return position.qty


def position_json(account: Account, symbol: str, price: Decimal) -> dict[str, Any]:
    """A position as the API shows it, valued at `price` [S PY44]."""
    position = account.positions[symbol]
    held = min(account.held_for_orders(symbol), abs(position.qty)) if position.qty > 0 else 0
    kind = instrument_of(symbol)
    size = position.qty * kind.multiplier
    value, cost = size * price, size * position.average
    gain = value - cost
    return {
        "asset_id": asset_id(symbol),
        "symbol": symbol,
        "exchange": kind.exchange,
        "asset_class": kind.asset_class,
        "asset_marginable": True,
        "qty": number(position.qty),
        "qty_available": number(position.qty - held),
        "avg_entry_price": number(round(position.average, 6)),
        "side": "long" if position.qty > 0 else "short",
        "market_value": number(round(value, 6)),
        "cost_basis": number(round(cost, 6)),
        "unrealized_pl": number(round(gain, 6)),
        "unrealized_plpc": number(round(gain / abs(cost), 9) if cost else Decimal(0)),
        "unrealized_intraday_pl": number(round(gain, 6)),
        "unrealized_intraday_plpc": number(round(gain / abs(cost), 9) if cost else Decimal(0)),
        "current_price": number(price),
        "lastday_price": number(price),
        "change_today": "0",
    }


def activity_json(order: Order, event: Mapping[str, Any]) -> dict[str, Any]:
    """A fill as GET /v2/account/activities shows it [D "Account Activities"; OAS]."""
    time = event["timestamp"]
    digits = "".join(filter(str.isdigit, time)).ljust(17, "0")[:17]
    return {
        "id": f"{digits}::{uuid.uuid4()}",
        "activity_type": "FILL",
        "transaction_time": time,
        "type": event["event"],
        "price": event["price"],
        "qty": event["qty"],
        "side": order.request.side,
        "symbol": order.request.symbol,
        "leaves_qty": number(order.remaining),
        "cum_qty": number(order.filled_qty),
        "order_id": order.id,
        "order_status": order.status,
    }


def account_json(
    account: Account, values: Mapping[str, Decimal], buying_power: Decimal
) -> dict[str, Any]:
    """An account as the API shows it; `values` are its positions' market values [S PY44; OAS]."""
    long = sum((value for value in values.values() if value > 0), Decimal(0))
    short = sum((value for value in values.values() if value < 0), Decimal(0))
    equity = number(round(account.cash + long + short, 6))
    power = number(round(buying_power, 6))
    none = ("initial_margin", "maintenance_margin", "last_maintenance_margin", "sma")
    return {
        "id": account.id,
        "account_number": account.account_number,
        "status": "ACTIVE",
        "crypto_status": "ACTIVE",
        "currency": "USD",
        "cash": number(round(account.cash, 6)),
        "buying_power": power,
        "regt_buying_power": power,
        "non_marginable_buying_power": power,
        "options_buying_power": power,
        "equity": equity,
        "last_equity": equity,
        "portfolio_value": equity,
        "long_market_value": number(round(long, 6)),
        "short_market_value": number(round(short, 6)),
        **dict.fromkeys(none, "0"),
        "multiplier": "1",
        "accrued_fees": "0",
        "pending_transfer_in": "0",
        "pending_transfer_out": "0",
        "options_approved_level": 2,
        "options_trading_level": 2,
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "trade_suspended_by_user": False,
        "shorting_enabled": True,
        "created_at": rfc3339(account.created_ns),
    }
