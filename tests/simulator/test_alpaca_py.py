"""Alpaca's own Python SDK, unmodified, cannot tell the simulator from Alpaca."""

import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.live.stock import StockDataStream
from alpaca.data.models import Bar, Quote, Trade
from alpaca.data.requests import (
    StockBarsRequest,
    StockLatestBarRequest,
    StockLatestQuoteRequest,
    StockLatestTradeRequest,
    StockQuotesRequest,
    StockTradesRequest,
)
from alpaca.data.timeframe import TimeFrame
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, OrderStatus, QueryOrderStatus, TimeInForce
from alpaca.trading.models import TradeUpdate
from alpaca.trading.requests import (
    ClosePositionRequest,
    GetCalendarRequest,
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    ReplaceOrderRequest,
)
from alpaca.trading.stream import TradingStream
from simulator_sdk import running, until

from alpaca_broker.simulator import SimulatorOptions, SimulatorThread, account_id_of

KEYS = ("PKSDK", "secret")


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorThread]:
    with SimulatorThread(SimulatorOptions(rate=100.0, rest_limit_per_min=None)) as thread:
        yield thread


@pytest.fixture
def client(simulator: SimulatorThread) -> Iterator[TradingClient]:
    made = TradingClient(*KEYS, url_override=simulator.url)
    yield made
    made.cancel_orders()
    made._session.close()


def limit_order(**more: Any) -> LimitOrderRequest:
    fields = {"symbol": "AAPL", "qty": 2, "side": OrderSide.BUY, "limit_price": 0.5}
    return LimitOrderRequest(**fields, time_in_force=TimeInForce.GTC, **more)


def market_order(qty: float = 2, symbol: str = "AAPL") -> MarketOrderRequest:
    return MarketOrderRequest(
        symbol=symbol, qty=qty, side=OrderSide.BUY, time_in_force=TimeInForce.DAY
    )


def test_data_stream(simulator: SimulatorThread) -> None:
    """Trades, quotes and bars arrive as the SDK's models; unsubscribing ends them."""
    stream = StockDataStream(*KEYS, url_override=simulator.url.replace("http", "ws") + "/v2/iex")
    found: dict[type, list[Any]] = {Trade: [], Quote: [], Bar: []}

    async def take(item: Any) -> None:
        found[type(item)].append(item)

    stream.subscribe_trades(take, "AAPL", "MSFT")
    stream.subscribe_quotes(take, "AAPL")
    stream.subscribe_bars(take, "*")
    with running(stream, wake=lambda: None):
        until(lambda: len(found[Trade]) > 20 and len(found[Quote]) > 20)
        bar = {"T": "b", "S": "X", "o": 1, "h": 2, "l": 1, "c": 2, "v": 3, "vw": 1.5, "n": 1}
        until(lambda: simulator.call(simulator.simulator.emit, "iex", bar) == 1)
        until(lambda: any(item.symbol == "X" for item in found[Bar]))
        until(lambda: {item.symbol for item in found[Trade]} == {"AAPL", "MSFT"})
        stream.unsubscribe_trades("MSFT")
        until(lambda: simulator.stats.unsubscribe_messages == 1)
    trade = found[Trade][0]
    assert abs(trade.timestamp - datetime.now(UTC)) < timedelta(minutes=1)
    assert (trade.conditions, trade.tape) == (["@"], "A")
    assert trade.id >= 1
    assert found[Quote][0].bid_price < found[Quote][0].ask_price


def test_orders_and_their_events(simulator: SimulatorThread, client: TradingClient) -> None:
    """A fill, a cancellation and a replacement, seen on the stream in order."""
    stream = TradingStream(*KEYS, url_override=simulator.url.replace("http", "ws") + "/stream")
    seen: list[TradeUpdate] = []

    async def take(update: TradeUpdate) -> None:
        seen.append(update)

    def events(order_id: Any) -> list[str]:
        return [update.event for update in seen if update.order.id == order_id]

    stream.subscribe_trade_updates(take)
    sessions = simulator.stats.trading_sessions
    wake = lambda: client.submit_order(limit_order())  # noqa: E731
    with running(stream, wake):
        until(lambda: simulator.stats.trading_sessions == sessions + 1)
        until(lambda: client.submit_order(limit_order()) and seen)  # listens by now
        filled = client.submit_order(market_order(250))
        until(lambda: events(filled.id) == ["new", "partial_fill", "partial_fill", "fill"])
        cancelled = client.submit_order(limit_order())
        client.cancel_order_by_id(cancelled.id)
        until(lambda: events(cancelled.id) == ["new", "canceled"])
        old = client.submit_order(limit_order())
        new = client.replace_order_by_id(old.id, ReplaceOrderRequest(limit_price=0.75))
        until(lambda: events(old.id) == ["new", "replaced"] and events(new.id) == ["new"])
        assert (new.replaces, new.limit_price) == (old.id, "0.75")
    fill = next(u for u in seen if u.order.id == filled.id and u.event == "fill")
    assert fill.order.status is OrderStatus.FILLED
    assert (fill.qty, fill.position_qty) == (50.0, 250.0)
    assert fill.execution_id
    assert fill.price
    ledger = simulator.call(simulator.simulator.ledger, account_id_of(KEYS[0]))
    assert [u["event"] for u in ledger if u["order"]["id"] == str(filled.id)] == events(filled.id)
    client.close_position("AAPL")


def test_order_queries(client: TradingClient) -> None:
    """Lists and look-ups parse into the SDK's order model."""
    order = client.submit_order(limit_order(client_order_id=f"query-{time.monotonic_ns()}"))
    assert client.get_order_by_id(order.id) == order
    assert client.get_order_by_client_id(order.client_order_id) == order
    request = GetOrdersRequest(status=QueryOrderStatus.OPEN, symbols=["AAPL"], limit=5)
    assert order.id in [found.id for found in client.get_orders(request)]
    cancelled = client.cancel_orders()
    assert order.id in [answer.id for answer in cancelled]
    request = GetOrdersRequest(status=QueryOrderStatus.CLOSED, after=order.submitted_at)
    assert all(found.status is not OrderStatus.NEW for found in client.get_orders(request))


def test_account_positions_assets_clock_calendar_activities(client: TradingClient) -> None:
    """Everything else that a bot asks for."""
    account = client.get_account()
    assert str(account.id) == account_id_of(KEYS[0])
    client.submit_order(market_order(3, "MSFT"))
    until(lambda: any(p.symbol == "MSFT" and p.qty == "3" for p in client.get_all_positions()))
    assert client.get_open_position("MSFT").qty == "3"
    fills = client.get("/account/activities/FILL", {"page_size": 1})
    assert (fills[0]["symbol"], fills[0]["qty"]) == ("MSFT", "3")
    closing = client.close_position("MSFT", ClosePositionRequest(qty="1"))
    assert (closing.side, closing.qty) == (OrderSide.SELL, "1")
    until(lambda: client.get_open_position("MSFT").qty == "2")
    assert [answer.status for answer in client.close_all_positions(cancel_orders=True)] != []
    until(lambda: client.get_all_positions() == [])
    assert client.get_asset("AAPL").tradable
    assert len(client.get_all_assets()) >= 30
    assert client.get_clock().is_open
    days = client.get_calendar(GetCalendarRequest(start=date(2026, 1, 1), end=date(2026, 1, 31)))
    assert days[0].open.hour == 9


def test_historical_data(simulator: SimulatorThread, client: TradingClient) -> None:
    """Latest values and recent history of a symbol with an open order."""
    data = StockHistoricalDataClient(*KEYS, url_override=simulator.url)
    client.submit_order(limit_order())
    until(lambda: "AAPL" in data.get_stock_latest_trade(_latest(StockLatestTradeRequest)))
    quotes = data.get_stock_latest_quote(_latest(StockLatestQuoteRequest))
    assert quotes["AAPL"].ask_price > 0
    assert data.get_stock_latest_bar(_latest(StockLatestBarRequest))["AAPL"].volume > 0
    start = datetime.now(UTC) - timedelta(minutes=1)
    trades = data.get_stock_trades(StockTradesRequest(symbol_or_symbols="AAPL", start=start))
    assert len(trades["AAPL"]) >= 1
    quotes = data.get_stock_quotes(StockQuotesRequest(symbol_or_symbols="AAPL", start=start))
    assert len(quotes["AAPL"]) >= 1
    request = StockBarsRequest(symbol_or_symbols="AAPL", timeframe=TimeFrame.Minute, start=start)
    assert data.get_stock_bars(request) is not None
    data._session.close()


def test_wrong_keys_and_missing_plans(caplog: pytest.LogCaptureFixture) -> None:
    """The SDK understands our refusals: 409 is terminal for it."""
    options = SimulatorOptions(refused_feeds=frozenset({"sip"}))
    caplog.set_level(logging.CRITICAL)
    with SimulatorThread(options) as simulator:
        stream = StockDataStream(
            *KEYS, url_override=simulator.url.replace("http", "ws") + "/v2/sip"
        )

        async def take(_: Any) -> None:
            return None

        stream.subscribe_trades(take, "AAPL")
        thread = threading.Thread(target=stream.run, name="sdk stream")
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
        assert simulator.stats.errors_sent == {409: 1}


def _latest(request: Any) -> Any:
    return request(symbol_or_symbols="AAPL")
