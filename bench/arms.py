"""The arms of the throughput race: ours, the rivals, the ceiling; each read in its turn.

Owns how each is set going and held. Only one moves at a time: the broker's feeder is halted and
what it sent is waited for; the rivals, whose backlog takes seconds, are stopped where they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from bench.frames import symbols
from bench.plan import Plan
from bench.processes import Broker, Child, Feeder, Process, Processes, until


@dataclass(frozen=True)
class Reading:
    """One arm, once."""

    rate: float  # messages per second
    cpu_us: float  # of its process, per message


class Arm(Protocol):
    """Something that takes frames."""

    def read(self, plan: Plan) -> Reading:
        """Let it go, and see how fast it is."""

    def end(self) -> None:
        """End its processes."""


def reading(plan: Plan, process: Process, count: Callable[[], tuple[float, float]]) -> Reading:
    """After a while to get going: messages and processor time over the plan's seconds."""
    time.sleep(plan.warm_s)
    cpu, (first, began) = process.cpu_s, count()
    time.sleep(plan.seconds)
    spent, (last, ended) = process.cpu_s - cpu, count()
    messages = max(1.0, last - first)
    return Reading(messages / (ended - began), spent / messages * 1e6)


class Ours:
    """A broker, counted by what Redis has carried out."""

    def __init__(self, processes: Processes, broker: Broker, names: int, batch: int) -> None:
        self._processes, self._broker = processes, broker
        self._names, self._batch = names, batch

    def read(self, plan: Plan) -> Reading:
        """At full speed."""
        self._broker.feeder.do("go", names=self._names, batch=self._batch)
        found = reading(plan, self._broker, lambda: (self._processes.published(), time.monotonic()))
        self._broker.feeder.do("halt")
        self._processes.settle()
        return found

    def end(self) -> None:
        """The broker is used again."""


class Theirs:
    """alpaca-py with a handler; it has its own feeder, and both stand still between readings."""

    def __init__(
        self, processes: Processes, kind: str, names: int, batch: int, warm_s: float
    ) -> None:
        self._processes, self._publishes = processes, kind == "publish"
        self.feeder = processes.feeder()
        words = (kind, self.feeder.url, str(processes.port), str(names))
        self._rival = processes.child("rival", *words)
        until(self.feeder.has_client, "alpaca-py is connected")
        self.feeder.do("go", names=names, batch=batch)
        time.sleep(warm_s)  # until its queue is full: then it is at its fastest
        self._hold()

    def read(self, plan: Plan) -> Reading:
        """At full speed."""
        self.feeder.resume()
        self._rival.resume()
        found = reading(plan, self._rival, self._count)
        self._hold()
        return found

    def end(self) -> None:
        """End both; the backlog goes with them."""
        self._rival.end()
        self.feeder.end()

    def _count(self) -> tuple[float, float]:
        if self._publishes:
            return self._processes.published(), time.monotonic()
        found = self._rival.do("counted")
        return found["count"], found["at"]

    def _hold(self) -> None:
        self._rival.pause()
        self.feeder.pause()


class Ceiling:
    """The bare loop."""

    def __init__(self, processes: Processes, names: int, batch: int) -> None:
        self._processes, self._names, self._batch = processes, names, batch
        self._feeder: Feeder = processes.feeder()
        self._loop: Child = processes.child("ceiling", self._feeder.url, str(processes.port))

    def read(self, plan: Plan) -> Reading:
        """At full speed."""
        self._loop.do("connect")
        until(lambda: self._feeder.do("state")["live"] == 1, "the bare loop is connected")
        sent = self._feeder.do("go", names=self._names, batch=self._batch)
        amount = {"total_bytes": sent["bytes"], "messages": sent["messages"]}
        self._loop.do("go", names=self._names, **amount)
        found = reading(plan, self._loop, lambda: (self._processes.published(), time.monotonic()))
        self._feeder.do("halt")
        self._loop.do("halt")
        self._processes.settle()
        until(lambda: self._feeder.do("state")["live"] == 0, "the bare loop has left")
        return found

    def end(self) -> None:
        """End both."""
        self._loop.end()
        self._feeder.end()


def ready_broker(processes: Processes, names: int, **more: Any) -> Broker:
    """A broker that keeps every price, with so many symbols confirmed."""
    broker = processes.broker(PRICES_WHEN_BEHIND="wait", **more)
    processes.register(broker, symbols(names))
    return broker
