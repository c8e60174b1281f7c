"""A reconciler between a scripted stream and a pretend REST, without Redis: what it tells, when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, cast

from lives import BEGAN, Life

from alpaca_broker.alpaca.rest import TradingRest
from alpaca_broker.bus.journal import History
from alpaca_broker.core.orders import CLOSED, OrderEvent
from alpaca_broker.core.wire import epoch_seconds
from alpaca_broker.errors import UpstreamUnavailable
from alpaca_broker.trading.order_lane import Errand, OrderLane
from alpaca_broker.trading.reconciliation import Reconciler


class Rest:
    """What a `TradingRest` answers of some orders."""

    def __init__(self) -> None:
        self.lives: list[Life] = []
        self.calls = 1  # who we are was asked before
        self.hidden: set[str] = set()  # fills that are not shown yet, by their id
        self.waiting: dict[str, asyncio.Event] = {}  # an answer is held back: of a status, or fills
        self.down: set[str] = set()
        self._asked = asyncio.Condition()
        self._began = monotonic()

    def now(self) -> float:
        return BEGAN + 5_000 + monotonic() - self._began

    def place(self, order_id: str, qty: int = 30) -> Life:
        """An order, as old as now."""
        life = Life(order_id, qty, at=self.now())
        self.lives.append(life)
        return life

    async def _answers(self, what: str) -> None:
        self.calls += 1
        async with self._asked:
            self._asked.notify_all()
        if what in self.waiting:
            await self.waiting[what].wait()
        if what in self.down:
            raise UpstreamUnavailable("the pretend REST", "down")

    async def asked(self, more: int) -> None:
        """Wait until so many more questions have come."""
        calls = self.calls + more
        async with self._asked:
            await self._asked.wait_for(lambda: self.calls >= calls)

    async def account(self) -> None:
        await self._answers("account")

    async def orders(self, status: str, after: str | None = None, **_: str) -> list[Any]:
        await self._answers(status)
        found = [dict(life.order) for life in self.lives]
        return [
            order
            for order in found
            if (status == "all" or order["status"] not in CLOSED)
            and (after is None or order["submitted_at"] > after)
        ]

    async def order(self, order_id: str) -> Any | None:
        await self._answers("order")
        found = [dict(life.order) for life in self.lives if life.order["id"] == order_id]
        return found[0] if found else None

    async def fills(self, after: str, **_: str) -> list[Any]:
        await self._answers("fills")
        since = epoch_seconds(after) or 0.0
        return [
            activity
            for life in self.lives
            for activity in life.activities
            if activity["id"] not in self.hidden
            and (epoch_seconds(activity["transaction_time"]) or 0.0) > since
        ]


class Told(OrderLane):
    """A lane that keeps what it is told, and does no errands."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[OrderEvent] = []

    def put(self, event: OrderEvent) -> None:
        self.events.append(event)

    def then(self, errand: Errand) -> None:
        pass

    def names(self, order_id: str) -> list[tuple[str, int, str]]:
        """What was told of an order."""
        return [
            (e.update.event or "", int(e.update.filled_qty), e.update.source or "")
            for e in self.events
            if e.update.order_id == order_id
        ]


class Bench:
    """One account's reconciler at work, and what bots would be told."""

    def __init__(
        self,
        calls_per_minute: float = 6_000,
        history: History | None = None,
        *,
        is_first: bool = False,
    ) -> None:
        self.rest, self.lane = Rest(), Told()
        self.let_go: list[tuple[int, float]] = []
        self.found: list[tuple[int, float]] = []
        self.checked = 0
        self.reconciler = Reconciler(
            "paper",
            self.lane,
            self._checked,
            lambda events, since: self.let_go.append((events, since)),
            calls_per_minute=calls_per_minute,
        )
        history = history or History([], [], trimmed=False)
        self.reconciler.restore("a", history, None if is_first else self.rest.now())

    def _checked(self, began: float) -> None:
        self.checked += 1

    @asynccontextmanager
    async def link(self) -> AsyncIterator[None]:
        """One link, caught up."""
        rest = cast(TradingRest, self.rest)
        self.reconciler.hold()
        watching = [asyncio.create_task(self.reconciler.release_holes())]
        try:
            watching.append(asyncio.create_task(self.reconciler.find_lost(rest, self._found)))
            await self.reconciler.catch_up(rest)
            watching.append(asyncio.create_task(self.reconciler.keep_watch(rest, self._found)))
            yield
        finally:
            for task in watching:
                task.cancel()
            await asyncio.wait(watching)

    def _found(self, events: int, since: float) -> None:
        self.found.append((events, since))

    def hear(self, *events: OrderEvent) -> None:
        """The stream brings these."""
        for event in events:
            self.reconciler.hear(event)

    async def tells(self, order_id: str, *expected: tuple[str, int], within_s: float = 4.5) -> None:
        """Wait until this, and nothing else, was told of an order, in this order."""
        until = monotonic() + within_s
        while [name[:2] for name in self.lane.names(order_id)] != list(expected):
            assert monotonic() < until, self.lane.names(order_id)
            await asyncio.sleep(0.01)
