"""One bot's trouble never touches another: floods, rubbish, bots that stop reading or die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import redis
from processes import ROOT, clean_environment
from support import Rig, buy, eventually

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
        ages, seqs = [], []
        try:
            with rig.bot("price:S0") as steady:
                until = time.monotonic() + 6
                while time.monotonic() < until:
                    message = steady.next()[1]
                    ages.append(time.time() - message["received_at"])
                    seqs.append(message["seq"])
        finally:
            over.set()
            flood.join()
            deaf.close()
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        assert len(seqs) > 300
        assert sorted(ages)[len(ages) * 99 // 100] < 0.25
        assert rig.broker.symbols >= {"S0"}
        assert simulator.stats.market_connections == 1


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


BOT = """
import json, sys, time, redis
port, prefix, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
client = redis.Redis(port=port)
turn = 0
while True:
    wish = {"action": ["register", "unregister"][turn % 2], "symbols": [f"S{turn % 5}"],
            "bot_id": f"{name}-{turn % 17}", "ttl": 5}
    client.publish(prefix + "broker:registration", json.dumps(wish))
    turn += 1
    time.sleep(0.02)
"""


def test_bots_killed_amid_their_registrations_leave_the_truth_behind(rig: Rig) -> None:
    """Processes of fifty bots, a third killed with SIGKILL: it converges, nobody notices."""
    rig.register("AAPL", bot_id="steady")
    words = [sys.executable, "-c", BOT, str(rig.valkey.port), rig.channels.prefix]
    bots = [
        subprocess.Popen([*words, f"p{n}"], env=clean_environment(), cwd=ROOT) for n in range(3)
    ]
    try:
        with rig.bot(rig.channels.price("AAPL")) as steady:
            eventually(lambda: rig.broker.status().bots > 40, 15)
            os.kill(bots[0].pid, signal.SIGKILL)
            first = steady.next()[1]["seq"]
            seen = [steady.next()[1]["seq"] for _ in range(200)]
            assert seen == list(range(first + 1, first + 201))
            for bot in bots[1:]:
                bot.terminate()
            eventually(lambda: rig.broker.status().bots == 1, 15)
            eventually(lambda: rig.broker.symbols == {"AAPL"})
    finally:
        for bot in bots:
            bot.kill()
            bot.wait(5)
    assert rig.simulator.stats.market_connections == 1


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
