"""Alpaca's own Python SDK reads every life an order can have here."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import (
    AssetClass,
    OrderClass,
    OrderSide,
    OrderStatus,
    OrderType,
    QueryOrderStatus,
    TimeInForce,
)
from alpaca.trading.models import Order, TradeUpdate
from alpaca.trading.requests import (
    GetOrderByIdRequest,
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    StopLossRequest,
    TakeProfitRequest,
)
from support import eventually

from alpaca_broker.simulator import SimulatorOptions, SimulatorThread, account_id_of


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorThread]:
    # While the market is closed an order rests, whatever the invented prices do.
    options = SimulatorOptions(rest_limit_per_min=None, market_open=False)
    with SimulatorThread(options) as thread:
        yield thread


@pytest.fixture
def client(simulator: SimulatorThread) -> Iterator[TradingClient]:
    made = TradingClient(f"PK{uuid4().hex}", "secret", url_override=simulator.url)
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


def terms(order: Any) -> dict[str, Any]:
    """What the SDK would send, but for what orders by hand have as arguments."""
    fields: dict[str, Any] = order.to_request_fields()
    return {name: fields[name] for name in fields if name not in {"symbol", "qty", "side"}}


@pytest.mark.parametrize(
    ("exits", "leg_type"),
    [
        ({"take_profit": TakeProfitRequest(limit_price=500)}, OrderType.LIMIT),
        ({"stop_loss": StopLossRequest(stop_price=5)}, OrderType.STOP),
        ({"stop_loss": StopLossRequest(stop_price=5, limit_price=4)}, OrderType.STOP_LIMIT),
    ],
    ids=["take profit", "stop loss", "stop limit"],
)
def test_an_entry_with_one_exit(
    simulator: SimulatorThread, client: TradingClient, exits: Any, leg_type: OrderType
) -> None:
    """OTO: the exit is held, then new as soon as the entry has filled."""
    key = client._api_key
    hand = simulator.call(simulator.simulator.by_hand, key)
    order = market_order(
        "AAPL", OrderSide.BUY, TimeInForce.GTC, qty=2, order_class=OrderClass.OTO, **exits
    )
    entry = simulator.call(lambda: hand.place("AAPL", 2, **terms(order)))
    placed = client.get_order_by_id(entry, GetOrderByIdRequest(nested=True))
    (leg,) = placed.legs
    assert (placed.order_class, leg.order_class) == (OrderClass.OTO, OrderClass.OTO)
    assert (leg.type, leg.side, leg.status) == (leg_type, OrderSide.SELL, OrderStatus.HELD)
    simulator.call(hand.fill, entry)
    assert client.get_order_by_id(leg.id).status is OrderStatus.NEW
    simulator.call(hand.fill, str(leg.id))
    assert client.get_all_positions() == []
    events = [u["event"] for u in simulator.call(simulator.simulator.ledger, account_id_of(key))]
    assert events == ["new", "held", "fill", "new", "fill"]


@pytest.mark.parametrize("first", [0, 1], ids=["take profit", "stop loss"])
@pytest.mark.parametrize("end", ["fill", "cancel"])
def test_of_two_exits_one_ends_the_other(
    simulator: SimulatorThread, client: TradingClient, first: int, end: str
) -> None:
    """OCO: both are new at once; whichever ends takes the other with it."""
    key = client._api_key
    hand = simulator.call(simulator.simulator.by_hand, key)
    exits = LimitOrderRequest(
        symbol="AAPL", qty=2, side=OrderSide.SELL, time_in_force=TimeInForce.GTC,
        order_class=OrderClass.OCO, take_profit=TakeProfitRequest(limit_price=500),
        stop_loss=StopLossRequest(stop_price=5),
    )  # fmt: skip
    profit = simulator.call(lambda: hand.place("AAPL", 2, "sell", **terms(exits)))
    placed = client.get_order_by_id(profit, GetOrderByIdRequest(nested=True))
    (loss,) = placed.legs
    assert (placed.type, placed.limit_price, placed.status) == ("limit", "500", "new")
    assert (loss.type, loss.side, loss.stop_price, loss.status) == ("stop", "sell", "5", "new")
    assert {placed.order_class, loss.order_class} == {OrderClass.OCO}
    pair = [profit, str(loss.id)]
    simulator.call(getattr(hand, end), pair[first])
    ended, other = (client.get_order_by_id(pair[n]) for n in (first, 1 - first))
    assert ended.status is (OrderStatus.FILLED if end == "fill" else OrderStatus.CANCELED)
    assert other.status is OrderStatus.CANCELED
    updates = simulator.call(simulator.simulator.ledger, account_id_of(key))
    assert [TradeUpdate(**u).event for u in updates[2:]] == [
        ended.status.value.replace("filled", "fill"),
        "canceled",
    ]


def test_the_markets_trades_decide_which_exit_it_is() -> None:
    """Placed over REST for shares that are held: the stop triggers, the limit is canceled."""
    with SimulatorThread(SimulatorOptions(rest_limit_per_min=None, rate=0.001)) as simulator:
        client = TradingClient("PKOCO", "secret", url_override=simulator.url)
        bought = filled(client, market_order("AAPL", OrderSide.BUY, TimeInForce.DAY, qty=2))
        price = float(bought.filled_avg_price)
        exits = LimitOrderRequest(
            symbol="AAPL", qty=2, side=OrderSide.SELL, time_in_force=TimeInForce.GTC,
            order_class=OrderClass.OCO,
            take_profit=TakeProfitRequest(limit_price=round(price * 2, 2)),
            stop_loss=StopLossRequest(stop_price=round(price / 2, 2)),
        )  # fmt: skip
        placed = client.submit_order(exits)
        fall = {"T": "t", "S": "AAPL", "p": round(price / 3, 2), "s": 100}
        simulator.call(simulator.simulator.emit, "iex", fall)
        eventually(lambda: client.get_order_by_id(placed.id).status is OrderStatus.CANCELED)
        assert client.get_order_by_id(placed.legs[0].id).status is OrderStatus.FILLED
        assert client.get_all_positions() == []
        client._session.close()


def market_order(symbol: str, side: OrderSide, until: TimeInForce, **more: Any) -> Any:
    return MarketOrderRequest(symbol=symbol, side=side, time_in_force=until, **more)


def filled(client: TradingClient, order: Any) -> Order:
    """The order once it is."""
    placed = client.submit_order(order)

    def now() -> Any:
        found = client.get_order_by_id(placed.id)
        return found if found.status is OrderStatus.FILLED else None

    return eventually(now)


def test_coins_are_bought_at_any_hour_and_sold(client: TradingClient) -> None:
    """The stock market is closed; in parts of a coin, for dollars, by either spelling."""
    bought = filled(client, market_order("BTC/USD", OrderSide.BUY, TimeInForce.GTC, qty=0.0125))
    assert (bought.asset_class, bought.symbol) == (AssetClass.CRYPTO, "BTC/USD")
    assert 40_000 < float(bought.filled_avg_price) < 90_000
    more = filled(client, market_order("BTCUSD", OrderSide.BUY, TimeInForce.IOC, notional=100))
    assert (more.symbol, more.qty, more.notional) == ("BTC/USD", None, "100")
    (held,) = client.get_all_positions()
    assert held.asset_class is AssetClass.CRYPTO
    assert float(held.qty) == float(bought.filled_qty) + float(more.filled_qty)
    query = {"status": QueryOrderStatus.ALL, "symbols": ["BTCUSD"]}
    assert len(client.get_orders(GetOrdersRequest(**query))) == 2
    client.close_position("BTCUSD")
    eventually(lambda: not client.get_all_positions())
    assert float(client.get_account().cash) == pytest.approx(100_000, abs=50)


def test_contracts_are_traded_by_hundreds_of_shares() -> None:
    """While the market is open; each event is one that the SDK reads."""
    contract = "AAPL271217C00200000"
    with SimulatorThread(SimulatorOptions(rest_limit_per_min=None)) as simulator:
        client = TradingClient("PKOPT", "secret", url_override=simulator.url)
        bought = filled(client, market_order(contract, OrderSide.BUY, TimeInForce.DAY, qty=3))
        price = float(bought.filled_avg_price)
        assert (bought.asset_class, bought.symbol) == (AssetClass.US_OPTION, contract)
        assert float(client.get_account().cash) == pytest.approx(100_000 - 300 * price)
        (held,) = client.get_all_positions()
        assert (held.asset_class, float(held.cost_basis)) == (
            AssetClass.US_OPTION,
            pytest.approx(300 * price),
        )
        sale = LimitOrderRequest(
            symbol=contract, qty=3, side=OrderSide.SELL, time_in_force=TimeInForce.DAY,
            limit_price=0.01,
        )  # fmt: skip
        assert filled(client, sale).filled_qty == "3"
        assert client.get_all_positions() == []
        updates = simulator.call(simulator.simulator.ledger, account_id_of("PKOPT"))
        client._session.close()
    assert [TradeUpdate(**update).event for update in updates] == ["new", "fill"] * 2


def test_contracts_wait_for_the_market_to_open(client: TradingClient) -> None:
    """As shares do, and coins do not."""
    order = market_order("SPY271217P00500000", OrderSide.BUY, TimeInForce.DAY, qty=1)
    placed = client.submit_order(order)
    assert filled(client, market_order("ETH/USD", OrderSide.BUY, TimeInForce.GTC, qty=0.5))
    assert client.get_order_by_id(placed.id).status is OrderStatus.NEW
    client.cancel_order_by_id(placed.id)


@pytest.mark.parametrize(
    ("order", "why"),
    [
        (("BTC/USD", OrderSide.BUY, TimeInForce.DAY, 1), "invalid time_in_force for crypto"),
        (("BTC/USD", OrderSide.SELL, TimeInForce.GTC, 1), "only shares are sold short"),
        (("BTC/USD", OrderSide.BUY, TimeInForce.GTC, 100), "insufficient buying power"),
        (("ETH/BTC", OrderSide.BUY, TimeInForce.GTC, 1), "not found"),
        (("AAPL271217C00200000", OrderSide.BUY, TimeInForce.GTC, 1), "invalid time_in_force"),
        (("AAPL271217C00200000", OrderSide.BUY, TimeInForce.DAY, 1.5), "whole number"),
        (("AAPL271217C00200000", OrderSide.SELL, TimeInForce.DAY, 1), "only shares"),
        (("AAPL271217C00200000", OrderSide.BUY, TimeInForce.DAY, 10_000), "buying power"),
    ],
)
def test_what_is_refused(client: TradingClient, order: Any, why: str) -> None:
    """As by Alpaca, with a text that says why."""
    symbol, side, until, qty = order
    with pytest.raises(APIError, match=why):
        client.submit_order(market_order(symbol, side, until, qty=qty))


def test_every_event_of_a_day_is_a_trade_update(simulator: SimulatorThread) -> None:
    """The SDK's model is strict about statuses, times and numbers."""
    assert simulator.order_flow("PKDAY", events=400).result(60) == 400
    updates = simulator.call(simulator.simulator.ledger, account_id_of("PKDAY"))
    read = [TradeUpdate(**update) for update in updates]
    assert len(read) == 400
    assert {update.order.status for update in read} >= {
        *(OrderStatus.NEW, OrderStatus.HELD, OrderStatus.PARTIALLY_FILLED, OrderStatus.FILLED),
        *(OrderStatus.CANCELED, OrderStatus.REPLACED, OrderStatus.EXPIRED, OrderStatus.REJECTED),
    }
