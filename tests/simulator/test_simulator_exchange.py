"""The pure exchange: what the wire makes hard to see."""

from collections.abc import Callable
from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from alpaca_broker.simulator import SimulatorOptions
from alpaca_broker.simulator.accounts import Position
from alpaca_broker.simulator.exchange import Exchange
from alpaca_broker.simulator.market import Trade
from alpaca_broker.simulator.orders import OrderRefused, OrderRequest


class Floor:
    """An exchange with a clock that ticks at every look and a price set by hand."""

    def __init__(self, **options: Any) -> None:
        ticks = count(1_700_000_000 * 10**9)
        self.heard: list[dict[str, Any]] = []
        self.exchange = Exchange(
            SimulatorOptions(**options),
            lambda: next(ticks),
            lambda symbol: None,
            lambda account, update: self.heard.append(update),
        )
        self.account = self.exchange.account("PK1")

    def trade(self, price: float) -> None:
        trade = Trade("A", 0, 1, "V", round(price * 10_000), 1, "A")
        self.exchange.on_trades("A", [trade])

    def order(self, qty: str, side: str = "buy", **more: str) -> Any:
        body = {"symbol": "A", "qty": qty, "side": side, "type": "market", "time_in_force": "day"}
        return self.exchange.submit(self.account, OrderRequest.parse(body | more))

    def events(self) -> list[str]:
        return [update["event"] for update in self.heard]


@pytest.fixture
def floor() -> Floor:
    return Floor()


def test_replacing_a_part_filled_order_keeps_the_rest(floor: Floor) -> None:
    """The successor has what is still to fill."""
    old = floor.order("250", type="limit", limit_price="10")
    floor.trade(9)
    new = floor.exchange.replace(floor.account, old, {"qty": "300"})
    assert (old.status, old.filled_qty) == ("replaced", 100)
    assert (new.qty, new.replaces) == (200, old.id)
    assert floor.events() == ["new", "partial_fill", "replaced", "new"]
    floor.trade(9)
    with pytest.raises(OrderRefused, match="greater than filled_qty"):
        floor.exchange.replace(floor.account, new, {"qty": "100"})


def test_huge_orders_fill_in_few_parts(floor: Floor) -> None:
    """At most five and a rest, however large."""
    floor.trade(0.01)
    floor.order("1000000")
    for _ in range(20):
        floor.exchange.work()
    assert floor.events() == ["new", *["partial_fill"] * 4, "fill"]


def test_event_ids_rise(floor: Floor) -> None:
    """Also within one millisecond."""
    for _ in range(50):
        floor.order("1")
    ids = [update["event_id"] for update in floor.heard]
    assert ids == sorted(set(ids))


def test_worthless_trades_are_no_price(floor: Floor) -> None:
    """A zero in the data fills nothing."""
    floor.order("1")
    floor.trade(0)
    floor.exchange.work()
    assert floor.events() == ["new"]


def test_a_sale_is_covered_once(floor: Floor) -> None:
    """Two sell orders cannot both deliver the same shares for nothing."""
    floor.trade(100)
    floor.order("1000")
    while floor.account.position_qty("A") < 1000:
        floor.exchange.work()
    floor.order("1000", "sell", type="limit", limit_price="200")
    with pytest.raises(OrderRefused, match="insufficient buying power"):
        floor.order("1", "sell")
    with pytest.raises(OrderRefused, match="sold short"):
        floor.order("0.5", "sell")


def test_old_orders_are_forgotten_above_the_bound() -> None:
    """Closed ones first; with open ones only, new orders are refused."""
    floor = Floor(order_limit=2)
    first, second = floor.order("1"), floor.order("1")
    with pytest.raises(OrderRefused, match="open orders"):
        floor.order("1")
    floor.exchange.cancel(floor.account, second)
    third = floor.order("1")
    assert list(floor.account.orders) == [first.id, third.id]


def test_closed_orders_cannot_be_changed(floor: Floor) -> None:
    """Neither cancelled nor replaced."""
    order = floor.order("1")
    floor.trade(5)
    floor.exchange.work()
    changes: list[Callable[[], object]] = [
        lambda: floor.exchange.cancel(floor.account, order),
        lambda: floor.exchange.replace(floor.account, order, {"qty": "2"}),
    ]
    for change in changes:
        with pytest.raises(OrderRefused, match='already in "filled" state'):
            change()


def test_average_price_of_a_position() -> None:
    """Adding averages, reducing keeps, crossing zero starts anew."""
    position = Position()
    for qty, price, average in [(1, 10, 10), (3, 20, "17.5"), (-2, 99, "17.5"), (-3, 30, 30)]:
        position.fill(Decimal(qty), Decimal(price))
        assert position.average == Decimal(average)
    assert position.qty == -1
