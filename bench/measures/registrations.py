"""How long it takes to take up many registrations that come at once."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from alpaca_broker.core.channels import Channels
from bench.figures import Spread
from bench.frames import symbols
from bench.plan import Plan
from bench.processes import BenchError, Broker, Processes
from bench.results import Result, Table, spread

WITHIN_S, ENOUGH_S = 900.0, 20.0
REPLIES = "bench:replies"


def measure(plan: Plan) -> Result:
    """Each of so many bots registers a symbol of its own, and waits until Alpaca has confirmed."""
    taken: list[float] = []
    said: list[float] = []
    with Processes() as processes:
        began = time.monotonic()
        while not taken or (len(taken) < plan.rounds and time.monotonic() - began < ENOUGH_S):
            broker = processes.broker()
            seconds, saying = _once(processes, broker, plan.registrations)
            taken.append(seconds)
            said.append(saying)
            broker.end()
            broker.feeder.end()
    label = f"{plan.registrations:,} registrations"
    table = Table(f"{label} at once", ["what", "seconds"])
    table.rows.append(["all answered as confirmed", spread(Spread.of(taken), 2)])
    table.rows.append(["of it: redis-py's time to say them, pipelined", spread(Spread.of(said), 2)])
    return Result(figures={"all_s": Spread.of(taken), "said_s": Spread.of(said)}, tables=[table])


def _once(processes: Processes, broker: Broker, count: int) -> tuple[float, float]:
    server: Any = processes.redis  # whose pubsub() has no types
    hears = server.pubsub(ignore_subscribe_messages=True)
    hears.subscribe(REPLIES)
    hears.get_message(timeout=5)
    confirmed, done = set[str](), threading.Event()

    def listen() -> None:
        until = time.monotonic() + WITHIN_S
        while len(confirmed) < count and time.monotonic() < until:
            message: Any = hears.get_message(timeout=1)
            if message is None or message["type"] != "message":
                continue
            answer = json.loads(message["data"])
            if not answer["pending"] and answer["accepted"]:
                confirmed.add(answer["request_id"])
        done.set()

    listening = threading.Thread(target=listen, name="answers")
    listening.start()
    channel, began = Channels(broker.prefix).registration, time.monotonic()
    names = symbols(count)
    for first in range(0, count, 500):
        pipe = processes.redis.pipeline(transaction=False)
        for number in range(first, min(first + 500, count)):
            wish = {"action": "register", "symbols": [names[number]], "bot_id": f"bot{number}"}
            more = {"reply_to": REPLIES, "request_id": str(number)}
            pipe.publish(channel, json.dumps(wish | more))
        pipe.execute()
    said = time.monotonic() - began
    listening.join()
    hears.close()
    if len(confirmed) < count:
        raise BenchError(f"{len(confirmed)} of {count} registrations were answered\n{broker.said}")
    return time.monotonic() - began, said
