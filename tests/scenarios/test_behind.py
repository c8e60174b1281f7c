"""Redis is slower than Alpaca: with PRICES_WHEN_BEHIND=wait nothing is lost, nothing grows."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import redis
from support import Rig, eventually

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
    options = SimulatorOptions(ticks=(ticks(tmp_path),), speed="max")
    pid = own_valkey._server._process.pid
    with (
        SimulatorThread(options) as simulator,
        Rig(own_valkey, simulator, price_buffer=1_000) as rig,
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
                    eventually(lambda: rig.broker._prices.feeds[0]._waits_for_room)
                    assert publisher.waiting < 1_000 + 200
                finally:
                    os.kill(pid, signal.SIGCONT)
        assert got == list(range(1, ROWS + 1))
        assert frozen
        pubsub.close()
        client.close()
