"""More prices than fit: how old the newest price gets, what is left out and told, what it costs."""

from __future__ import annotations

import time
from typing import Any

from bench.arms import Ours, ready_broker
from bench.figures import Spread, Times
from bench.frames import symbols
from bench.measures.orders import desk_with_orders, orders_bot
from bench.plan import USUAL_BATCH, USUAL_LISTENERS, Plan
from bench.processes import Broker, Child, Processes
from bench.results import Result, Table, thousands

SYMBOLS = 100
WATCHED = 10  # of them by the bot that measures, so that it is never the slow one itself
TIMES_WHAT_FITS = 2
ORDERS_PER_SECOND = 50
DELIVERED_WITHIN_S = 3.0


def measure(plan: Plan) -> Result:
    """First what fits, with every price kept; then twice as much to a broker that conflates."""
    with Processes() as processes:
        desk = desk_with_orders(processes, ORDERS_PER_SECOND)
        keeping = ready_broker(processes, SYMBOLS, desk=desk)
        crowd = processes.child("listeners", str(processes.port))
        watch = _company(processes, crowd, keeping)
        fits = Ours(processes, keeping, SYMBOLS, USUAL_BATCH).read(plan).rate
        for process in (watch, keeping, keeping.feeder):
            process.end()
        broker = processes.broker(desk=desk)
        processes.register(broker, symbols(SYMBOLS))
        watch = _company(processes, crowd, broker)
        orders = orders_bot(processes, broker)
        return _result(fits, _flood(processes, broker, watch, orders, plan, fits))


def _company(processes: Processes, crowd: Child, broker: Broker) -> Child:
    """A subscriber to everything, and the bot that measures."""
    crowd.do("hear", connections=USUAL_LISTENERS, names=SYMBOLS, prefix=broker.prefix)
    watch = processes.child("bot", str(processes.port))
    watch.do("watch", names=WATCHED, prefix=broker.prefix)
    return watch


def _flood(
    processes: Processes, broker: Broker, watch: Child, orders: Child, plan: Plan, fits: float
) -> dict[str, Any]:
    memory, began = [broker.memory_mb], time.monotonic()
    offered = fits * TIMES_WHAT_FITS
    where = {"names": SYMBOLS, "batch": USUAL_BATCH}
    broker.feeder.do("go", rate=offered, late=True, **where)
    time.sleep(plan.warm_s)
    watch.do("watched")
    orders.do("timed")
    conflating = 0
    looks = 20
    for _ in range(looks):
        time.sleep(plan.overload_s / looks)
        memory.append(broker.memory_mb)
        conflating += bool(processes.status(broker).get("conflating"))
    seen, told = watch.do("watched"), orders.do("timed")
    halted = broker.feeder.do("halt")
    processes.settle()
    time.sleep(min(DELIVERED_WITHIN_S, plan.overload_s))
    total = watch.do("watched")
    return {
        "offered": offered,
        "taken": halted["sent"] / halted["seconds"],
        "sent": halted["sent"],
        "heard": total["heard"],
        "skipped": total["skipped"],
        "staleness": Times.from_json(seen["times"]),
        "orders": Times.from_json(told["times"]),
        "memory": memory,
        "conflating": conflating / looks,
        "seconds": time.monotonic() - began,
    }


def _result(fits: float, seen: dict[str, Any]) -> Result:
    staleness: Times = seen["staleness"]
    orders: Times = seen["orders"]
    memory = seen["memory"]
    rounds, rest = divmod(seen["sent"], SYMBOLS)  # each symbol in turn
    watched = rounds * WATCHED + min(rest, WATCHED)
    unaccounted = watched - seen["heard"] - seen["skipped"]
    grown = memory[-1] - memory[len(memory) // 2]
    table = Table(f"Input {TIMES_WHAT_FITS} times what fits, {SYMBOLS} symbols", ["what", "value"])
    table.rows = [
        ["what fits (every price kept), messages/s", thousands(fits)],
        ["offered, messages/s", thousands(seen["offered"])],
        ["taken from the socket, messages/s", thousands(seen["taken"])],
        ["newest price of a symbol, oldest it ever was, ms", f"{staleness.most * 1e3:,.0f}"],
        ["the same at 99 %, ms", f"{staleness.at(0.99) * 1e3:,.1f}"],
        [f"sent of the {WATCHED} symbols that are watched", thousands(watched)],
        ["of these published", thousands(seen["heard"])],
        ["left out, and told by `skipped`", thousands(seen["skipped"])],
        ["sent, but neither published nor told", thousands(unaccounted)],
        ["heartbeats that said `conflating`", f"{seen['conflating']:.0%}"],
        ["order events meanwhile, 99 %, ms", f"{orders.at(0.99) * 1e3:,.1f}"],
        ["order events meanwhile", f"{orders.n}"],
        ["memory at the start, highest, end, MB", _three(memory)],
    ]
    figures = {
        "staleness_ms": Spread.of([staleness.most * 1e3]),
        "staleness_p99_ms": Spread.of([staleness.at(0.99) * 1e3]),
        "taken_to_offered": Spread.of([seen["taken"] / seen["offered"]]),
        "unaccounted": Spread.of([unaccounted]),
        "conflating": Spread.of([seen["conflating"]]),
        "orders_p99_ms": Spread.of([orders.at(0.99) * 1e3]),
        "memory_growth_mb": Spread.of([grown]),
    }
    return Result(figures=figures, tables=[table])


def _three(memory: list[float]) -> str:
    return f"{memory[0]:.0f}, {max(memory):.0f}, {memory[-1]:.0f}"
