"""Thousands of order events in a storm of faults: none lost, none doubled, in order; late only
where REST was down for more than five seconds, and then bots are told.

The journal is judged by the simulator's own ledger. Time is compressed (hundreds of events a second
and a fault every second or two), and so is the budget of REST calls. `make soak` has
more seeds, and 10,000 events for each.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from ledger import journal, settles, told_as_missed
from processes import Process, broker_environment
from support import KEY_ID, eventually

from alpaca_broker.core.channels import Channels
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread
from alpaca_broker.simulator.fault_script import storm
from alpaca_broker.simulator.faults import KINDS

SEEDS, SOAK_SEEDS = range(1, 3), range(1, 25)
EVENTS, SOAK_EVENTS = 5_000, 10_000  # for each seed
EVENTS_A_SECOND = 800
CHANNELS = Channels()
# An event of a new name is told like any other; the ledger has none of it.
NAMES = [name for name, kind in KINDS.items() if kind.in_storms and name != "unknown-type"]


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

    @property
    def all_said(self) -> list[str]:
        return [*self.said, *self._process.lines]

    def is_live(self) -> bool:
        return any("is live (id" in line for line in list(self._process.lines))

    def close(self) -> None:
        self._process.signal(signal.SIGTERM)
        self._process.__exit__(None, None, None)
        self.said += self._process.lines


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("half", [0, 1])  # two may run side by side
def test_order_events_survive_a_storm_none_lost_none_doubled_in_order(
    tmp_path: Path, soak: bool, half: int
) -> None:
    """Sockets cut, mute, half-open; events dropped, doubled, swapped; REST refused, slow, empty;
    the broker killed twice, Redis restarted once."""
    for seed in (SOAK_SEEDS if soak else SEEDS)[half::2]:
        options = SimulatorOptions(rest_limit_per_min=None)
        redis = EmbeddedRedis(folder=tmp_path / str(seed), appendonly="yes")
        with redis as valkey, SimulatorThread(options) as simulator:
            began = time.monotonic()
            entries = weather(seed, valkey, simulator, SOAK_EVENTS if soak else EVENTS)
            by_rest = sum(entry["source"] == "reconcile" for entry in entries)
            lasted = time.monotonic() - began
            gaps = told_as_missed(valkey.port, CHANNELS)
            late = f", some late, as was told: {', '.join(g['reason'] for g in gaps)}"
            told = f"{len(entries)} events told, {by_rest} by REST, right after {lasted:.0f} s"
            print(told + (late if gaps else ""))


def weather(
    seed: int, valkey: EmbeddedRedis, simulator: SimulatorThread, events: int
) -> list[dict[str, Any]]:
    """One storm; returns the journal, which tells what happened and nothing else."""
    chance = random.Random(seed)
    lasts_s = events / EVENTS_A_SECOND + 1
    faults = storm(seed, lasts_s, faults=12, longest_s=2.5, only=NAMES)
    moments = sorted((chance.uniform(1, lasts_s - 1), what) for what in ("kill", "kill", "redis"))
    print(f"\nstorm {seed}: {'; '.join(map(str, faults))}", end="; ")
    print("; ".join(f"{what}@{at:.1f}s" for at, what in moments), end=" -> ", flush=True)
    env = broker_environment(simulator.url, valkey.port, RECONCILE_CALLS_PER_MINUTE="100000")
    broker = Restarted(env | {"ORDER_JOURNAL_LENGTH": "50000"})
    try:
        eventually(broker.is_live, within_s=30)
        flow = simulator.order_flow(KEY_ID, events=events, seed=seed, per_second=EVENTS_A_SECOND)
        blowing, began = simulator.play(faults), time.monotonic()
        while not (blowing.done() and flow.done() and not moments):
            assert time.monotonic() - began < 240, "the storm does not end"
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
        assert flow.result() == events
        entries = settles(valkey.port, CHANNELS, simulator, within_s=180)
        time.sleep(1.0)  # nothing comes on top of it
        assert len(journal(valkey.port, CHANNELS)) == len(entries)
        return entries
    except AssertionError:
        print("\n".join(broker.all_said))
        raise
    finally:
        broker.close()
