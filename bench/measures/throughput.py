"""WebSocket to Redis, acknowledged: messages per second and processor time, beside the rivals."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import groupby

from bench.arms import Arm, Ceiling, Ours, Reading, Theirs, ready_broker
from bench.figures import Spread, ratios
from bench.plan import USUAL_LISTENERS, Plan
from bench.processes import Child, Processes
from bench.results import Plot, Result, Table, spread, thousands

SYMBOLS = 10
ARMS = {
    "ours": "broker",
    "publish": "alpaca-py + redis.publish",
    "empty": "alpaca-py, empty handler",
    "ceiling": "ceiling",
}
Readings = dict[str, list[Reading]]


def measure(plan: Plan) -> Result:
    """Every pair of frame size and number of subscribers, the arms in turn, round by round."""
    result = Result()
    header = ["messages/frame", "subscribers", *ARMS.values(), "÷ rival", "÷ ceiling"]
    rates = Table("Messages per second, WebSocket to Redis, acknowledged", header)
    cpu = Table("Processor time per message, µs", header[:6])
    title = f"Throughput, {USUAL_LISTENERS} subscriber"
    plot = Plot("throughput_batch", title, "messages per frame", "messages/s", log_y=True)
    with Processes() as processes:
        broker = ready_broker(processes, SYMBOLS, prefix="")
        crowd = processes.child("listeners", str(processes.port))
        for batch, pairs in groupby(plan.pairs(), key=lambda pair: pair[0]):
            arms: dict[str, Arm] = {
                "ours": Ours(processes, broker, SYMBOLS, batch),
                "publish": Theirs(processes, "publish", SYMBOLS, batch, 4 * plan.warm_s),
                "empty": Theirs(processes, "empty", SYMBOLS, batch, 4 * plan.warm_s),
                "ceiling": Ceiling(processes, SYMBOLS, batch),
            }
            for _, listeners in pairs:
                crowd.do("hear", connections=listeners, names=SYMBOLS, prefix="")
                found = _race(plan, arms)
                _report(result, rates, cpu, (batch, listeners), found)
                if listeners == USUAL_LISTENERS:
                    for name, readings in found.items():
                        rate = Spread.of([r.rate for r in readings]).median
                        plot.lines.setdefault(ARMS[name], []).append((batch, rate))
            for arm in arms.values():
                arm.end()
        _redis_benchmark(result, processes, crowd, plan)
    result.tables = [rates, cpu]
    result.plots = [plot]
    return result


def _race(plan: Plan, arms: dict[str, Arm]) -> Readings:
    found: Readings = {name: [] for name in arms}
    for _ in range(plan.rounds):
        for name, arm in arms.items():
            found[name].append(arm.read(plan))
    return found


def _report(
    result: Result, rates: Table, cpu: Table, pair: tuple[int, int], found: Readings
) -> None:
    by_rate = {name: [r.rate for r in readings] for name, readings in found.items()}
    by_cpu = {name: Spread.of([r.cpu_us for r in readings]) for name, readings in found.items()}
    place = "b{}_l{}".format(*pair)
    to_rival = ratios(by_rate["ours"], by_rate["publish"])
    to_ceiling = ratios(by_rate["ours"], by_rate["ceiling"])
    result.figures[f"{place}_to_rival"] = to_rival
    result.figures[f"{place}_to_ceiling"] = to_ceiling
    for name in ARMS:
        result.figures[f"{place}_{name}"] = Spread.of(by_rate[name])
        result.figures[f"{place}_{name}_cpu_us"] = by_cpu[name]
    cells = [str(number) for number in pair]
    medians = [thousands(Spread.of(by_rate[name]).median) for name in ARMS]
    rates.rows.append([*cells, *medians, spread(to_rival, 1), spread(to_ceiling)])
    cpu.rows.append([*cells, *(spread(by_cpu[name], 1) for name in ARMS)])


def _redis_benchmark(result: Result, processes: Processes, crowd: Child, plan: Plan) -> None:
    """Redis' own tool beside it, where it is installed: no feeder, no frames, one channel."""
    if (tool := shutil.which("redis-benchmark")) is None:
        result.notes.append("redis-benchmark is not installed.")
        return
    crowd.do("hear", connections=USUAL_LISTENERS, names=1, prefix="")
    payload = "x" * 210  # as long as our messages
    found = []
    for _ in range(plan.rounds):
        words = ["-p", str(processes.port), "-P", "200", "-c", "1", "-q"]
        words += ["-n", str(int(400_000 * plan.seconds)), "PUBLISH", "price:AAAA", payload]
        done = subprocess.run(  # noqa: S603
            [tool, *words], capture_output=True, text=True, timeout=120, check=True
        )
        if rates := re.findall(r"([0-9.]+) requests per second", done.stdout):
            found.append(float(rates[-1]))
    if found:
        result.figures["redis_benchmark"] = Spread.of(found)
        result.notes.append(
            f"`redis-benchmark -P 200 -c 1`, one channel, {USUAL_LISTENERS} subscriber, nothing "
            f"else moving: {thousands(Spread.of(found).median)} PUBLISH/s."
        )
