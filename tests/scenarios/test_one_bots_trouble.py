"""One bot's trouble never touches another: floods, rubbish, bots that stop reading or die."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import redis
from support import Bot, Rig, buy

from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread


@pytest.fixture
def limited() -> Iterator[EmbeddedRedis]:
    """A server that cuts slow subscribers soon."""
    with EmbeddedRedis(**{"client-output-buffer-limit": "pubsub 1mb 512kb 5"}) as server:
        yield server


def test_a_bot_that_stops_reading_floods_or_talks_rubbish_hurts_nobody(
    limited: EmbeddedRedis,
) -> None:
    """The steady bot sees no hole and gets its prices as fresh as before."""
    options = SimulatorOptions(rate=100.0)
    with SimulatorThread(options) as simulator, Rig(limited, simulator) as rig:
        rig.register(*(f"S{n}" for n in range(20)), bot_id="steady")
        deaf = socket.create_connection(("127.0.0.1", limited.port))
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.sendall(b"PSUBSCRIBE price:*\r\n")  # and never reads
        over = threading.Event()
        flood = threading.Thread(target=_flood, args=(limited.port, over))
        flood.start()
        seqs: list[int] = []
        try:
            with rig.bot("price:S0") as steady:
                # Where the machine stood still for a moment, it is looked at once more.
                assert any(are_fresh(steady, seqs) for _ in range(6)), "prices come late"
        finally:
            over.set()
            flood.join()
            deaf.close()
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        assert rig.broker.symbols >= {"S0"}
        assert simulator.stats.market_connections == 1


def are_fresh(bot: Bot, seqs: list[int]) -> bool:
    """Whether most prices of the next seconds come, and come soon; notes their numbers."""
    ages, until = [], time.monotonic() + 2
    while time.monotonic() < until:
        message = bot.next()[1]
        ages.append(time.time() - message["received_at"])
        seqs.append(message["seq"])
    return len(ages) > 100 and sorted(ages)[len(ages) * 99 // 100] < 0.25


def _flood(port: int, over: threading.Event) -> None:
    client = redis.Redis(port=port)
    wish = json.dumps({"action": "register", "symbols": ["FLOOD"], "bot_id": "flood"})
    while not over.is_set():
        with client.pipeline(transaction=False) as commands:
            for _ in range(50):
                commands.publish("broker:registration", wish)
                commands.publish("broker:registration", b"\xff rubbish")
            commands.execute()
        over.wait(0.02)
    client.close()


def test_everybodys_orders_are_told_apart(rig: Rig) -> None:
    """`bot_id` from the client order id; a manual order is delivered, too, as nobody's."""
    rig.register("AAPL")
    (account_id,) = rig.broker.status().accounts
    with rig.bot(rig.channels.order(account_id)) as bot:
        buy(rig.simulator.url, client_order_id="momentum.7")
        buy(rig.simulator.url)
        events = [bot.next()[1] for _ in range(4)]
    assert {e["bot_id"] for e in events} == {"momentum", None}
    by_order: dict[str, list[str]] = {}
    for event in events:
        by_order.setdefault(event["order_id"], []).append(event["event"])
    assert list(by_order.values()) == [["new", "fill"]] * 2
