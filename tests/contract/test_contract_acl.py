"""The page's ACL rules: all that a bot needs, and nothing that would hurt another."""

from __future__ import annotations

import re

import pytest
import redis
from contract_schema import DOCS
from support import Rig, buy, eventually

from alpaca_broker import Client
from alpaca_broker.client import OrderUpdate, PriceUpdate
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorThread

PAGE = (DOCS / "contract.md").read_text()


@pytest.fixture
def guarded(own_valkey: EmbeddedRedis) -> EmbeddedRedis:
    """A server that has the page's user."""
    [rules] = re.findall(r"```acl\n(.*?)```", PAGE, re.DOTALL)
    with redis.Redis(port=own_valkey.port) as admin:
        words = re.findall(r"\(.*?\)|\S+", rules)
        assert admin.execute_command("ACL", "SETUSER", *words)
    return own_valkey


def test_a_bot_has_all_that_it_needs(guarded: EmbeddedRedis, simulator: SimulatorThread) -> None:
    """The whole library: prices, orders with their journal, the last price, goodbye."""
    url = f"redis://bot:choose-a-password@127.0.0.1:{guarded.port}"
    with Rig(guarded, simulator) as rig:
        (account_id,) = rig.broker.status().accounts
        buy(simulator.url)
        eventually(lambda: rig.broker.counters["order_events"] == 2)
        with Client(url, bot_id="guarded") as client:
            prices, everything = client.prices("AAPL"), client.prices("*")
            orders = client.orders(account_id, since=0), client.orders(account_id)
            assert client.wait_ready()
            assert isinstance(next(prices), PriceUpdate)
            assert isinstance(next(everything), PriceUpdate)
            assert [next(orders[0]).seq for _ in range(2)] == [1, 2]  # type: ignore[union-attr]
            buy(simulator.url)
            assert isinstance(next(orders[1]), OrderUpdate)
            eventually(lambda: client.last("AAPL"))
            eventually(lambda: client.is_fresh("AAPL"))
            assert client.rejected == {}
            assert rig.broker.status().bots == 1
        eventually(lambda: rig.broker.status().bots == 0)


@pytest.mark.parametrize(
    "command",
    [
        "PUBLISH price:AAPL x",
        "PUBLISH order:acc x",
        "PUBLISH broker:status x",
        "HSET price:last AAPL x",
        "XADD journal:order:acc 9-0 data x",
        "DEL journal:order:acc",
        "HGETALL broker:registry",
        "SET broker:epoch 9",
        "SUBSCRIBE broker:registration",
        "EVAL return\x201 0",
        "KEYS *",
        "FLUSHALL",
        "CLIENT KILL TYPE pubsub",
        "CONFIG GET *",
    ],
)
def test_a_bot_can_do_nothing_else(guarded: EmbeddedRedis, command: str) -> None:
    """No forged price, no hand on the journal, no look at others."""
    bot = redis.Redis(port=guarded.port, username="bot", password="choose-a-password")
    with bot, pytest.raises(redis.exceptions.NoPermissionError):
        bot.execute_command(*command.split(" "))
