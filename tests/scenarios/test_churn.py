"""Bots come, go and die all the time: the wanted set is the truth, and nobody else notices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import redis
from processes import ROOT, clean_environment
from support import Bot, Rig, eventually

from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread

BOTS = 50

# One process of library bots. Each follows AAPL and a symbol of its own all the time, and opens
# and closes others as fast as it is told to; "settle" on stdin ends that, the end of stdin ends it
# and brings its report: how many prices it heard, and every number that did not follow the one
# before.
PROCESS = """
import json, random, sys, threading, time
from alpaca_broker import Client
from alpaca_broker.client import Gap

port, prefix, pause = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
settled, ended = threading.Event(), threading.Event()

class Watch:
    def __init__(self):
        self.seqs, self.heard, self.holes = {}, 0, []

    def see(self, update):
        if isinstance(update, Gap):
            if update.missed:
                self.holes.append(f"{update.symbols} {update.reason} {update.missed}")
            return
        before = self.seqs.get(update.symbol, update.seq - 1)
        if update.seq != before + 1:
            self.holes.append(f"{update.symbol} {before} {update.seq}")
        self.seqs[update.symbol] = update.seq
        self.heard += 1

def live(name, reports):
    chance = random.Random(name)
    with Client(host="127.0.0.1", port=port, prefix=prefix, bot_id=name, ttl=5) as client:
        steady, watch = client.prices("AAPL", name.upper()), Watch()
        passing, opened, due = None, None, time.monotonic()
        while not ended.is_set():
            if (update := steady.poll(0.02)) is not None:
                watch.see(update)
            while passing and (update := passing.poll()) is not None:
                opened.see(update)
            if time.monotonic() < due and not settled.is_set():
                continue
            due = time.monotonic() + chance.uniform(0.5, 1.5) * pause
            if passing:
                passing.close()
                watch.holes += opened.holes
                passing = None
            elif not settled.is_set():
                passing, opened = client.prices(f"S{chance.randrange(20)}"), Watch()
        counted = client.counters
        reports.append({"bot": name, "heard": watch.heard, "holes": watch.holes,
                        "missed": counted.missed, "reconnects": counted.reconnects,
                        "rejected": client.rejected})

reports = []
bots = [threading.Thread(target=live, args=(name, reports)) for name in sys.argv[4:]]
for bot in bots: bot.start()
for line in sys.stdin: settled.set()
settled.set(); ended.set()
for bot in bots: bot.join()
print(json.dumps(reports))
"""


@pytest.mark.soak
def test_fifty_bots_come_go_and_die_and_the_wanted_set_is_the_truth(
    valkey: EmbeddedRedis, prefix: str, soak: bool
) -> None:
    """A third is killed amid it; what the rest wants is what Alpaca sends, and none has a hole."""
    options = SimulatorOptions(rate=10.0)  # for each symbol
    with SimulatorThread(options) as simulator, Rig(valkey, simulator, prefix=prefix) as rig:
        _come_go_and_die(rig, soak)


def _come_go_and_die(rig: Rig, soak: bool) -> None:
    per_process, lasts, pause = (1, 60.0, 0.5) if soak else (5, 2.5, 0.3)
    names = [f"bot{n}" for n in range(BOTS)]
    crews = [names[n : n + per_process] for n in range(0, BOTS, per_process)]
    processes = [_start(rig, pause, crew) for crew in crews]
    doomed = len(crews) - int(len(crews) * 2 / 3)
    try:
        with rig.bot(rig.channels.registration) as desk, rig.bot(rig.channels.price("AAPL")) as ear:
            eventually(lambda: rig.broker.status().bots == BOTS, 120)
            began = time.monotonic()
            for n in range(doomed):
                _wait_until(began + lasts * 0.7 * (n + 1) / doomed)
                os.kill(processes[n].pid, signal.SIGKILL)
            _wait_until(began + lasts)
            took = time.monotonic() - began
            said = len(_drain(desk))
            for process in processes[doomed:]:
                assert process.stdin is not None
                process.stdin.write("settle\n")
                process.stdin.flush()
            alive = [name for crew in crews[doomed:] for name in crew]
            truth = {"AAPL", *(name.upper() for name in alive)}
            eventually(lambda: rig.broker.symbols == truth, why="it does not converge")
            eventually(lambda: rig.broker.status().bots == len(alive))
            plain = [price["seq"] for price in _drain(ear)]
        reports = [r for p in processes[doomed:] for r in json.loads(p.communicate(timeout=120)[0])]
        eventually(lambda: rig.broker.status().bots == 0 and not rig.broker.symbols)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    print(
        f"{BOTS} bots in {len(crews)} processes, {BOTS - len(alive)} killed; {said} registrations "
        f"in {took:.1f} s; survivors heard {sum(r['heard'] for r in reports)} prices"
    )
    assert said / took * 60 >= 1_000
    assert sorted(r["bot"] for r in reports) == sorted(alive)
    for report in reports:
        assert (report["holes"], report["missed"], report["rejected"]) == ([], 0, {}), report
        assert report["heard"] > 100 or not soak, report
    assert plain == list(range(plain[0], plain[0] + len(plain)))
    assert _kept(rig) == {}
    assert rig.simulator.stats.market_connections == 1


def _start(rig: Rig, pause: float, names: list[str]) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", PROCESS, str(rig.valkey.port), rig.channels.prefix, str(pause)]
    return subprocess.Popen(
        [*words, *names],
        env=clean_environment(),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _wait_until(moment: float) -> None:
    """The run has a length: what happens in it happens at its times."""
    time.sleep(max(0.0, moment - time.monotonic()))


def _drain(bot: Bot) -> list[dict[str, Any]]:
    """Everything that has come, in order."""
    found: list[dict[str, Any]] = []
    while True:
        try:
            found.append(bot.next(0.005)[1])
        except AssertionError as nothing:
            if "no message" not in str(nothing):
                raise
            return found


def _kept(rig: Rig) -> dict[Any, Any]:
    """What the broker has kept of registrations."""
    with redis.Redis(port=rig.valkey.port) as client:
        found: dict[Any, Any] = client.hgetall(rig.channels.registry)
        return found
