"""Until when this process may write to Redis, and over which connections it does.

Shared by the threads: one extends it (the lease's keeper), all ask it before they write, which
costs a comparison. A connection is entered before its first write, so that a successor can cut it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Any

POLL_S = 0.01


class Fence:
    """Closed until the lease is ours; closes by itself when it is not renewed in time."""

    def __init__(self, until: float = -math.inf) -> None:
        self.until = until  # monotonic
        self.on_entered: Callable[[], None] = lambda: None
        self._lock = Lock()
        self._connections: dict[object, tuple[int, Callable[[], bool]]] = {}
        self._entered = 0
        self._told = 0

    @property
    def is_open(self) -> bool:
        """Whether this process may write now."""
        return monotonic() < self.until

    async def opened(self) -> None:
        """Wait until this process may write."""
        await _until(lambda: self.is_open)

    def enter(self, key: object, connection: int, is_alive: Callable[[], bool]) -> int:
        """Take up a connection by Redis' number of it (0 where Redis does not tell).

        Returns its place in the order of entry, for `admit`.
        """
        with self._lock:
            self._connections[key] = (connection, is_alive)
            self._entered += 1
            place = self._entered
        self.on_entered()
        return place

    def leave(self, key: object) -> None:
        """This connection has ended; may be called again."""
        with self._lock:
            self._connections.pop(key, None)

    async def admit(self, place: int) -> None:
        """Wait until the lease was renewed with the connection of this place in it."""
        await _until(lambda: self._told >= place or self.until == math.inf)

    async def connected(self, connection: Any, number: int) -> None:
        """Take up a connection of redis-py's; while we lead it waits until the lease names it."""
        place = self.enter(connection, number, lambda: bool(connection.is_connected))
        if self.is_open:
            await _until(lambda: self._told >= place or not self.is_open)

    def connections(self) -> tuple[int, list[int]]:
        """How many were ever entered, and the numbers of those that live."""
        with self._lock:
            for key in [k for k, (_, is_alive) in self._connections.items() if not is_alive()]:
                del self._connections[key]
            numbers = {number for number, _ in self._connections.values()}
            return self._entered, sorted(numbers - {0})

    def extend(self, until: float, entered: int) -> None:
        """The lease is ours until then, and names the first `entered` connections."""
        self._told = entered
        self.until = until

    def close(self) -> None:
        """The lease is not ours any more."""
        self.until = -math.inf


def always_open() -> Fence:
    """For a process that needs no lease: a test's, or a tool's."""
    return Fence(math.inf)


async def _until(condition: Callable[[], bool]) -> None:
    # What changes it happens in another thread, whose events this loop cannot wait for.
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)
