"""Ending: in order, in time, with close frames, whatever goes on around it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
import redis
from processes import Process, broker_environment
from support import SECRET, Rig, Stopwatch, eventually

from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread


def test_a_signal_closes_everything_in_order(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread, tmp_path: Path
) -> None:
    """Exit code 0 in under five seconds; Alpaca gets close frames; an immediate restart no 406."""
    took = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with Process(
            "run", env=broker_environment(simulator.url, own_valkey.port), cwd=tmp_path
        ) as broker:
            broker.says("feed is live")
            broker.says("account PA")
            with Stopwatch() as lived:
                broker.signal(number)
                assert broker.ends() == 0, broker.output
            took.append(lived.seconds)
            assert "Traceback" not in broker.output
    assert min(took) < 5
    stats = simulator.stats
    eventually(lambda: len(stats.close_codes) == 4)
    assert set(stats.close_codes) == {1000}
    assert 406 not in stats.errors_sent
    assert (stats.market_open, stats.trading_open) == (0, 0)


def test_a_stop_amid_a_flood_is_quick(valkey: EmbeddedRedis, prefix: str) -> None:
    """Two hundred symbols at full rate: all threads are joined in under five seconds."""
    with SimulatorThread(SimulatorOptions(rate=100.0)) as simulator:
        rig = Rig(valkey, simulator, prefix=prefix).start()
        rig.register(*(f"S{n}" for n in range(200)))
        eventually(lambda: rig.broker.counters["prices"] > 2_000)
        before = {thread.name for thread in threading.enumerate()}
        assert {"price-producer", "order-producer", "control"} <= before
        with Stopwatch() as lived:
            rig.stop()
        assert lived.seconds < 5
        after = {thread.name for thread in threading.enumerate()}
        assert not {"price-producer", "order-producer", "control"} & after
        assert rig.broker.stop()  # may be called again


@pytest.mark.parametrize("gone", ["redis", "alpaca", "both"])
def test_a_stop_during_an_outage_is_quick(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread, gone: str
) -> None:
    """Whichever side is down, the broker ends in time."""
    rig = Rig(own_valkey, simulator).start()
    if gone in ("redis", "both"):
        own_valkey.stop()
    if gone in ("alpaca", "both"):
        simulator.stop_server()
        eventually(lambda: rig.broker.status().state == "down")
    with Stopwatch() as lived:
        rig.stop()
    assert lived.seconds < 5


def test_a_stop_while_redis_is_frozen_is_in_time(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread
) -> None:
    """SIGSTOP: nothing answers, and still everything ends within five seconds."""
    rig = Rig(own_valkey, simulator).start()
    rig.register("AAPL")
    pid = own_valkey._server._process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with Stopwatch() as lived:
            rig.stop()
        assert lived.seconds < 5
    finally:
        os.kill(pid, signal.SIGCONT)


def test_no_secret_in_any_output(own_valkey: EmbeddedRedis, tmp_path: Path) -> None:
    """At DEBUG, with a wrong password and a refused key: neither is in any line."""
    client = redis.Redis(port=own_valkey.port)
    client.config_set("requirepass", "right-password")
    with SimulatorThread(SimulatorOptions(keys={"OTHER": "other"})) as simulator:
        environment = broker_environment(
            simulator.url,
            own_valkey.port,
            REDIS_URL=f"redis://:hunter2-hunter2@127.0.0.1:{own_valkey.port}/0",
            LOG_LEVEL="DEBUG",
        )
        with Process("run", env=environment, cwd=tmp_path) as broker:
            broker.says("refused the login: check REDIS_USERNAME and REDIS_PASSWORD")
            client.config_set("requirepass", "hunter2-hunter2")
            broker.says("PAPER_ALPACA_API_KEY_ID and PAPER_ALPACA_API_SECRET_KEY")
            assert broker.ends() == 2
            assert SECRET not in broker.output
            assert "hunter2" not in broker.output
    client.close()
