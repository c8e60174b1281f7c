"""Ten thousand order events in a storm of faults: none lost, none doubled, in order.

The journal is judged by the simulator's own ledger. Time is compressed (hundreds of events a second
and a fault every second or two), and so is the budget of REST calls. `make soak` has more seeds.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from ledger import journal, offences, settles
from processes import Process, broker_environment
from support import KEY_ID, eventually

from alpaca_broker.core.channels import Channels
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread
from alpaca_broker.simulator.fault_script import storm

EVENTS = 10_000
LASTS_S = 10.0
SEEDS, SOAK_SEEDS = range(1, 3), range(1, 23)
CHANNELS = Channels()


class Restarted:
    """A broker that is started again whenever it ends, as Docker would."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._process = Process("run", env=env)
        self.said: list[str] = []

    def kill(self) -> None:
        """Without a warning; the next one starts at once."""
        self._process.signal(signal.SIGKILL)
        self._process.ends()
        self.look_after()

    def look_after(self) -> None:
        if self._process.has_ended:
            self.said += [*self._process.lines, "(started again)"]
            self._process.__exit__(None, None, None)
            self._process = Process("run", env=self._env)

    def is_live(self) -> bool:
        return any("is live (id" in line for line in list(self._process.lines))

    def close(self) -> None:
        self._process.signal(signal.SIGTERM)
        self._process.__exit__(None, None, None)
        self.said += self._process.lines


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_ten_thousand_order_events_survive_a_storm(tmp_path: Path, soak: bool) -> None:
    """Sockets cut, mute, half-open; events dropped, doubled, swapped; REST refused, slow, empty;
    the broker killed twice, Redis restarted once."""
    for seed in SOAK_SEEDS if soak else SEEDS:
        options = SimulatorOptions(rest_limit_per_min=None)
        redis = EmbeddedRedis(folder=tmp_path / str(seed), appendonly="yes")
        with redis as valkey, SimulatorThread(options) as simulator:
            began = time.monotonic()
            entries = weather(seed, valkey, simulator)
            by_rest = sum(entry["source"] == "reconcile" for entry in entries)
            lasted = time.monotonic() - began
            print(f"{len(entries)} events told, {by_rest} by REST, right after {lasted:.0f} s")


def weather(
    seed: int, valkey: EmbeddedRedis, simulator: SimulatorThread
) -> list[dict[str, object]]:
    """One storm; returns the journal, which tells what happened and nothing else."""
    chance = random.Random(seed)
    faults = storm(seed, LASTS_S, faults=12, longest_s=2.5)
    moments = sorted((chance.uniform(1, LASTS_S - 1), what) for what in ("kill", "kill", "redis"))
    print(f"\nstorm {seed}: {'; '.join(map(str, faults))}", end="; ")
    print("; ".join(f"{what}@{at:.1f}s" for at, what in moments), end=" -> ", flush=True)
    env = broker_environment(simulator.url, valkey.port, RECONCILE_CALLS_PER_MINUTE="100000")
    broker = Restarted(env | {"ORDER_JOURNAL_LENGTH": "50000"})
    try:
        eventually(broker.is_live)
        per_second = EVENTS / (LASTS_S - 1)
        flow = simulator.order_flow(KEY_ID, events=EVENTS, seed=seed, per_second=per_second)
        blowing, began = simulator.play(faults), time.monotonic()
        while not (blowing.done() and flow.done() and not moments):
            assert time.monotonic() - began < 60, "the storm does not end"
            if moments and time.monotonic() - began >= moments[0][0]:
                _, what = moments.pop(0)
                if what == "kill":
                    broker.kill()
                else:
                    valkey.stop()
                    valkey.start()
            broker.look_after()
            time.sleep(0.02)
        blowing.result()
        assert flow.result() == EVENTS
        entries = settles(valkey.port, CHANNELS, simulator, within_s=60)
        time.sleep(1.0)  # nothing comes on top of it
        assert not offences(journal(valkey.port, CHANNELS), simulator)
        return entries
    except AssertionError:
        print("\n".join(broker.said))
        raise
    finally:
        broker.close()
