"""What bots import: prices and orders as they come, and word of everything that was missed.

`Client` and `AsyncClient` know the contract: they register, follow `seq`, `epoch` and heartbeat,
repair what was missed, and tell what was. `RedisPublisher` and `RedisSubscriber` only say and hear.
Owns the public names. Each is loaded when it is first used: who wants one does not wait for all.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alpaca_broker.errors import BrokerError, BusError, ConfigError, UsageError

if TYPE_CHECKING:
    from alpaca_broker.client.asynchronous import AsyncClient, AsyncStream
    from alpaca_broker.client.blocking import Client, Stream
    from alpaca_broker.client.market_data import (
        BarUpdate,
        News,
        OrderbookUpdate,
        QuoteUpdate,
        TradeCancel,
        TradeCorrection,
        TradingStatus,
    )
    from alpaca_broker.client.pubsub import CHANNELS, Handler, RedisPublisher, RedisSubscriber
    from alpaca_broker.client.subscription import Counters
    from alpaca_broker.client.updates import Gap, OrderUpdate, PriceUpdate, Status

__all__ = [
    "CHANNELS",
    "AsyncClient",
    "AsyncStream",
    "BarUpdate",
    "BrokerError",
    "BusError",
    "Client",
    "ConfigError",
    "Counters",
    "Gap",
    "Handler",
    "News",
    "OrderUpdate",
    "OrderbookUpdate",
    "PriceUpdate",
    "QuoteUpdate",
    "RedisPublisher",
    "RedisSubscriber",
    "Status",
    "Stream",
    "TradeCancel",
    "TradeCorrection",
    "TradingStatus",
    "UsageError",
]

# How long Redis may take, for all of them.
CONNECT_WITHIN_S = 3.0
ANSWER_WITHIN_S = 4.0
SILENT_FOR_S = 5.0  # then a subscriber pings, which must be answered in ANSWER_WITHIN_S

_HOMES = {
    "AsyncClient": "asynchronous",
    "AsyncStream": "asynchronous",
    "Client": "blocking",
    "Stream": "blocking",
    "Counters": "subscription",
    "TradingStatus": "market_data",
    "TradeCorrection": "market_data",
    "TradeCancel": "market_data",
    "QuoteUpdate": "market_data",
    "OrderbookUpdate": "market_data",
    "News": "market_data",
    "BarUpdate": "market_data",
    "Gap": "updates",
    "OrderUpdate": "updates",
    "PriceUpdate": "updates",
    "Status": "updates",
    "CHANNELS": "pubsub",
    "Handler": "pubsub",
    "RedisPublisher": "pubsub",
    "RedisSubscriber": "pubsub",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
