"""Alpaca's own Python SDK on every kind of feed: its models take what the simulator says."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alpaca.data.historical import (
    CryptoHistoricalDataClient,
    NewsClient,
    OptionHistoricalDataClient,
    StockHistoricalDataClient,
)
from alpaca.data.live.crypto import CryptoDataStream
from alpaca.data.live.news import NewsDataStream
from alpaca.data.live.option import OptionDataStream
from alpaca.data.live.stock import StockDataStream
from alpaca.data.models import Bar, News, Orderbook, Quote, Trade, TradingStatus
from alpaca.data.requests import (
    CryptoLatestOrderbookRequest,
    CryptoTradesRequest,
    NewsRequest,
    OptionTradesRequest,
    StockTradesRequest,
)
from simulator_sdk import running, until

from alpaca_broker.simulator import SimulatorOptions, SimulatorThread

KEYS = ("PKSDK", "secret")
CONTRACT = "SPY301220P00500000"


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorThread]:
    with SimulatorThread(SimulatorOptions(rate=100.0, news_per_min=600.0)) as thread:
        yield thread


class Heard(list[Any]):
    """What a handler was given."""

    async def take(self, item: Any) -> None:
        self.append(item)

    def of(self, kind: type) -> list[Any]:
        return [item for item in self if isinstance(item, kind)]


def said(simulator: SimulatorThread, function: Callable[..., int], *args: Any) -> None:
    """Repeat until a session hears it: the SDK subscribes in the background."""
    until(lambda: simulator.call(function, *args) >= 1)


def url(simulator: SimulatorThread, path: str) -> str:
    return simulator.url.replace("http", "ws") + path


def test_stock_stream_channels(simulator: SimulatorThread) -> None:
    """Bars of all kinds, halts, bands, and the corrections that nobody subscribes to."""
    stream = StockDataStream(*KEYS, url_override=url(simulator, "/v2/iex"))
    heard, data = Heard(), simulator.simulator.data
    subscribe = (
        *(stream.subscribe_trades, stream.subscribe_bars, stream.subscribe_updated_bars),
        *(stream.subscribe_daily_bars, stream.subscribe_trading_statuses),
        *(stream.register_trade_corrections, stream.register_trade_cancels),
    )
    for function in subscribe:
        if "register" in function.__name__:
            function(heard.take)
        else:
            function(heard.take, "AAPL")
    with running(stream, wake=lambda: simulator.call(data.resume, "iex", "AAPL")):
        until(lambda: heard.of(Trade))
        said(simulator, data.halt, "iex", "AAPL")
        said(simulator, data.update_bar, "iex", "AAPL")
        bar = {"T": "d", "S": "AAPL", "o": 1, "h": 2, "l": 1, "c": 2, "v": 3, "vw": 1.5, "n": 1}
        said(simulator, data.emit, "iex", bar)
        said(simulator, data.correct, "iex", "AAPL")
        said(simulator, data.cancel_trade, "iex", "AAPL")
        until(lambda: len({type(item).__name__ for item in heard}) == 5)
    assert heard.of(TradingStatus)[0].status_code == "H"
    assert {bar.volume for bar in heard.of(Bar)} >= {3.0}
    names = {type(item).__name__ for item in heard}
    assert {"TradeCorrection", "TradeCancel"} <= names


def test_crypto_stream(simulator: SimulatorThread) -> None:
    """Trades, quotes, bars and order books of a pair."""
    stream = CryptoDataStream(*KEYS, url_override=url(simulator, "/v1beta3/crypto/us"))
    heard, data = Heard(), simulator.simulator.data
    stream.subscribe_trades(heard.take, "BTC/USD")
    stream.subscribe_quotes(heard.take, "BTC/USD")
    stream.subscribe_orderbooks(heard.take, "ETH/USD")
    stream.subscribe_updated_bars(heard.take, "BTC/USD")
    with running(stream, wake=lambda: None):
        until(lambda: all(heard.of(kind) for kind in (Trade, Quote, Orderbook)))
        said(simulator, data.update_bar, "crypto/us", "BTC/USD")
        until(lambda: heard.of(Bar))
    assert heard.of(Orderbook)[0].reset is True
    assert len(heard.of(Orderbook)[0].bids) == 10
    assert 50_000 < heard.of(Trade)[0].price < 90_000
    assert heard.of(Trade)[0].id > 2**53
    assert heard.of(Bar)[0].volume > 0


def test_option_stream(simulator: SimulatorThread) -> None:
    """Trades and quotes of a contract."""
    stream = OptionDataStream(*KEYS, url_override=url(simulator, "/v1beta1/indicative"))
    heard = Heard()
    stream.subscribe_trades(heard.take, CONTRACT)
    stream.subscribe_quotes(heard.take, CONTRACT)
    with running(stream, wake=lambda: None):
        until(lambda: heard.of(Trade) and heard.of(Quote))
    assert heard.of(Trade)[0].symbol == CONTRACT
    assert heard.of(Quote)[0].bid_price < heard.of(Quote)[0].ask_price


def test_news_stream(simulator: SimulatorThread) -> None:
    """Articles that come by themselves."""
    stream = NewsDataStream(*KEYS, url_override=url(simulator, "/v1beta1/news"))
    heard = Heard()
    stream.subscribe_news(heard.take, "*")
    with running(stream, wake=lambda: None):
        until(lambda: heard.of(News))
    assert heard.of(News)[0].symbols


def test_history_of_every_kind(simulator: SimulatorThread) -> None:
    """What was emitted is found again, over as many pages as it takes."""
    emit = simulator.simulator.data.emit
    for number in range(3):
        trade = {"T": "t", "S": "HIST", "p": 1.5, "s": 2, "i": number}
        simulator.call(emit, "iex", trade)
        simulator.call(emit, "crypto/us", trade | {"S": "HIST/USD"})
        simulator.call(emit, "opra", trade | {"S": CONTRACT.replace("SPY", "HIST"), "c": "I"})
    simulator.call(simulator.simulator.data.publish, ["HIST"], "a story")
    start = datetime.now(UTC) - timedelta(minutes=1)
    asked = {"symbol_or_symbols": "HIST", "start": start}
    stocks = StockHistoricalDataClient(*KEYS, url_override=simulator.url)
    coins = CryptoHistoricalDataClient(url_override=simulator.url)
    options = OptionHistoricalDataClient(*KEYS, url_override=simulator.url)
    news = NewsClient(*KEYS, url_override=simulator.url)
    found = stocks.get_stock_trades(StockTradesRequest(**asked))["HIST"]
    assert [trade.id for trade in found] == [0, 1, 2]
    asked["symbol_or_symbols"] = "HIST/USD"
    assert len(coins.get_crypto_trades(CryptoTradesRequest(**asked))["HIST/USD"]) == 3
    asked["symbol_or_symbols"] = contract = CONTRACT.replace("SPY", "HIST")
    assert len(options.get_option_trades(OptionTradesRequest(**asked))[contract]) == 3
    books = coins.get_crypto_latest_orderbook(
        CryptoLatestOrderbookRequest(symbol_or_symbols="BTC/USD")
    )
    assert len(books["BTC/USD"].asks) == 10
    assert news.get_news(NewsRequest(symbols="HIST")).data["news"][0].headline == "a story"
    for client in (stocks, coins, options, news):
        client._session.close()
