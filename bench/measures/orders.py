"""How old an order event is in the bot's hands, in calm and while prices saturate the broker."""

from __future__ import annotations

import time

from bench.figures import Spread, Times
from bench.frames import symbols
from bench.plan import USUAL_BATCH, Plan
from bench.processes import KEY_ID, SECRET, Broker, Child, Processes, until
from bench.results import Result, Table, spread

SYMBOLS = 10
PER_SECOND = 100


def orders_bot(processes: Processes, broker: Broker) -> Child:
    """A bot that notes the age of every order event of the broker's account."""
    accounts: list[str] = until(
        lambda: list(processes.status(broker).get("accounts", ())), "an account"
    )
    bot = processes.child("bot", str(processes.port))
    bot.do("orders", account=accounts[0], prefix=broker.prefix)
    return bot


def desk_with_orders(processes: Processes, per_second: int) -> str:
    """A simulator on whose account so many order events happen a second."""
    return processes.desk("--orders", str(per_second), "--key", f"{KEY_ID}:{SECRET}")


def measure(plan: Plan) -> Result:
    """Calm and storm in turn; the orders' simulator is another process than the prices'."""
    seen: dict[str, list[Times]] = {"calm": [], "saturated": []}
    with Processes() as processes:
        broker = processes.broker(desk=desk_with_orders(processes, PER_SECOND))
        processes.register(broker, symbols(SYMBOLS))
        processes.child("listeners", str(processes.port)).do(
            "hear", connections=1, names=SYMBOLS, prefix=broker.prefix
        )
        bot = orders_bot(processes, broker)
        for _ in range(plan.rounds):
            for weather, found in seen.items():
                if weather == "saturated":
                    broker.feeder.do("go", names=SYMBOLS, batch=USUAL_BATCH)
                time.sleep(plan.warm_s)
                bot.do("timed")
                time.sleep(plan.latency_s)
                found.append(Times.from_json(bot.do("timed")["times"]))
                if weather == "saturated":
                    broker.feeder.do("halt")
                    processes.settle()
    return _result(seen)


def _result(seen: dict[str, list[Times]]) -> Result:
    header = ["prices", "median ms", "99 % ms", "99.9 % ms", "max ms", "n"]
    table = Table("Order events, from the simulator's event to the bot's hands", header)
    result = Result(tables=[table])
    for weather, rounds in seen.items():
        total = Times()
        for times in rounds:
            total.add(times)
        found = result.details[weather] = total.summary()
        cells = [f"{found[k]:,.2f}" for k in ("p50_ms", "p99_ms", "p999_ms", "max_ms")]
        table.rows.append([weather, *cells, str(found["n"])])
    pairs = zip(seen["saturated"], seen["calm"], strict=True)
    extra = Spread.of([(storm.at(0.99) - calm.at(0.99)) * 1e3 for storm, calm in pairs])
    result.figures["extra_p99_ms"] = extra
    result.notes.append(f"Extra latency at 99 % while saturated: {spread(extra)} ms.")
    return result
