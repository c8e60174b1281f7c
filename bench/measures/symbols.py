"""What symbols cost: throughput and memory with few and with many."""

from __future__ import annotations

from bench.arms import Ours
from bench.figures import Spread, ratios
from bench.frames import symbols
from bench.plan import USUAL_BATCH, USUAL_LISTENERS, Plan
from bench.processes import Broker, Processes
from bench.results import Plot, Result, Table, spread, thousands


def measure(plan: Plan) -> Result:
    """A broker for each number of symbols, in turn; memory before, between and after."""
    rates: dict[int, list[float]] = {count: [] for count in plan.symbols}
    memory: dict[int, dict[str, float]] = {}
    with Processes() as processes:
        brokers: dict[int, Broker] = {}
        for count in plan.symbols:
            broker = brokers[count] = processes.broker(PRICES_WHEN_BEHIND="wait")
            memory[count] = {"rest": broker.memory_mb}
            processes.register(broker, symbols(count))
            memory[count]["registered"] = broker.memory_mb
            crowd = processes.child("listeners", str(processes.port))
            where = {"names": count, "prefix": broker.prefix}
            crowd.do("hear", connections=USUAL_LISTENERS, **where)
        for _ in range(plan.rounds):
            for count, broker in brokers.items():
                arm = Ours(processes, broker, count, USUAL_BATCH)
                rates[count].append(arm.read(plan).rate)
        for count, broker in brokers.items():
            memory[count]["loaded"] = broker.memory_mb
    return _result(rates, memory)


def _result(rates: dict[int, list[float]], memory: dict[int, dict[str, float]]) -> Result:
    header = ["symbols", "messages/s", "÷ fewest", "MB at rest", "MB registered", "MB after load"]
    table = Table("Cost of symbols", header)
    plot = Plot("throughput_symbols", "Throughput and symbols", "symbols", "messages/s")
    result = Result(tables=[table], plots=[plot])
    fewest = min(rates)
    for count, found in rates.items():
        ratio = ratios(found, rates[fewest])
        result.figures[f"s{count}_to_fewest"] = ratio
        result.figures[f"s{count}_rate"] = Spread.of(found)
        for when, megabytes in memory[count].items():
            result.figures[f"s{count}_mb_{when}"] = Spread.of([megabytes])
        median = Spread.of(found).median
        plot.lines.setdefault("broker", []).append((count, median))
        cells = [f"{memory[count][when]:.0f}" for when in ("rest", "registered", "loaded")]
        table.rows.append([f"{count:,}", thousands(median), spread(ratio), *cells])
    result.figures["mb_rest"] = Spread.of([found["rest"] for found in memory.values()])
    return result
