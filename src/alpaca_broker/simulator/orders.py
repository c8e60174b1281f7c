"""An order: what may be asked for, what it looks like, and where it stands.

Owns the order's fields and the checks of a request. Invariant: all numbers leave as decimal
texts, as Alpaca sends them [D OLD orders.md]. It knows no account, no price and no clock.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from alpaca_broker.simulator.codec import rfc3339
from alpaca_broker.simulator.instruments import SHARE, Instrument, instrument_of, spelled

BAD_REQUEST = 42210000
FORBIDDEN = 40310000
TYPES = {"market", "limit", "stop", "stop_limit"}
TIMES_IN_FORCE = {"day", "gtc", "ioc", "fok"}
TERMINAL = frozenset({"filled", "canceled", "expired", "replaced", "rejected"})
_ID_LENGTH = 128
_SYMBOL_LENGTH = 32
_ASSETS = uuid.UUID("7f9cdd1a-3ea2-5a0e-9e41-6f6f4d6a4f52")
_SHARE_QUANTUM = Decimal("0.000000001")  # quantities have up to 9 decimals [D OLD]
_LIMIT = Decimal(10) ** 9


class OrderRefused(Exception):
    """A request that Alpaca would answer with an error: HTTP status, code and text."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message

    def __str__(self) -> str:
        return self.message


def invalid(message: str) -> OrderRefused:
    """Bad input: 422."""
    return OrderRefused(422, BAD_REQUEST, message)


def asset_id(symbol: str) -> str:
    """The made-up but stable asset id of a symbol."""
    return str(uuid.uuid5(_ASSETS, symbol))


def number(value: Decimal | None) -> str | None:
    """A number as Alpaca writes it: decimal digits without trailing zeros."""
    if value is None:
        return None
    return "0" if not value else f"{value.normalize():f}"


@dataclass(frozen=True)
class Bracket:
    """The prices of the exits that belong together, or to an entry."""

    take_profit: Decimal | None
    stop: Decimal | None
    stop_limit: Decimal | None
    order_class: str = "bracket"


@dataclass(frozen=True, kw_only=True)
class OrderRequest:
    """What a client asked for, checked."""

    symbol: str
    side: str
    type: str
    time_in_force: str
    qty: Decimal | None
    notional: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    extended_hours: bool
    client_order_id: str
    bracket: Bracket | None = None

    @property
    def instrument(self) -> Instrument:
        """What it is for."""
        return instrument_of(self.symbol)

    @classmethod
    def parse(cls, body: object, bracket: Bracket | None = None) -> "OrderRequest":
        """Read a request body, all but its legs. Raises `OrderRefused` with 422."""
        if not isinstance(body, Mapping):
            raise invalid("request body must be a JSON object")
        client_order_id = body.get("client_order_id") or str(uuid.uuid4())
        if not isinstance(client_order_id, str) or len(client_order_id) > _ID_LENGTH:
            raise invalid(f"client_order_id must be at most {_ID_LENGTH} characters")
        request = cls(
            symbol=_symbol(body.get("symbol")),
            side=_one_of(body, "side", {"buy", "sell"}),
            type=_one_of(body, "type", TYPES),
            time_in_force=_one_of(body, "time_in_force", TIMES_IN_FORCE),
            qty=positive(body, "qty"),
            notional=positive(body, "notional"),
            limit_price=positive(body, "limit_price"),
            stop_price=positive(body, "stop_price"),
            extended_hours=body.get("extended_hours") is True,
            client_order_id=client_order_id,
            bracket=bracket,
        )
        request._check()
        return request

    def _check(self) -> None:
        if (self.qty is None) == (self.notional is None):
            raise invalid("exactly one of qty or notional is required")
        kind = self.instrument
        for name, known in (("type", kind.types), ("time_in_force", kind.times_in_force)):
            if getattr(self, name) not in known:
                raise invalid(f"invalid {name} for {kind.asset_class}: {', '.join(sorted(known))}")
        is_share = kind is SHARE
        if kind.only_whole and (self.qty is None or self.qty % 1):
            raise invalid("qty must be a whole number of contracts")
        if self.notional is not None and (
            self.type != "market" or (is_share and self.time_in_force != "day")
        ):
            raise invalid("notional orders must be market orders with time_in_force day")
        if self.qty is not None and self.qty != self.qty.quantize(_SHARE_QUANTUM):
            raise invalid("qty has more than 9 decimals")
        if is_share and self.qty is not None and self.qty % 1 and self.time_in_force != "day":
            raise invalid("fractional orders must be DAY orders")
        if ("limit" in self.type) != (self.limit_price is not None):
            need = "require" if "limit" in self.type else "must not have"
            raise invalid(f"{self.type} orders {need} limit_price")
        if ("stop" in self.type) != (self.stop_price is not None):
            need = "require" if "stop" in self.type else "must not have"
            raise invalid(f"{self.type} orders {need} stop_price")
        if self.extended_hours and (
            not is_share or self.type != "limit" or self.time_in_force not in {"day", "gtc"}
        ):
            raise invalid("extended hours order must be DAY or GTC limit orders")


@dataclass(kw_only=True)
class Order:
    """An accepted order; times are nanoseconds since 1970."""

    id: str
    request: OrderRequest
    created_ns: int
    updated_ns: int
    status: str = "new"
    qty: Decimal | None = None  # of a notional order: known once there is a price
    filled_qty: Decimal = Decimal(0)
    filled_value: Decimal = Decimal(0)
    triggered: bool = False
    filled_ns: int | None = None
    canceled_ns: int | None = None
    replaced_ns: int | None = None
    expired_ns: int | None = None
    failed_ns: int | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    parent: "Order | None" = None
    legs: list["Order"] = field(default_factory=list)
    by_hand: bool = False  # the market leaves it alone

    @property
    def open(self) -> bool:
        """Whether anything can still happen to it."""
        return self.status not in TERMINAL

    @property
    def remaining(self) -> Decimal | None:
        """Shares still to fill; None for a notional order without a price."""
        return None if self.qty is None else self.qty - self.filled_qty

    @property
    def sign(self) -> int:
        """1 for a buy, -1 for a sell."""
        return 1 if self.request.side == "buy" else -1

    @property
    def order_class(self) -> str:
        """What it is part of."""
        bracket = (self.parent or self).request.bracket
        return bracket.order_class if bracket else "simple"

    def as_json(self, *, nested: bool = False) -> dict[str, Any]:
        """The order as the API shows it [D OLD orders.md; OAS; S PY44]; `nested` with its legs."""
        request = self.request
        average = self.filled_value / self.filled_qty if self.filled_qty else None
        return {
            "id": self.id,
            "client_order_id": request.client_order_id,
            "created_at": rfc3339(self.created_ns),
            "updated_at": rfc3339(self.updated_ns),
            "submitted_at": rfc3339(self.created_ns),
            "filled_at": _time(self.filled_ns),
            "expired_at": _time(self.expired_ns),
            "expires_at": None,
            "cancel_requested_at": _time(self.canceled_ns),
            "canceled_at": _time(self.canceled_ns),
            "failed_at": _time(self.failed_ns),
            "replaced_at": _time(self.replaced_ns),
            "replaced_by": self.replaced_by,
            "replaces": self.replaces,
            "asset_id": asset_id(request.symbol),
            "symbol": request.symbol,
            "asset_class": request.instrument.asset_class,
            "notional": number(request.notional),
            "qty": None if request.notional else number(self.qty),
            "filled_qty": number(self.filled_qty),
            "filled_avg_price": number(average and round(average, 6)),
            "order_class": self.order_class,
            "order_type": request.type,
            "type": request.type,
            "side": request.side,
            "time_in_force": request.time_in_force,
            "limit_price": number(request.limit_price),
            "stop_price": number(request.stop_price),
            "status": self.status,
            "extended_hours": request.extended_hours,
            "legs": [leg.as_json() for leg in self.legs] if nested and self.legs else None,
            "trail_percent": None,
            "trail_price": None,
            "hwm": None,
            "position_intent": None,
        }


def _time(ns: int | None) -> str | None:
    return None if ns is None else rfc3339(ns)


def _one_of(body: Mapping[str, Any], name: str, known: set[str]) -> str:
    value = body.get(name)
    if value is None:
        raise invalid(f"{name} is required")
    if not isinstance(value, str) or value not in known:
        raise invalid(f"invalid {name}: the simulator knows {', '.join(sorted(known))}")
    return value


def positive(body: Mapping[str, Any], name: str) -> Decimal | None:
    """A number above zero, None if it is left out. Raises `OrderRefused` with 422."""
    value = body.get(name)
    if value is None or value == "":
        return None
    try:
        parsed = Decimal(str(value))
    except InvalidOperation:
        raise invalid(f"{name} is not a number") from None
    if isinstance(value, bool) or not parsed.is_finite() or not 0 < parsed < _LIMIT:
        raise invalid(f"{name} must be > 0")
    return parsed


def _symbol(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise invalid("symbol is required")
    symbol = spelled(value)
    if not is_symbol(symbol) and instrument_of(symbol[:_SYMBOL_LENGTH]) is SHARE:
        raise invalid(f'asset "{value[:_SYMBOL_LENGTH]}" not found')
    return symbol


def is_symbol(value: str) -> bool:
    """Whether this could be a US stock's symbol."""
    letters = value.replace(".", "")
    return (
        0 < len(value) <= 10 and letters.isascii() and letters.isalnum() and value == value.upper()
    )
