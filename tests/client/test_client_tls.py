"""A bot's whole way to Redis over TLS, with a CA of one's own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fake_broker import ACCOUNT, FakeBroker
from support import eventually
from tls import tls_in_front_of

from alpaca_broker import AsyncClient
from alpaca_broker.client import OrderUpdate, RedisPublisher, RedisSubscriber
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.settings import RedisTarget


@pytest.mark.parametrize("by", ["url", "target"])
async def test_prices_and_orders_come_over_tls(
    valkey: EmbeddedRedis, prefix: str, broker: FakeBroker, tmp_path: Path, by: str
) -> None:
    """Bursts larger than a TLS record, the journal, and the numbers without a hole."""
    broker.order()
    async with tls_in_front_of(valkey.port, tmp_path) as (port, ca):
        target = RedisTarget("localhost", port, 0, tls=True, tls_ca=str(ca))
        url = f"rediss://localhost:{port}?ssl_ca_certs={ca}"
        client = (
            AsyncClient(url, prefix=prefix)
            if by == "url"
            else AsyncClient(target=target, prefix=prefix)
        )
        async with client:
            prices, orders = client.prices("AAPL", gaps=False), client.orders(ACCOUNT, since=0)
            assert await client.wait_ready()
            for _ in range(4):
                await asyncio.to_thread(broker.price, "AAPL", 1_000)
            assert [(await anext(prices)).seq for _ in range(4_000)] == list(range(1, 4_001))
            first = await anext(orders)
            assert isinstance(first, OrderUpdate)
            assert first.seq == 1
            broker.order()
            second = await anext(orders)
            assert isinstance(second, OrderUpdate)
            assert second.seq == 2
            last = await client.last("AAPL")
            assert last.seq == 4_000
            assert (client.counters.missed, client.counters.reconnects) == (0, 0)


async def test_a_server_that_nobody_vouches_for_is_not_spoken_to(
    valkey: EmbeddedRedis, prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its CA nothing is said, and the log tells why."""
    async with tls_in_front_of(valkey.port, tmp_path) as (port, _):
        async with AsyncClient(f"rediss://localhost:{port}", prefix=prefix) as client:
            client.prices("AAPL")
            await asyncio.to_thread(
                eventually, lambda: "certificate" in caplog.text.lower(), why=caplog.text
            )
            assert client.state == "unknown"


async def test_publisher_and_subscriber_speak_tls(
    valkey: EmbeddedRedis, prefix: str, tmp_path: Path
) -> None:
    """The doors of existing users."""
    async with tls_in_front_of(valkey.port, tmp_path) as (port, ca):
        target = RedisTarget("localhost", port, 0, tls=True, tls_ca=str(ca))
        heard: list[dict[str, object]] = []

        def talk() -> None:
            with (
                RedisSubscriber(target, prefix=prefix) as subscriber,
                RedisPublisher(target, prefix=prefix) as publisher,
            ):
                subscriber.subscribe("price:AAPL", heard.append)
                subscriber.start_listening()
                for n in range(3):
                    assert publisher.publish("price:AAPL", {"n": n}) == 1
                eventually(lambda: len(heard) == 3)

        await asyncio.to_thread(talk)
    assert heard == [{"n": 0}, {"n": 1}, {"n": 2}]
