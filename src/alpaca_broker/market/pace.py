"""Whether more comes than fits, and how what waits meanwhile goes out.

Owns that judgement for all feeds of the price thread, for they share its processor. Redis is behind
where too many commands wait for it (the publisher sees that itself); we are behind where what has
arrived from Alpaca lies unread for too long. In both cases prices and quotes are kept, the newest
of each symbol, and go out at a measured pace: what is saved is the time to read the rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Protocol

log = logging.getLogger(__name__)

TICK_S = 0.025
LATE_S = 0.05  # so old is what arrives unread: twice in turn, and prices are kept
LEAST_UNREAD = 64 * 1024  # bytes; less is what any turn of a busy loop finds
# Of each feed and kind, every tick: 10,000 symbols in a quarter of a second. Where nothing is late
# any more there is time for more, twice as much each tick.
MOST_AT_ONCE = 1_000
FIRST_CALM = 4  # ticks without trouble before everything is published again
MOST_CALM = 200  # the same where it did not last, doubled each time
LASTED_S = 1.0


class Throttled(Protocol):
    """The publisher, as far as it matters here."""

    behind: bool

    @property
    def keeps_up(self) -> bool:
        """Whether little enough waits for Redis."""


class Pace:
    """Judges every tick. Times are the monotonic clock's."""

    def __init__(
        self,
        publisher: Throttled,
        unread_s: Callable[[float], float],
        release: Callable[[int], bool],
        on_behind: Callable[[str], None],
    ) -> None:
        self._publisher, self._unread_s = publisher, unread_s
        self._release, self._on_behind = release, on_behind
        self._late = self._calm = 0
        self._needed = FIRST_CALM
        self._most = MOST_AT_ONCE
        self._ended_at = float("-inf")

    def begin(self, why: str, now: float) -> None:
        """From now on prices are kept."""
        self._publisher.behind = True
        lasted = now - self._ended_at >= LASTED_S
        self._needed = FIRST_CALM if lasted else min(self._needed * 2, MOST_CALM)
        self._calm = self._late = 0
        self._most = MOST_AT_ONCE
        self._on_behind(why)

    def tick(self, now: float) -> None:
        """Judge, and let out what may go."""
        unread_s = self._unread_s(now)
        late = unread_s >= LATE_S
        if not self._publisher.behind:
            self._late = self._late + 1 if late else 0
            if self._late >= 2:
                self.begin(f"what arrives lies unread for {unread_s * 1e3:.0f} ms", now)
        elif not self._publisher.keeps_up:
            self._calm = 0
        else:
            self._most = MOST_AT_ONCE if late else self._most * 2
            more = self._release(self._most)
            self._calm = 0 if more or late else self._calm + 1
            if self._calm >= self._needed:
                self._publisher.behind, self._ended_at = False, now

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.tick(monotonic())
            except Exception:  # it must not end the feeds
                log.exception("what waits could not be let out, which is a mistake of ours")


class Unread:
    """How old what arrives unread is: by how much of it there is, and how fast we read."""

    def __init__(self, now: float) -> None:
        self._at, self._read = now, 0

    def seconds(self, now: float, read: int, unread: int) -> float:
        """`read` and `unread` are bytes: of this link so far, and in the socket."""
        took, got = now - self._at, read - self._read
        self._at, self._read = now, read
        if unread < LEAST_UNREAD or got <= 0 or took <= 0:
            return 0.0
        return unread * took / got
