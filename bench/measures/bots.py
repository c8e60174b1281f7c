"""What bots cost the broker: throughput, and processor time at a rate that is always the same."""

from __future__ import annotations

import json
import time

from alpaca_broker.core.channels import Channels
from bench.arms import Ceiling, Ours, reading, ready_broker
from bench.figures import Spread, ratios
from bench.frames import symbols
from bench.plan import USUAL_BATCH, Plan
from bench.processes import Broker, Processes, until
from bench.results import Plot, Result, Table, spread, thousands

SYMBOLS = 1_000
RATE = 20_000
CPU = f"broker's CPU, µs/message at {RATE:,}/s"


def measure(plan: Plan) -> Result:
    """A broker for each number of bots, in turn. Each bot is registered for one symbol of a
    thousand and subscribed to it: what is published is the same, who hears it is not."""
    rates: dict[int, list[float]] = {count: [] for count in plan.bots}
    bare: dict[int, list[float]] = {count: [] for count in plan.bots}
    cpu: dict[int, list[float]] = {count: [] for count in plan.bots}
    with Processes() as processes:
        brokers: dict[int, Broker] = {}
        for count in plan.bots:
            brokers[count] = ready_broker(processes, SYMBOLS)
            _register(processes, brokers[count], count)
        crowd = processes.child("listeners", str(processes.port))
        ceiling = Ceiling(processes, SYMBOLS, USUAL_BATCH)
        for _ in range(plan.rounds):
            for count, broker in brokers.items():
                where = {"names": SYMBOLS, "prefix": broker.prefix, "each": 1}
                crowd.do("hear", connections=count, **where)
                rates[count].append(Ours(processes, broker, SYMBOLS, USUAL_BATCH).read(plan).rate)
                cpu[count].append(_steady(processes, broker, plan))
                crowd.do("hear", connections=count, names=SYMBOLS, each=1)
                bare[count].append(ceiling.read(plan).rate)
    return _result(rates, bare, cpu)


def _result(
    rates: dict[int, list[float]], bare: dict[int, list[float]], cpu: dict[int, list[float]]
) -> Result:
    header = ["bots", "messages/s", "ceiling", "÷ ceiling", CPU, "÷ one bot"]
    table = Table(f"Cost of bots, {SYMBOLS:,} symbols", header)
    plot = Plot("throughput_bots", "Throughput and bots", "bots", "messages/s", log_y=True)
    result = Result(tables=[table], plots=[plot])
    one = min(rates)
    for count, found in rates.items():
        to_bare, by_cpu = ratios(found, bare[count]), ratios(cpu[count], cpu[one])
        result.figures[f"n{count}_rate_to_one"] = ratios(found, rates[one])
        result.figures[f"n{count}_to_ceiling"] = to_bare
        result.figures[f"n{count}_cpu_to_one"] = by_cpu
        median, most = Spread.of(found).median, Spread.of(bare[count]).median
        plot.lines.setdefault("broker", []).append((count, median))
        plot.lines.setdefault("ceiling", []).append((count, most))
        cells = [thousands(median), thousands(most), spread(to_bare)]
        table.rows.append([f"{count:,}", *cells, spread(Spread.of(cpu[count]), 1), spread(by_cpu)])
    return result


def _register(processes: Processes, broker: Broker, count: int) -> None:
    names = symbols(SYMBOLS)
    pipe = processes.redis.pipeline(transaction=False)
    for number in range(count):
        wish = {"action": "register", "bot_id": f"bot{number}", "symbols": [names[number % 1000]]}
        pipe.publish(Channels(broker.prefix).registration, json.dumps(wish))
    pipe.execute()
    until(lambda: processes.status(broker)["bots"] >= count, f"{count} bots are registered")


def _steady(processes: Processes, broker: Broker, plan: Plan) -> float:
    broker.feeder.do("go", names=SYMBOLS, batch=USUAL_BATCH, rate=RATE)
    found = reading(plan, broker, lambda: (processes.published(), time.monotonic()))
    broker.feeder.do("halt")
    processes.settle()
    return found.cpu_us
