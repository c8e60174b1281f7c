"""More prices than fit: how old the newest price gets, what is left out and told, what it costs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from bench.arms import Ours, ready_broker
from bench.figures import Spread, Times
from bench.frames import symbols
from bench.measures.orders import desk_with_orders, orders_bot
from bench.plan import USUAL_BATCH, USUAL_LISTENERS, Plan
from bench.processes import Broker, Child, Processes
from bench.results import Result, Table, spread, thousands

SYMBOLS = 100
WATCHED = 10  # of them by the bot that measures, so that it is never the slow one itself
TIMES_WHAT_FITS = 2
ORDERS_PER_SECOND = 50
LOOKS = 20
DELIVERED_WITHIN_S = 3.0


@dataclass
class Flood:
    """What one round showed."""

    fits: float
    offered: float
    sent: int
    taken: float  # a second
    staleness: Times
    orders: Times
    conflating: float
    memory_mb: float


def measure(plan: Plan) -> Result:
    """Round by round: what fits, with every price kept; then twice as much to one that conflates.

    Two brokers, of which one at a time has something to do: what fits changes with the machine, so
    it is measured anew before each flood.
    """
    with Processes() as processes:
        desk = desk_with_orders(processes, ORDERS_PER_SECOND)
        keeping = ready_broker(processes, SYMBOLS, desk=desk)
        _company(processes, keeping)
        broker = processes.broker(desk=desk)
        processes.register(broker, symbols(SYMBOLS))
        watch = _company(processes, broker)
        orders = orders_bot(processes, broker)
        at_rest = broker.memory_mb
        floods = []
        for _ in range(plan.rounds):
            fits = Ours(processes, keeping, SYMBOLS, USUAL_BATCH).read(plan).rate
            floods.append(_flood(processes, broker, watch, orders, plan, fits))
        time.sleep(min(DELIVERED_WITHIN_S, plan.overload_s))
        return _result(floods, watch.do("watched"), at_rest)


def _company(processes: Processes, broker: Broker) -> Child:
    """A subscriber to everything, and the bot that measures."""
    crowd = processes.child("listeners", str(processes.port))
    crowd.do("hear", connections=USUAL_LISTENERS, names=SYMBOLS, prefix=broker.prefix)
    watch = processes.child("bot", str(processes.port))
    watch.do("watch", names=WATCHED, prefix=broker.prefix)
    return watch


def _flood(
    processes: Processes, broker: Broker, watch: Child, orders: Child, plan: Plan, fits: float
) -> Flood:
    offered = fits * TIMES_WHAT_FITS
    broker.feeder.do("go", rate=offered, late=True, names=SYMBOLS, batch=USUAL_BATCH)
    time.sleep(plan.warm_s)
    watch.do("watched")
    orders.do("timed")
    conflating = 0
    for _ in range(LOOKS):
        time.sleep(plan.overload_s / LOOKS)
        conflating += bool(processes.status(broker).get("conflating"))
    seen, told, memory = watch.do("watched"), orders.do("timed"), broker.memory_mb
    halted = broker.feeder.do("halt")
    processes.settle()
    return Flood(
        fits=fits,
        offered=offered,
        sent=halted["sent"],
        taken=halted["sent"] / halted["seconds"],
        staleness=Times.from_json(seen["times"]),
        orders=Times.from_json(told["times"]),
        conflating=conflating / LOOKS,
        memory_mb=memory,
    )


def _result(floods: list[Flood], total: dict[str, Any], at_rest: float) -> Result:
    # Each flood begins with the first symbol and ends with a whole frame.
    rounds = [divmod(flood.sent, SYMBOLS) for flood in floods]
    watched = sum(whole * WATCHED + min(rest, WATCHED) for whole, rest in rounds)
    unaccounted = watched - total["heard"] - total["skipped"]
    orders = Times()
    for flood in floods:
        orders.add(flood.orders)
    figures = {
        "fits": Spread.of([flood.fits for flood in floods]),
        "offered": Spread.of([flood.offered for flood in floods]),
        "taken": Spread.of([flood.taken for flood in floods]),
        "staleness_ms": Spread.of([flood.staleness.most * 1e3 for flood in floods]),
        "staleness_p99_ms": Spread.of([flood.staleness.at(0.99) * 1e3 for flood in floods]),
        "taken_to_offered": Spread.of([flood.taken / flood.offered for flood in floods]),
        "unaccounted": Spread.of([unaccounted]),
        "conflating": Spread.of([flood.conflating for flood in floods]),
        "orders_p99_ms": Spread.of([flood.orders.at(0.99) * 1e3 for flood in floods]),
        "memory_growth_mb": Spread.of([floods[-1].memory_mb - floods[len(floods) // 2].memory_mb]),
    }
    table = Table(f"Input {TIMES_WHAT_FITS} times what fits, {SYMBOLS} symbols", ["what", "value"])
    memory = [at_rest, max(flood.memory_mb for flood in floods), floods[-1].memory_mb]
    table.rows = [
        ["what fits (every price kept), messages/s", spread(figures["fits"], 0)],
        ["offered, messages/s", spread(figures["offered"], 0)],
        ["taken from the socket, messages/s", spread(figures["taken"], 0)],
        ["newest price of a symbol, oldest it ever was, ms", spread(figures["staleness_ms"], 0)],
        ["the same at 99 %, ms", spread(figures["staleness_p99_ms"], 0)],
        [f"sent of the {WATCHED} symbols that are watched", thousands(watched)],
        ["of these published", thousands(total["heard"])],
        ["left out, and told by `skipped`", thousands(total["skipped"])],
        ["sent, but neither published nor told", thousands(unaccounted)],
        ["heartbeats that said `conflating`", spread(figures["conflating"])],
        ["order events meanwhile, 99 %, ms", spread(figures["orders_p99_ms"])],
        ["order events meanwhile", f"{orders.n}"],
        ["memory at rest, highest, end, MB", ", ".join(f"{mb:.0f}" for mb in memory)],
    ]
    return Result(figures=figures, tables=[table])
