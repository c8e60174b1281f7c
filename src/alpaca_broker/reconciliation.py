"""One account's order events in one order: what the stream says, held against what REST shows.

Owns the account's order book, and when REST is asked. After a reconnect: a snapshot first, what was
missed next, then the events that came meanwhile; those wait five seconds at most. While the stream
is up: a look every few seconds while orders are open, seldom otherwise, within a small budget of
REST calls. A snapshot that failed is never taken for "no orders". Runs in one loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic, time

from alpaca_broker.alpaca.order_snapshot import take_snapshot
from alpaca_broker.alpaca.rest import TradingRest
from alpaca_broker.bus.journal import History
from alpaca_broker.core.budget import Budget
from alpaca_broker.core.messages import OrderUpdate
from alpaca_broker.core.orderbook import HOLD_S, MARGIN_S, OrderBook
from alpaca_broker.core.orders import Environment, OrderEvent
from alpaca_broker.core.snapshot import Snapshot
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable
from alpaca_broker.order_lane import OrderLane

log = logging.getLogger(__name__)

BUSY_EVERY_S, QUIET_EVERY_S = 5.0, 30.0  # at the soonest: the budget may be slower
BUSY_FOR_S = 60.0  # after the last event
CALLS_A_LOOK = 2
WHOLE_EVERY = 5  # looks, of which one asks for all orders of the last minutes
RECENT_S = 60.0  # how far a look that is not whole looks back
RETRY_S = 0.5
SETTLE_EVERY_S = 0.1
SETTLE_FOR_S = 3.0
LEFT_FOR_BOTS = 20  # REST calls of the current minute that are not ours to take
PAUSE_AFTER_429_S = 15.0
LONGEST_PAUSE_S = 60.0
UNCHECKED_FOR_S = 120.0  # without an answer of REST an account is degraded
MOST_HELD = 5_000
MUTE_LOOKS = 2
FAILURES = (UpstreamRefused, UpstreamUnavailable, TimeoutError)

# What was found by REST alone on a healthy stream: how many events, since when (epoch seconds).
OnFound = Callable[[int, float], None]


class Reconciler:
    """One account's book, fed by its stream and by REST, and its lane to the journal."""

    def __init__(
        self,
        environment: Environment,
        lane: OrderLane,
        on_checked: Callable[[], None],
        *,
        calls_per_minute: float,
    ) -> None:
        self._environment, self._lane, self._on_checked = environment, lane, on_checked
        self._budget = Budget(calls_per_minute, max(calls_per_minute / 2, 4), monotonic())
        self._book = OrderBook()
        self._restored = asyncio.Event()
        self._doubt = asyncio.Event()
        self._account_id = ""
        self._first_start = False
        self._held: list[OrderEvent] | None = []  # None: events flow
        self._looks = 0
        self._heard_at = float("-inf")
        self._unbrought: list[int] = []  # by the looks since the stream's last event
        self.reconciled: float | None = None  # until when everything is known, epoch seconds
        self.trouble: str | None = None  # why REST does not answer

    @property
    def open_orders(self) -> list[OrderUpdate]:
        """The last update of each open order."""
        return self._book.open_updates()

    @property
    def open_count(self) -> int:
        """How many orders are open."""
        return self._book.open_count

    @property
    def recovered(self) -> int:
        """How many events only REST has told."""
        return self._book.recovered

    @property
    def repeated(self) -> int:
        """How many events came a second time, and were not told again."""
        return self._book.repeated

    @property
    def unchecked(self) -> str | None:
        """Why nobody knows whether the stream is complete, where that lasts too long."""
        if self.reconciled is None or time() - self.reconciled < UNCHECKED_FOR_S:
            return None
        since = time() - self.reconciled
        return f"not held against REST for {since:.0f} s: {self.trouble or 'the budget is spent'}"

    def restore(self, account_id: str, history: History, watermark: float | None) -> None:
        """Take up what was told before us. No watermark and no history: the first start ever."""
        book = self._book = OrderBook()
        self._account_id = account_id
        for update in history.open_orders:
            book.restore(update, "")
        for update, key in history.entries:
            book.restore(update, key)
        if watermark is None and history.entries:
            watermark = history.entries[-1][0].received_at
        self._first_start = watermark is None
        self.reconciled = watermark
        if watermark is not None:
            book.reached(watermark)
        if history.trimmed and history.entries:
            book.floor = max(book.floor, history.entries[0][0].received_at)
        self._restored.set()

    def hold(self) -> None:
        """A new stream: its events wait for what was missed before."""
        self._unbrought.clear()
        self._held = self._held or []

    def hear(self, event: OrderEvent) -> None:
        """The stream has brought an event."""
        self._heard_at = monotonic()
        self._unbrought.clear()
        if self._held is not None:
            self._held.append(event)
            if len(self._held) >= MOST_HELD and self._restored.is_set():
                self._flow()
        else:
            self._tell(self._book.hear(event, monotonic()))
            if self._book.has_holes:
                self._doubt.set()

    async def catch_up(self, rest: TradingRest) -> bool:
        """Tell what was missed, then let events flow; False where REST was no help in time."""
        await self._restored.wait()
        try:
            async with asyncio.timeout(HOLD_S):
                while True:
                    try:
                        await self._look(rest, whole=True)
                        return True
                    except (UpstreamRefused, UpstreamUnavailable) as error:
                        self._failed(error)
                    await asyncio.sleep(RETRY_S)
        except TimeoutError as error:
            self._failed(error)
            return False
        finally:
            self._flow()

    async def keep_watch(self, rest: TradingRest, on_found: OnFound) -> None:
        """Hold the stream against REST, again and again, until cancelled.

        Raises:
            UpstreamUnavailable: the stream is connected, but mute.
        """
        while True:
            await self._pause(rest)
            before, since = self._book.recovered, self.reconciled
            self._looks += 1
            try:
                await self._look(rest, whole=not self._looks % WHOLE_EVERY or bool(self.trouble))
            except FAILURES as error:
                self._failed(error)
            if found := self._book.recovered - before:
                on_found(found, since or time())
                self._judge(found)
            if self.reconciled != since:
                self._on_checked()

    def _judge(self, found: int) -> None:
        """A stream that does not bring what REST shows, twice in a row, is connected but mute.

        Raises:
            UpstreamUnavailable: it is.
        """
        self._unbrought.append(found)
        if len(self._unbrought) >= MUTE_LOOKS:
            events, self._unbrought = sum(self._unbrought), []
            reason = f"connected, but mute: it did not bring {events} events that REST shows"
            raise UpstreamUnavailable("the order stream", reason)

    async def release_holes(self) -> None:
        """Let go what waited too long for an event before it, until cancelled."""
        while True:
            await asyncio.sleep(SETTLE_EVERY_S)
            self._tell(self._book.release(monotonic()))

    async def _look(self, rest: TradingRest, *, whole: bool) -> None:
        """One snapshot, and what it tells.

        Raises:
            UpstreamRefused, UpstreamUnavailable: one of the questions was not answered.
        """
        calls, now = rest.calls, time()
        snapshot = Snapshot(
            account_id=self._account_id, environment=self._environment, taken_at=now
        )
        since = (self.reconciled or now) - MARGIN_S
        try:
            await take_snapshot(
                rest,
                snapshot,
                orders_since=since if whole else None,
                fills_since=since if whole else max(since, (self.reconciled or now) - RECENT_S),
                unexplained=self._book.unexplained,
            )
        finally:
            self._budget.spend(rest.calls - calls, monotonic())
        self.trouble = None
        if self._first_start and snapshot.complete:
            self._first_start = False
            self._book.begin(snapshot)
            self._lane.reopen()
        else:
            await self._settle(snapshot)
        if gone := self._book.forget(snapshot.gone):
            log.warning(
                "%d open orders are unknown to Alpaca now: was the account reset?", len(gone)
            )
            self._lane.reopen()
        if snapshot.complete and not self._book.waits:
            self.reconciled = now
            self._book.reached(now)

    async def _settle(self, snapshot: Snapshot) -> None:
        """Tell what only REST shows once the stream has had its time."""
        until = monotonic() + SETTLE_FOR_S
        while True:
            self._tell(self._book.reconcile(snapshot, monotonic(), self._held or ()))
            if not self._book.waits or monotonic() >= until:
                return
            await asyncio.sleep(SETTLE_EVERY_S)

    def _flow(self) -> None:
        """From now on events are told as they come."""
        held, self._held = self._held, None
        for event in held or ():
            self._tell(self._book.hear(event, monotonic()))

    def _tell(self, events: list[OrderEvent]) -> None:
        for event in events:
            self._lane.put(event)

    def _failed(self, error: BaseException) -> None:
        text = str(error) or "no answer in time"
        if self.trouble is None:
            log.warning("orders cannot be held against REST: %s", text)
        self.trouble = text

    async def _pause(self, rest: TradingRest) -> None:
        """Until the next look: soon while something is going on or is missing, seldom otherwise."""
        now = monotonic()
        busy = self._book.open_count or self._book.waits or now - self._heard_at < BUSY_FOR_S
        self._doubt.clear()
        try:
            async with asyncio.timeout(BUSY_EVERY_S if busy else QUIET_EVERY_S):
                await self._doubt.wait()
        except TimeoutError:
            pass
        if refused := self._refused_for(rest):
            await asyncio.sleep(refused)
        await asyncio.sleep(self._budget.wait(CALLS_A_LOOK, monotonic()))

    def _refused_for(self, rest: TradingRest) -> float:
        """Seconds for which Alpaca wants no calls, or the rest of them belongs to the bots."""
        is_low = rest.remaining is not None and rest.remaining < LEFT_FOR_BOTS
        if not is_low or rest.resets_at is None:
            return 0.0
        return min(max(0.0, rest.resets_at - time()), LONGEST_PAUSE_S)
