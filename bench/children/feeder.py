"""A simulator that sends prepared trades: as fast as they are taken, or at a given rate.

Owns the sending. The conversation (greeting, authentication, subscriptions) is the simulator's; the
trades go past it, straight into the socket, so that the feeder costs the machine as little as can
be. Its market is a replay of one trade that nobody wants, so it invents nothing.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import zipfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from alpaca_broker.simulator import SimulatorOptions, SimulatorThread
from alpaca_broker.simulator.codec import Codec
from alpaca_broker.simulator.connection import Connection
from bench.children.lines import answer
from bench.frames import Cycle, cycle, symbols

HIGH_BYTES = 256 * 1024  # what may wait at full speed
LATE_BYTES = 128 * 1024  # at a given rate: what the system does not take is not yet stamped
LOOK_S = 0.001


class Feeder:
    """One run at a time, to the one client there is."""

    def __init__(self, thread: SimulatorThread) -> None:
        self._thread = thread
        self._running: Future[None] | None = None
        self._going = False
        self._sent = 0
        self._began = 0.0

    def where(self) -> dict[str, Any]:
        """The address."""
        return {"url": self._thread.url}

    def state(self) -> dict[str, Any]:
        """How many clients are authenticated, how many subscriptions were asked for, and sent."""
        live = self._thread.call(lambda: len(self._live()))
        subscribed = self._thread.stats.subscribe_messages
        return {"live": live, "subscribed": subscribed, "sent": self._sent}

    def go(
        self, names: int, batch: int, rate: float | None = None, late: bool = False
    ) -> dict[str, Any]:
        """Begin to send trades of so many symbols; with `rate`, that many messages a second.

        With `late` a trade is of the moment when it was due, sent or not.
        """
        connection, codec = self._thread.call(lambda: self._live()[-1])
        made = cycle(symbols(names), batch, packed=codec is Codec.MSGPACK)
        self._going, self._sent, self._began = True, 0, time.monotonic()
        if rate is None:
            run = self._at_full_speed(connection, made)
        else:
            run = self._at(rate, connection, made, late=late)
        self._running = self._thread.begin(run)
        return {"bytes": sum(map(len, made.frames)), "messages": made.messages}

    def halt(self) -> dict[str, Any]:
        """End the run; how many messages were sent, and in which time."""
        self._going = False
        seconds = time.monotonic() - self._began
        if self._running is not None:
            self._running.result(10)
        return {"sent": self._sent, "seconds": seconds}

    def _live(self) -> list[tuple[Connection, Codec]]:
        links = self._thread.simulator.links("market")
        return [(link.connection, link.codec) for link in links if link.live]

    async def _at_full_speed(self, connection: Connection, made: Cycle) -> None:
        blocks = made.blocks(time.time_ns())
        each = made.messages / len(blocks)
        sent = 0.0
        while True:
            for block in blocks:
                while connection.unsent > HIGH_BYTES and self._going:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_S)  # a transport tells only its protocol
                if not self._going:
                    return
                connection.write(block)
                sent += each
                self._sent = int(sent)
                await asyncio.sleep(0)

    async def _at(self, rate: float, connection: Connection, made: Cycle, *, late: bool) -> None:
        began, frames, pause = time.monotonic(), len(made.frames), made.batch / rate
        offset_ns = time.time_ns() - int(began * 1e9)
        number = 0
        while self._going:
            due = min(int((time.monotonic() - began) / pause), number + 1_000)
            while number < due and connection.unsent <= LATE_BYTES:
                due_ns = int((began + (number + 1) * pause) * 1e9) + offset_ns
                ns = due_ns if late else time.time_ns()
                connection.write(made.stamped(number % frames, ns))
                number += 1
            self._sent = number * made.batch
            await asyncio.sleep(max(LOOK_S, began + (number + 1) * pause - time.monotonic()))


def main() -> None:
    """Feed until standard input ends."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = Path(folder) / "zzzzz_20240102_trade.zip"
        with zipfile.ZipFile(quiet, "w") as archive:
            archive.writestr("one.csv", "34200000,10000,1,D,,0\n")
        options = SimulatorOptions(ticks=[quiet], rest_limit_per_min=None)
        with SimulatorThread(options) as thread:
            feeder = Feeder(thread)
            answer(where=feeder.where, state=feeder.state, go=feeder.go, halt=feeder.halt)
            feeder.halt()


if __name__ == "__main__":
    main()
