"""The client in asyncio: the same promises, and a loop that is never blocked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fake_broker import ACCOUNT, FakeBroker
from support import eventually

from alpaca_broker import AsyncClient
from alpaca_broker.client import Gap, OrderUpdate, PriceUpdate, UsageError
from alpaca_broker.embedded import EmbeddedRedis


@pytest.fixture
async def client(valkey: EmbeddedRedis, prefix: str) -> AsyncIterator[AsyncClient]:
    """A client of the shared server."""
    async with AsyncClient(host="127.0.0.1", port=valkey.port, prefix=prefix) as made:
        yield made


async def eventually_true(condition: Any) -> None:
    """Wait for it, but not for ever."""
    await asyncio.to_thread(eventually, condition)


async def test_async_for_gets_every_price(broker: FakeBroker, client: AsyncClient) -> None:
    """In order, with gaps; it can be left and taken up again without loss."""
    prices = client.prices("AAPL")
    assert await client.wait_ready()
    broker.price("AAPL", 2)
    broker.price("AAPL", 2, lost=True)
    broker.price("AAPL", 2)
    got: list[Any] = []
    while len(got) < 5:
        async for update in prices:
            got.append(update)
            break
    assert [u.seq for u in got if isinstance(u, PriceUpdate)] == [1, 2, 5, 6]
    assert [g.missed for g in got if isinstance(g, Gap)] == [2]
    broker.price("AAPL")
    update = await anext(prices)
    assert update.seq == 7
    assert client.is_fresh("AAPL")
    assert client.state == "live"
    assert (await client.last("AAPL")).seq == 7
    assert client.counters.missed == 2
    assert client.rejected == {}


async def test_orders_read_the_journal_first(broker: FakeBroker, client: AsyncClient) -> None:
    """Then live, each once."""
    for _ in range(5):
        broker.order()
    got = []
    async for update in client.orders(ACCOUNT, since=2):
        if isinstance(update, OrderUpdate):
            got.append(update.seq)
        if len(got) == 3:
            broker.order()
        if len(got) == 4:
            break
    assert got == [3, 4, 5, 6]


async def test_handlers_may_be_coroutines(
    broker: FakeBroker, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Called from the loop, one after the other; one that fails is logged and called again."""
    got: list[int] = []
    orders: list[int] = []
    gaps: list[Any] = []

    async def handle(update: PriceUpdate) -> None:
        await asyncio.sleep(0)
        got.append(update.seq)
        if update.seq == 1:
            raise ValueError("broken")

    client.on_price("AAPL", handle)
    client.on_order(ACCOUNT, lambda update: orders.append(update.seq), since=0)
    client.on_gap(gaps.append)
    assert await client.wait_ready()
    broker.price("AAPL", 2)
    broker.price("AAPL", lost=True)
    broker.price("AAPL")
    broker.order()
    await eventually_true(lambda: (got, orders, len(gaps)) == ([1, 2, 4], [1], 1))
    assert "a handler failed" in caplog.text


async def test_plain_means_dicts(valkey: EmbeddedRedis, prefix: str, broker: FakeBroker) -> None:
    """As they were received."""
    async with AsyncClient(f"redis://127.0.0.1:{valkey.port}", prefix=prefix, plain=True) as client:
        prices: Any = client.prices("AAPL")
        assert await client.wait_ready()
        broker.price("AAPL")
        assert (await anext(prices))["seq"] == 1


async def test_a_blocked_loop_loses_nothing_it_need_not(
    valkey: EmbeddedRedis, prefix: str, broker: FakeBroker
) -> None:
    """While the loop does something else, the newest of each symbol is kept, and the rest told."""
    async with AsyncClient(host="127.0.0.1", port=valkey.port, prefix=prefix, queue=50) as client:
        prices = client.prices("AAPL")
        assert await client.wait_ready()
        broker.price("AAPL", 500)  # this blocks the loop
        await eventually_true(lambda: client.counters.received == 500)
        got: list[PriceUpdate] = []
        async for update in prices:
            assert isinstance(update, PriceUpdate)
            got.append(update)
            if update.seq == 500:
                break
        assert len(got) + sum(u.skipped for u in got) == 500
        assert client.counters.waiting == 0


async def test_closing_ends_every_stream(broker: FakeBroker, client: AsyncClient) -> None:
    """Also one that waits, from another task; the bot is unregistered; it can be done again."""
    prices = client.prices("AAPL")

    async def follow() -> list[Any]:
        return [update async for update in prices]

    task = asyncio.create_task(follow())
    assert await client.wait_ready()
    await client.close()
    await client.close()
    assert [u for u in await task if isinstance(u, PriceUpdate)] == []
    await eventually_true(lambda: broker.registrations[-1]["action"] == "unregister")
    with pytest.raises(UsageError, match="closed"):
        client.prices("AAPL")


async def test_a_stream_can_be_cancelled(broker: FakeBroker, client: AsyncClient) -> None:
    """As any task; what comes later is for the next who asks."""
    prices = client.prices("AAPL")
    assert await client.wait_ready()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(prices)
    broker.price("AAPL")
    assert (await anext(prices)).seq == 1
    prices.close()
    assert [update async for update in prices] == []
