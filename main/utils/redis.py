"""Redis for bots: the same as `alpaca_broker.client`."""

from __future__ import annotations

from alpaca_broker.client import CHANNELS, RedisPublisher, RedisSubscriber

__all__ = ["CHANNELS", "RedisPublisher", "RedisSubscriber"]
