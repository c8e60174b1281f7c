"""How soon a broker is live: from `start()`, and from the start of its process."""

from __future__ import annotations

import time

from bench.figures import Spread, ratios
from bench.plan import Plan
from bench.processes import Processes, until
from bench.results import Result, Table, spread


def measure(plan: Plan) -> Result:
    """In turn: `start()` in a process that is there, a new process, and alpaca-py in a new one."""
    within: list[float] = []
    broker: list[float] = []
    rival: list[float] = []
    with Processes() as processes:
        desk, feeder = processes.desk(), processes.feeder()
        settings = processes.environment(feeder, "start:", desk)
        starter = processes.child("starter", **settings)
        for _ in range(plan.starts):
            within.append(starter.do("start")["seconds"])
            broker.append(_broker(processes, desk))
            rival.append(_rival(processes))
    table = Table("Seconds until live", ["what", "seconds"])
    result = Result(tables=[table])
    rows = {
        "start_to_live_s": ("start() to live", Spread.of(within)),
        "process_to_live_s": ("process start to live (heartbeat in Redis)", Spread.of(broker)),
        "rival_s": ("alpaca-py + redis: process start to subscribed", Spread.of(rival)),
    }
    for name, (label, found) in rows.items():
        result.figures[name] = found
        table.rows.append([label, spread(found, 3)])
    result.figures["process_to_rival"] = ratios(broker, rival)
    table.rows.append(["the same two, ours ÷ theirs", spread(result.figures["process_to_rival"])])
    return result


def _broker(processes: Processes, desk: str) -> float:
    broker = processes.broker(desk=desk, live=False)
    processes.until_live(broker)
    seconds = time.monotonic() - broker.began
    broker.end()
    broker.feeder.end()
    return seconds


def _rival(processes: Processes) -> float:
    feeder = processes.feeder()
    began = time.monotonic()
    rival = processes.child("rival", "publish", feeder.url, str(processes.port), "10")
    until(feeder.has_client, "alpaca-py is connected")
    seconds = time.monotonic() - began
    rival.end()
    feeder.end()
    return seconds
