"""Redis is slower than Alpaca: prices conflate, or all of them wait; nothing grows either way."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import redis
from support import KEY_ID, Rig, eventually

from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread

ROWS = 60_000


def ticks(folder: Path) -> Path:
    """A tick file of many trades, as the real ones are written."""
    import zipfile

    path = folder / "zzz_20131007_trade.zip"
    lines = "".join(f"{34_200_000 + n},{10_000 + n},{1 + n % 500},Q,1,0\n" for n in range(ROWS))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("20131007_zzz_Trade_Tick.csv", lines)
    return path


def test_a_frozen_redis_makes_alpaca_wait_and_loses_nothing(
    own_valkey: EmbeddedRedis, tmp_path: Path
) -> None:
    """The buffer stays bounded while Redis stands still; then every trade arrives, in order."""
    options = SimulatorOptions(ticks=(ticks(tmp_path),), speed=30)  # 30,000 trades a second
    pid = own_valkey._server._process.pid
    with (
        SimulatorThread(options) as simulator,
        Rig(own_valkey, simulator, price_buffer=1_000, prices_when_behind="wait") as rig,
    ):
        client = redis.Redis(port=own_valkey.port)
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        pubsub.subscribe("price:ZZZ")
        rig.register("ZZZ")
        got: list[int] = []
        frozen = False
        while len(got) < ROWS:
            message = pubsub.get_message(timeout=5)
            if message is not None and message["type"] == "message":
                got.append(int(message["data"].split(b'"seq":')[1].split(b",")[0]))
            if len(got) == 5_000 and not frozen:
                frozen = True
                os.kill(pid, signal.SIGSTOP)
                try:
                    publisher = rig.broker._prices._publisher
                    assert publisher is not None
                    eventually(lambda: rig.broker._prices.feeds[0]._frames.waits_for_room)
                    assert publisher.waiting < 1_000 + 200
                finally:
                    os.kill(pid, signal.SIGCONT)
        assert got == list(range(1, ROWS + 1))
        assert frozen
        pubsub.close()
        client.close()


def test_behind_a_frozen_redis_prices_conflate_orders_do_not_and_the_reader_never_waits(
    own_valkey: EmbeddedRedis, tmp_path: Path
) -> None:
    """Of each symbol the newest comes, with what it stands for: nothing is left unaccounted."""
    symbols = [f"SYM{n}" for n in range(20)]
    pid = own_valkey._server._process.pid
    options = SimulatorOptions(rate=200.0)
    with SimulatorThread(options) as simulator, Rig(own_valkey, simulator, price_buffer=500) as rig:
        client = redis.Redis(port=own_valkey.port)
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        pubsub.subscribe(*(f"price:{symbol}" for symbol in symbols))
        rig.register(*symbols)
        eventually(lambda: rig.broker.counters["prices"] > 1_000)
        feed = rig.broker._prices.feeds[0]
        os.kill(pid, signal.SIGSTOP)
        try:
            eventually(lambda: feed.status.skipped > 1_000, why="nothing was left out")
            publisher = rig.broker._prices._publisher
            assert publisher is not None
            assert publisher.waiting < 500 + 200
            assert rig.broker.status().conflating
            # Alpaca ends the link meanwhile: what was kept of it is told, too.
            sessions = simulator.stats.market_sessions
            simulator.call(simulator.simulator.cut, "market")
            eventually(lambda: simulator.stats.market_sessions > sessions, why="no new link")
            hand = simulator.simulator.by_hand(KEY_ID)
            order = simulator.call(hand.place, "AAPL", 10)
            for _ in range(10):
                simulator.call(hand.fill, order, 1)
        finally:
            os.kill(pid, signal.SIGCONT)
        # However slow this machine is: nothing more comes than what is kept.
        simulator.call(simulator.simulator.mute, "market")
        eventually(lambda: not publisher.behind, why="it never caught up")
        skipped = feed.status.skipped
        heard: dict[str, list[dict[str, Any]]] = defaultdict(list)

        def all_is_told() -> bool:
            while (message := pubsub.get_message(timeout=0.05)) is not None:
                if message["type"] == "message":
                    update = json.loads(message["data"])
                    heard[update["symbol"]].append(update)
            told = sum(u.get("skipped", 0) for updates in heard.values() for u in updates)
            return told == skipped == feed.status.skipped

        eventually(all_is_told, why="what was left out is not what was told")
        for updates in heard.values():
            assert [u["seq"] for u in updates] == list(range(1, len(updates) + 1)), "no hole"
        (account,) = rig.broker.status().accounts
        journal = f"journal:order:{account}"
        eventually(lambda: client.xlen(journal) == 11, why="an order event is missing")
        eventually(lambda: not rig.broker.status().conflating)
        pubsub.close()
        client.close()
