"""One account's order events in one order: what the stream says, held against what REST shows.

Owns the account's order book, and when REST is asked. After a reconnect: a snapshot first, what was
missed next, then the events that came meanwhile; those wait five seconds at most. While the stream
is up: a look every few seconds while orders are open, every half minute otherwise, within a small
budget of REST calls. A snapshot that failed is never taken for "no orders". Runs in one loop.

Times that are compared with Alpaca's are Alpaca's (`rest.now()`); intervals are the monotonic
clock's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from time import monotonic, time

from alpaca_broker.alpaca.order_snapshot import take_snapshot
from alpaca_broker.alpaca.rest import TradingRest
from alpaca_broker.bus.journal import History, Journal
from alpaca_broker.core.budget import Budget
from alpaca_broker.core.messages import OrderUpdate
from alpaca_broker.core.orderbook import HOLD_S, MARGIN_S, SLACK_S, OrderBook
from alpaca_broker.core.orders import Environment, OrderEvent
from alpaca_broker.core.snapshot import Snapshot
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable
from alpaca_broker.trading.order_lane import OrderLane

log = logging.getLogger(__name__)

BUSY_EVERY_S, QUIET_EVERY_S = 5.0, 30.0  # at the soonest: the budget may be slower
BUSY_FOR_S = 60.0  # after the last event
CALLS_A_LOOK = 2
WHOLE_EVERY_S = 30.0  # a look that asks for all orders since the watermark, and moves it
RECENT_S = 60.0  # how far the other looks go back
RETRY_S = 0.5
SETTLE_EVERY_S = 0.1
SETTLE_FOR_S = 3.0
UNCHECKED_FOR_S = 120.0  # without an answer of REST an account is degraded
MOST_HELD = 5_000
MUTE_LOOKS = 2
BEGIN_SLACK_S = 2.0  # between Alpaca's clock and its answers' date, which has whole seconds

# What was found by REST alone on a healthy stream: how many events, and when the first of them was,
# in our epoch seconds.
OnFound = Callable[[int, float], None]


class Reconciler:
    """One account's book, fed by its stream and by REST, and its lane to the journal."""

    def __init__(
        self,
        environment: Environment,
        lane: OrderLane,
        on_checked: Callable[[], None],
        on_let_go: Callable[[int], None],
        *,
        calls_per_minute: float,
    ) -> None:
        self._environment, self._lane, self._on_checked = environment, lane, on_checked
        self._on_let_go = on_let_go
        self._budget = Budget(calls_per_minute, max(calls_per_minute / 2, 4), monotonic())
        self._book = OrderBook()
        self._restored, self._doubt = asyncio.Event(), asyncio.Event()
        self._account_id = ""
        self._first_start = False  # REST has never shown what there was when we began
        self._begun: float | None = None  # when the account was first followed; Alpaca's time
        self._held: list[OrderEvent] | None = []  # None: events flow
        self._flows_since = 0.0  # Alpaca's time
        self._watermark: float | None = None  # Alpaca's time: what is before it has been told
        self._whole_at = self._heard_at = float("-inf")
        self._checked_at = monotonic()
        self._found: list[OrderEvent] = []  # by the last look
        self._unbrought: list[int] = []  # by the looks since the stream's last event
        self.missed_since: float | None = None  # the first event that catching up found; our time
        self.reconciled: float | None = None  # the watermark, once all before it is journalled
        self.trouble: str | None = None  # why REST is no help

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
    def flows(self) -> bool:
        """Whether everything that the stream has brought is told."""
        return self._held is None and not self._book.has_holes

    @property
    def unchecked(self) -> str | None:
        """Why nobody knows whether the stream is complete, where that lasts too long."""
        since = monotonic() - self._checked_at
        if since < UNCHECKED_FOR_S:
            return None
        return f"not held against REST for {since:.0f} s: {self.trouble or 'the budget is spent'}"

    def restore(
        self, account_id: str, history: History, watermark: float | None, begun: float | None = None
    ) -> None:
        """Take up what was told before us. Without a watermark nothing was held against REST yet.

        `begun` is when the account was first followed: what is older was never told.
        """
        book, self._account_id = self._book, account_id
        for update in history.open_orders:
            book.restore(update, "")
        for update, key in history.entries:
            book.restore(update, key)
        if watermark is None and begun is None and history.entries:
            watermark = history.entries[-1][0].received_at
        self._first_start, self._begun = watermark is None, begun
        self._watermark, self.reconciled = watermark or begun, watermark
        if watermark is not None:
            book.reached(watermark)
        book.floor = max(book.floor, begun or 0.0)
        if history.trimmed and history.entries:
            first = history.entries[0][0]
            book.floor = max(book.floor, first.received_at, first.timestamp) + SLACK_S
        self._restored.set()

    def hold(self) -> None:
        """A new stream: its events wait for what was missed before, after those that still wait."""
        self._held = self._held or []
        self._unbrought.clear()
        self._doubt.clear()
        self.missed_since = None

    def hear(self, event: OrderEvent) -> None:
        """The stream has brought an event."""
        self._heard_at = monotonic()
        self._unbrought.clear()
        if self._held is not None:
            self._held.append(event)
        else:
            self._tell(self._book.hear(event, monotonic()))
            if self._book.has_holes:
                self._doubt.set()

    async def room(self) -> None:
        """Wait until more may be read from the stream."""
        if self._held is not None and len(self._held) >= MOST_HELD:
            await self._restored.wait()
            self._flow()
        await self._lane.room()

    async def catch_up(self, rest: TradingRest) -> bool:
        """Tell what was missed, then let events flow; False where REST was no help in time."""
        await self._restored.wait()
        if self._first_start and self._begun is None:
            self._begun = self._watermark = self._book.floor = rest.now()
            self._lane.then(partial(Journal.begin, at=self._begun))
        whole = False
        try:
            async with asyncio.timeout(HOLD_S):
                whole = await self._catch_up_by(rest)
                while not whole:
                    await asyncio.sleep(RETRY_S)
                    whole = await self._catch_up_by(rest)
        except TimeoutError:
            self._failed("no answer in time")
        self._flows_since = rest.now()
        self._flow()
        return whole

    async def _catch_up_by(self, rest: TradingRest) -> bool:
        try:
            return await self._try_to_look(rest, whole=True)
        finally:
            if self._found:
                first = self._first_found(rest)
                self.missed_since = min(self.missed_since or first, first)

    def _first_found(self, rest: TradingRest) -> float:
        """When the first event that the last look found was, by our clock."""
        first = min(event.update.timestamp for event in self._found)
        return first + time() - rest.now()

    async def keep_watch(self, rest: TradingRest, on_found: OnFound) -> None:
        """Hold the stream against REST, again and again, until cancelled.

        Raises:
            UpstreamUnavailable: the stream is connected, but mute.
        """
        while True:
            await self._pause()
            self._doubt.clear()
            is_whole = monotonic() - self._whole_at >= WHOLE_EVERY_S or self.trouble is not None
            done = await self._try_to_look(rest, whole=is_whole)
            if self._found:
                on_found(len(self._found), self._first_found(rest))
            if done:
                self._on_checked()
            self._judge()

    async def release_holes(self) -> None:
        """Let go what waited too long for an event before it, until cancelled."""
        while True:
            await asyncio.sleep(SETTLE_EVERY_S)
            if self._held is None and (let_go := self._book.release(monotonic())):
                self._tell(let_go)
                self._on_let_go(len(let_go))

    async def _try_to_look(self, rest: TradingRest, *, whole: bool) -> bool:
        """A look; whether it has told all that there was to tell."""
        self._found = []
        try:
            done = await self._look(rest, whole=whole)
        except (UpstreamRefused, UpstreamUnavailable) as error:
            self._failed(str(error))
            return False
        if done:
            self.trouble, self._checked_at = None, monotonic()
        elif self.trouble is None:
            self.trouble = "what REST shows does not fit together yet"
        return done

    async def _look(self, rest: TradingRest, *, whole: bool) -> bool:
        """One snapshot, and what it tells.

        Raises:
            UpstreamRefused, UpstreamUnavailable: one of the questions was not answered.
        """
        calls = rest.calls
        if not calls:
            await rest.account()  # any answer shows Alpaca's clock
        now = rest.now()
        snapshot = Snapshot(
            account_id=self._account_id, environment=self._environment, taken_at=now
        )
        watermark = min(self._watermark or now, now)
        since = watermark - MARGIN_S
        try:
            await take_snapshot(
                rest,
                snapshot,
                orders_since=since if whole else None,
                fills_since=since if whole else max(since, now - RECENT_S),
                unexplained=lambda found: self._book.unexplained(found, monotonic()),
            )
        finally:
            self._budget.spend(rest.calls - calls, monotonic())
        if self._first_start and snapshot.complete:
            self._first_start = False
            self._book.begin(snapshot, (self._begun or now) + BEGIN_SLACK_S)
            self._lane.then(Journal.reopen)
        await self._settle(snapshot)
        if gone := self._book.looked_up(snapshot, monotonic()):
            log.warning("%d open orders are unknown to Alpaca: was the account reset?", len(gone))
            self._lane.then(Journal.reopen)
        self._lane.then(Journal.check)
        done = snapshot.complete and not self._book.waits
        if done and whole:
            self._reached(now)
        return done

    def _reached(self, watermark: float) -> None:
        """Everything before `watermark` is told; it is so once it is journalled, too."""

        async def tell(_: Journal) -> None:
            self.reconciled = watermark

        self._whole_at, self._watermark = monotonic(), watermark
        self._book.reached(watermark)
        self._lane.then(tell)

    async def _settle(self, snapshot: Snapshot) -> None:
        """Tell what only REST shows once the stream has had its time."""
        until = monotonic() + SETTLE_FOR_S
        while True:
            found = self._book.reconcile(snapshot, monotonic(), self._held or ())
            self._found += [event for event in found if event.update.source == "reconcile"]
            self._tell(found)
            # Where an event waits for one that the snapshot is too old to show: a new one, now.
            if not self._book.waits or monotonic() >= until or self._doubt.is_set():
                return
            await asyncio.sleep(SETTLE_EVERY_S)

    def _flow(self) -> None:
        """From now on events are told as they come."""
        held, self._held = self._held, None
        now = monotonic()
        self._book.rest(now)
        for event in held or ():
            self._tell(self._book.hear(event, now))

    def _tell(self, events: list[OrderEvent]) -> None:
        for event in events:
            self._lane.put(event)

    def _judge(self) -> None:
        """A stream that does not bring what REST shows, twice in a row, is connected but mute.

        Only what happened while it was up counts; exits of brackets may be told with their parent.

        Raises:
            UpstreamUnavailable: it is mute.
        """
        since = self._flows_since + SLACK_S
        lacking = sum(
            event.update.timestamp > since and event.update.order_class in (None, "", "simple")
            for event in self._found
        )
        if not lacking:
            return
        self._unbrought.append(lacking)
        if len(self._unbrought) >= MUTE_LOOKS:
            events, self._unbrought = sum(self._unbrought), []
            reason = f"connected, but mute: it did not bring {events} events that REST shows"
            raise UpstreamUnavailable("the order stream", reason)

    def _failed(self, text: str) -> None:
        if self.trouble is None:
            log.warning("orders cannot be held against REST: %s", text)
        self.trouble = text

    async def _pause(self) -> None:
        """Until the next look: soon while something is going on or is missing, seldom otherwise."""
        busy = (
            self._book.open_count
            or self._book.waits
            or self.trouble is not None
            or monotonic() - self._heard_at < BUSY_FOR_S
        )
        await self._doubt_within(BUSY_EVERY_S if busy else QUIET_EVERY_S)
        await self._doubt_within(self._budget.wait(CALLS_A_LOOK, monotonic()))
        # Whoever waits for a lost event waits five seconds: the budget is paid back later.
        await asyncio.sleep(self._budget.wait(CALLS_A_LOOK, monotonic(), urgent=True))

    async def _doubt_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._doubt.wait()
        except TimeoutError:
            pass
