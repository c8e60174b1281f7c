"""What a bot can take: our `Client`, redis-py's `listen()`, alpaca-py direct."""

from __future__ import annotations

from bench.arms import Theirs
from bench.figures import Spread, ratios
from bench.frames import symbols
from bench.plan import USUAL_BATCH, Plan
from bench.processes import BenchError, Broker, Child, Processes, until
from bench.results import Result, Table, spread, thousands

SYMBOLS = 10
BOTS = {
    "client": "Client",
    "plain": "Client(plain=True)",
    "listen": "redis-py listen() + json",
    "direct": "alpaca-py direct",
}


def measure(plan: Plan) -> Result:
    """A burst of prepared prices to one bot after the other; alpaca-py has its feeder instead."""
    rates: dict[str, list[float]] = {name: [] for name in BOTS}
    with Processes() as processes:
        broker = processes.broker()
        source = processes.child("ceiling", broker.feeder.url, str(processes.port))
        direct = Theirs(processes, "empty", SYMBOLS, USUAL_BATCH, 4 * plan.warm_s)
        first = 0
        for _ in range(plan.rounds):
            for name in rates:
                if name == "direct":
                    rates[name].append(direct.read(plan).rate)
                else:
                    # A bot expects `seq` from 1: other symbols each time.
                    rates[name].append(_burst(plan, processes, broker, source, name, first))
                    first += SYMBOLS
    table = Table("Prices that one bot takes per second", ["bot", "prices/s", "÷ listen()"])
    result = Result(tables=[table])
    for name, label in BOTS.items():
        to_listen = ratios(rates[name], rates["listen"])
        result.figures[f"{name}_rate"] = Spread.of(rates[name])
        result.figures[f"{name}_to_listen"] = to_listen
        median = thousands(Spread.of(rates[name]).median)
        table.rows.append([label, median, spread(to_listen)])
    result.figures["client_to_direct"] = ratios(rates["client"], rates["direct"])
    return result


def _burst(
    plan: Plan, processes: Processes, broker: Broker, source: Child, kind: str, first: int
) -> float:
    processes.register(broker, symbols(first + SYMBOLS)[first:], bot_id=f"burst{first}")
    bot = processes.child("bot", str(processes.port))
    place = {"names": SYMBOLS, "first": first, "prefix": broker.prefix}
    if not bot.do("receive", kind=kind, count=plan.received, **place)["ready"]:
        raise BenchError(f"a bot was not ready:\n{bot.said}")
    source.do("blast", count=plan.received, epoch=processes.status(broker)["epoch"], **place)
    found: dict[str, float] = {}

    def has_all() -> bool:
        found.update(bot.do("received"))
        return bool(found["seconds"])

    until(has_all, f"{plan.received} prices in the hands of {kind}", every_s=0.1)
    bot.end()
    return found["count"] / found["seconds"]
