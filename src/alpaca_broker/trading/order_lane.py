"""The way of one account's order events into the journal: never dropped, one after the other.

Owns the events that are read and not yet recorded. Each is tried until Redis has it. Bounded: when
it is full `has_room` turns false, and whoever reads the stream waits. Runs in one loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import TypeVar

from alpaca_broker.bus.journal import Journal, Superseded
from alpaca_broker.bus.redis_client import RedisError, advice
from alpaca_broker.core.backoff import Patience
from alpaca_broker.core.orders import OrderEvent
from alpaca_broker.settings import RedisTarget
from alpaca_broker.telemetry import Seldom

log = logging.getLogger(__name__)

T = TypeVar("T")

Errand = Callable[[Journal], Awaitable[None]]  # bears a second time

QUEUED_EVENTS = 10_000
DRAIN_WITHIN_S = 1.0


class OrderLane:
    """Events in, by `put`; out, by `write`."""

    def __init__(self, bound: int = QUEUED_EVENTS) -> None:
        self._bound = bound
        # The bound is `has_room`: a `put` that waits could be cancelled with an event in its hands.
        self._queue: asyncio.Queue[OrderEvent | Errand] = asyncio.Queue()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self._unfinished = 0
        self._complaints = Seldom(10.0)
        self.also_on: str | None = None  # a second channel, for the account's number
        self.trouble: str | None = None  # what keeps events from the journal
        self.broken: str | None = None  # what kept one from it for good
        self.recorded = 0

    def put(self, event: OrderEvent) -> None:
        """Take one event."""
        self._put(event)

    def then(self, errand: Errand) -> None:
        """Have something done with the journal, after what is already here."""
        self._put(errand)

    def _put(self, item: OrderEvent | Errand) -> None:
        self._unfinished += 1
        self._queue.put_nowait(item)
        if self._unfinished >= self._bound:
            self._roomy.clear()

    def has_room(self) -> bool:
        """Whether more may be read from Alpaca."""
        return self._roomy.is_set()

    async def room(self) -> None:
        """Wait until the full lane is half empty."""
        await self._roomy.wait()

    async def write(self, journal: Journal, target: RedisTarget) -> None:
        """Record every event until cancelled.

        Raises:
            Superseded: another broker leads.
        """
        while True:
            item = await self._queue.get()
            try:
                await self.insist(partial(self._do, journal, item), target)
            except (Superseded, asyncio.CancelledError):
                raise
            except Exception:
                # Nobody foresaw it, and it must not stop the events behind it; nor be forgotten.
                what = item.key if isinstance(item, OrderEvent) else "an errand"
                log.exception("not done, and not tried again: %s", what)
                self.broken = f"an order event could not be recorded: {what}; see the log"
            self._queue.task_done()
            self._unfinished -= 1
            if self._unfinished <= self._bound // 2:
                self._roomy.set()

    async def drain(self, within_s: float = DRAIN_WITHIN_S) -> int:
        """Wait until everything is recorded; returns how many events were not in time."""
        try:
            async with asyncio.timeout(within_s):
                await self._queue.join()
        except TimeoutError:
            pass
        return self._unfinished

    async def insist(self, asking: Callable[[], Awaitable[T]], target: RedisTarget) -> T:
        """Ask Redis until it has answered; what it is asked must bear a second time."""
        patience = Patience(random.uniform, first=0.05, ceiling=2.0, settled=1.0)
        while True:
            began = monotonic()
            try:
                answer = await asking()
                self.trouble = None
                return answer
            except (RedisError, OSError) as error:
                self.trouble = f"orders wait: {advice(error, target)}"
                if self._complaints.may_say():
                    log.error("orders wait, none is dropped: %s", advice(error, target))
                await asyncio.sleep(patience.after(monotonic() - began))

    async def _do(self, journal: Journal, item: OrderEvent | Errand) -> None:
        if not isinstance(item, OrderEvent):
            await item(journal)
        elif await journal.record(item, self.also_on):
            self.recorded += 1
