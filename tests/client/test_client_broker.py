"""The client and the real broker, with a simulated Alpaca behind it."""

from __future__ import annotations

from typing import Any

from support import Rig, buy, eventually

from alpaca_broker import AsyncClient, Client
from alpaca_broker.client import Gap, OrderUpdate, PriceUpdate


def client_of(rig: Rig, **options: Any) -> Client:
    """A client of the broker's Redis, under its prefix."""
    port, prefix = rig.valkey.port, rig.channels.prefix
    return Client(host="127.0.0.1", port=port, prefix=prefix, **options)


def test_prices_flow_for_who_asks(rig: Rig) -> None:
    """Nothing but the client: it registers, prices come, and they are fresh."""
    with client_of(rig) as client:
        prices = client.prices("AAPL", "MSFT")
        assert client.wait_ready()
        got = [next(prices) for _ in range(20)]
        assert all(isinstance(item, PriceUpdate) for item in got)
        assert {item.symbol for item in got if isinstance(item, PriceUpdate)} <= {"AAPL", "MSFT"}
        eventually(lambda: client.is_fresh("AAPL"))
        assert client.state == "live"
        assert client.counters.missed == 0
    eventually(lambda: not rig.broker.symbols)


def test_orders_are_heard_once_and_in_order(rig: Rig) -> None:
    """From the journal and live, with the broker's own journal."""
    [account] = rig.broker.status().accounts
    buy(rig.simulator.url)
    with client_of(rig) as client:
        orders = client.orders(account, since=0)
        first = next(orders)
        buy(rig.simulator.url, "MSFT")
        got = [first]
        while [u.status for u in got if isinstance(u, OrderUpdate)].count("filled") < 2:
            got.append(next(orders))
        numbers = [u.seq for u in got if isinstance(u, OrderUpdate)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert not [gap for gap in got if isinstance(gap, Gap)]


async def test_asyncio_with_the_real_broker(rig: Rig) -> None:
    """The same with `async for`."""
    place = {"host": "127.0.0.1", "port": rig.valkey.port, "prefix": rig.channels.prefix}
    async with AsyncClient(**place) as client:
        prices = client.prices("AAPL", gaps=False)
        assert await client.wait_ready()
        numbers = []
        async for update in prices:
            numbers.append(update.seq)
            if len(numbers) == 5:
                break
        assert numbers == list(range(numbers[0], numbers[0] + 5))


def test_a_restarted_broker_is_followed(rig: Rig) -> None:
    """The next process takes a higher epoch: prices flow again without the bot's help."""
    with client_of(rig) as client:
        prices = client.prices("AAPL")
        assert client.wait_ready()
        first = next(prices)
        assert rig.broker.stop()
        with Rig(rig.valkey, rig.simulator, prefix=rig.channels.prefix):
            reasons = set()
            while not isinstance(update := next(prices), PriceUpdate) or update.epoch == (
                first.epoch if isinstance(first, PriceUpdate) else 0
            ):
                reasons |= {update.reason} if isinstance(update, Gap) else set()
            assert "epoch" in reasons
            eventually(lambda: client.is_fresh("AAPL"))
