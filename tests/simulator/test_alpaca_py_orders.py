"""Alpaca's own Python SDK reads every life an order can have here."""

from collections.abc import Iterator

import pytest
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderClass, OrderSide, OrderStatus, QueryOrderStatus, TimeInForce
from alpaca.trading.models import Order, TradeUpdate
from alpaca.trading.requests import (
    GetOrdersRequest,
    MarketOrderRequest,
    StopLossRequest,
    TakeProfitRequest,
)

from alpaca_broker.simulator import SimulatorOptions, SimulatorThread, account_id_of

KEYS = ("PKSDK", "secret")


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorThread]:
    # While the market is closed an order rests, whatever the invented prices do.
    options = SimulatorOptions(rest_limit_per_min=None, market_open=False)
    with SimulatorThread(options) as thread:
        yield thread


@pytest.fixture
def client(simulator: SimulatorThread) -> Iterator[TradingClient]:
    made = TradingClient(*KEYS, url_override=simulator.url)
    yield made
    made._session.close()


def test_a_bracket_with_its_legs(client: TradingClient) -> None:
    """Placed, listed nested and flat, and cancelled."""
    placed = client.submit_order(
        MarketOrderRequest(
            symbol="AAPL",
            qty=2,
            side=OrderSide.BUY,
            time_in_force=TimeInForce.GTC,
            order_class=OrderClass.BRACKET,
            take_profit=TakeProfitRequest(limit_price=500),
            stop_loss=StopLossRequest(stop_price=5),
        )
    )
    assert isinstance(placed, Order)
    assert placed.legs is not None
    assert [leg.status for leg in placed.legs] == [OrderStatus.HELD] * 2
    (nested,) = client.get_orders(GetOrdersRequest(nested=True))
    assert [leg.id for leg in nested.legs] == [leg.id for leg in placed.legs]
    assert len(client.get_orders(GetOrdersRequest(nested=False))) == 3
    client.cancel_order_by_id(placed.id)
    (ended,) = client.get_orders(GetOrdersRequest(status=QueryOrderStatus.CLOSED, nested=True))
    assert {leg.status for leg in ended.legs} == {OrderStatus.CANCELED}


def test_every_event_of_a_day_is_a_trade_update(simulator: SimulatorThread) -> None:
    """The SDK's model is strict about statuses, times and numbers."""
    assert simulator.order_flow("PKDAY", events=400).result(10) == 400
    updates = simulator.call(simulator.simulator.ledger, account_id_of("PKDAY"))
    read = [TradeUpdate(**update) for update in updates]
    assert len(read) == 400
    assert {update.order.status for update in read} >= {
        *(OrderStatus.NEW, OrderStatus.HELD, OrderStatus.PARTIALLY_FILLED, OrderStatus.FILLED),
        *(OrderStatus.CANCELED, OrderStatus.REPLACED, OrderStatus.EXPIRED, OrderStatus.REJECTED),
    }
