"""How old a price is in the bot's hands, at several rates; beside alpaca-py direct."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.arms import ready_broker
from bench.figures import Spread, Times, ratios
from bench.frames import symbols
from bench.plan import USUAL_BATCH, Plan
from bench.processes import Broker, Child, Feeder, Processes, until
from bench.results import Plot, Result, Table, spread

SYMBOLS = 10
ONE_BY_ONE_TO = 2_000  # messages per second; above, frames hold several
KEEPS_UP = 0.95
OF_MAXIMUM = 0.8
BOTS = {"client": "Client", "listen": "redis-py listen()", "direct": "alpaca-py direct"}


@dataclass
class Arm:
    """A bot, what feeds it, and what it has seen at one rate."""

    feeder: Feeder
    bot: Child
    times: list[Times] = field(default_factory=list)
    behind: bool = False


def measure(plan: Plan) -> Result:
    """At each rate the bots in turn, each with a feeder, and where it needs one a broker, of its
    own; one that falls behind is left out of that rate's further rounds."""
    result = Result()
    header = ["messages/s", "bot", "median ms", "99 % ms", "99.9 % ms", "max ms", "n"]
    table = Table("From the simulator's send to the bot's hands", header)
    title = "Latency at 2,000 messages/s"
    plot = Plot("latency", title, "milliseconds", "share of all prices")
    with Processes() as processes:
        brokers = {name: ready_broker(processes, SYMBOLS) for name in ("client", "listen")}
        bots = {name: _bot(processes, broker, name) for name, broker in brokers.items()}
        most = _maximum(plan, brokers["client"].feeder, bots["client"])
        result.figures["maximum"] = Spread.of([most])
        result.notes.append(f"The most that a `Client` was handed: {most:,.0f} messages/s.")
        rates = [(str(rate), rate) for rate in plan.rates]
        for label, rate in [*rates, ("80 % of maximum", int(most * OF_MAXIMUM))]:
            arms = {name: Arm(brokers[name].feeder, bots[name]) for name in brokers}
            arms["direct"] = _direct(processes)
            for _ in range(plan.rounds):
                for arm in arms.values():
                    _read(plan, arm, rate)
            arms["direct"].bot.end()
            arms["direct"].feeder.end()
            _report(result, table, label, rate, arms)
            if rate == ONE_BY_ONE_TO:
                for name, arm in arms.items():
                    curve = [(at * 1e3, share) for at, share in _all(arm).shares()]
                    plot.lines[BOTS[name]] = curve
    result.tables, result.plots = [table], [plot]
    return result


def _bot(processes: Processes, broker: Broker, kind: str) -> Child:
    bot = processes.child("bot", str(processes.port))
    bot.do("time", kind=kind, names=SYMBOLS, prefix=broker.prefix)
    processes.register(broker, symbols(SYMBOLS))
    return bot


def _maximum(plan: Plan, feeder: Feeder, bot: Child) -> float:
    """What the bot is handed while the feeder sends all it can."""
    feeder.do("go", names=SYMBOLS, batch=USUAL_BATCH)
    time.sleep(plan.warm_s)
    bot.do("timed")
    began = time.monotonic()
    time.sleep(plan.seconds)
    found = bot.do("timed")["count"] / (time.monotonic() - began)
    feeder.do("halt")
    _drained(bot)
    return float(found)


def _direct(processes: Processes) -> Arm:
    feeder = processes.feeder()
    bot = processes.child("rival", "time", feeder.url, str(processes.port), str(SYMBOLS))
    until(feeder.has_client, "alpaca-py is connected")
    return Arm(feeder, bot)


def _read(plan: Plan, arm: Arm, rate: int) -> None:
    if arm.behind:
        return
    batch = 1 if rate <= ONE_BY_ONE_TO else USUAL_BATCH
    arm.feeder.do("go", names=SYMBOLS, batch=batch, rate=rate)
    time.sleep(plan.warm_s)
    arm.bot.do("timed")
    began = time.monotonic()
    time.sleep(plan.latency_s)
    found, passed = arm.bot.do("timed"), time.monotonic() - began
    arm.feeder.do("halt")
    arm.times.append(Times.from_json(found["times"]))
    arm.behind = found["count"] < KEEPS_UP * rate * passed
    _drained(arm.bot)


def _drained(bot: Child) -> None:
    """What was sent is handled, or two seconds have passed."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        time.sleep(0.1)
        if not bot.do("timed")["count"]:
            return


def _all(arm: Arm) -> Times:
    total = Times()
    for times in arm.times:
        total.add(times)
    return total


def _report(result: Result, table: Table, label: str, rate: int, arms: dict[str, Arm]) -> None:
    for name, arm in arms.items():
        summary = _all(arm).summary()
        result.details[f"{label}: {BOTS[name]}"] = summary | {"fell_behind": arm.behind}
        cells = [f"{summary[k]:,.2f}" for k in ("p50_ms", "p99_ms", "p999_ms", "max_ms")]
        label_of = BOTS[name] + (" (falls behind)" if arm.behind else "")
        table.rows.append([f"{rate:,}", label_of, *cells, f"{summary['n']:,}"])
    quantiles: dict[str, Callable[[Times], float]] = {
        "p50": lambda times: times.at(0.5),
        "p99": lambda times: times.at(0.99),
    }
    if arms["client"].behind or arms["direct"].behind:
        return  # how long a queue has grown is no latency
    for name, at in quantiles.items():
        rounds = zip(arms["client"].times, arms["direct"].times, strict=False)
        pairs = [(at(ours), at(theirs)) for ours, theirs in rounds]
        found = ratios([a for a, _ in pairs], [b for _, b in pairs])
        place = "80%" if label.startswith("80") else label
        result.figures[f"{place}_{name}_to_direct"] = found
        result.notes.append(f"At {label}/s, Client ÷ alpaca-py direct, {name}: {spread(found)}.")
