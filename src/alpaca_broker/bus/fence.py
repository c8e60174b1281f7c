"""Until when this process may write to Redis, and over which connections it does.

Shared by the threads: one extends it (the lease's keeper), all ask it before they write, which
costs a comparison. A connection is entered before its first write, so that a successor can cut it.
What is written by a script is checked there once more, against the stored epoch.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Any

from alpaca_broker.core.lease import MOST_EPOCH, Link

POLL_S = 0.01

# For scripts: the epoch that is kept, 0 where what is kept there is none. (Lua reads numbers into
# more than those: `inf`, `1e300` and `0x10` are some to it, and would stand against every leader.)
EPOCH_IN = f"""
local function epoch_in(key)
  local text = redis.pcall('GET', key)
  if type(text) == 'table' and not string.find(text.err, 'WRONGTYPE', 1, true) then
    redis.call('GET', key)
  end
  if type(text) ~= 'string' or not string.find(text, '^%d+$') then return 0 end
  local number = tonumber(text)
  if number > {MOST_EPOCH + 1} then return 0 end
  return number
end
"""


class Fence:
    """Closed until the lease is ours; closes by itself when it is not renewed in time."""

    def __init__(self, until: float = -math.inf) -> None:
        self.until = until  # monotonic
        self.on_entered: Callable[[], None] = lambda: None
        self._lock = Lock()
        self._connections: dict[object, tuple[Link, Callable[[], bool]]] = {}
        self._entered = 0
        self._told = 0

    @property
    def is_open(self) -> bool:
        """Whether this process may write now."""
        return monotonic() < self.until

    async def opened(self) -> None:
        """Wait until this process may write."""
        await _until(lambda: self.is_open)

    def enter(self, key: object, connection: Link, is_alive: Callable[[], bool]) -> int:
        """Take up a connection by what Redis calls it.

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

    async def connected(self, connection: Any, link: Link) -> None:
        """Take up a connection of redis-py's; while we lead it waits until the lease names it."""
        place = self.enter(connection, link, lambda: bool(connection.is_connected))
        if self.is_open:
            await _until(lambda: self._told >= place or not self.is_open)

    def connections(self) -> tuple[int, list[Link]]:
        """How many were ever entered, and those that live."""
        with self._lock:
            for key in [k for k, (_, is_alive) in self._connections.items() if not is_alive()]:
                del self._connections[key]
            links = {link for link, _ in self._connections.values() if link.number}
            return self._entered, sorted(links)

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
