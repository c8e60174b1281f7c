"""One account's order events in one order: what the stream says, held against what REST shows.

Owns the account's order book, and when REST is asked. After a reconnect: a snapshot first, what was
missed next, then the events that came meanwhile; those wait five seconds at most. While the stream
is up: a look every few seconds while orders are open, every half minute otherwise, and beside them
looks at the orders of which an event was lost; all within a small budget of REST calls. A snapshot
that failed is never taken for "no orders". Runs in one loop.

Times that are compared with Alpaca's are Alpaca's (`rest.now()`); intervals are the monotonic
clock's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from time import monotonic, time

from alpaca_broker.alpaca.order_snapshot import look_closely, take_snapshot
from alpaca_broker.alpaca.rest import TradingRest
from alpaca_broker.bus.journal import History, Journal
from alpaca_broker.core.budget import Budget
from alpaca_broker.core.known_order import HOLD_S
from alpaca_broker.core.messages import OrderUpdate
from alpaca_broker.core.muteness import Muteness
from alpaca_broker.core.orderbook import MARGIN_S, SLACK_S, OrderBook
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
SETTLE_FOR_S = 3.0  # the stream's two seconds, and a second for a slow machine
CLOSELY_EVERY_S = 1.0  # while an event waits for one before it, which REST may show late
UNCHECKED_FOR_S = 120.0  # without an answer of REST an account is degraded
MOST_HELD = 5_000
CLOCK_SLACK_S = 2.0  # between Alpaca's clock and its answers' date, which has whole seconds

# What was found by REST alone on a healthy stream, or told without what was before it: how many
# events, and since when something was missing, in our epoch seconds.
OnFound = Callable[[int, float], None]


class Reconciler:
    """One account's book, fed by its stream and by REST, and its lane to the journal."""

    def __init__(
        self,
        environment: Environment,
        lane: OrderLane,
        on_checked: Callable[[float], None],
        on_let_go: OnFound,
        *,
        calls_per_minute: float,
    ) -> None:
        self._environment, self._lane, self._on_checked = environment, lane, on_checked
        self._on_let_go = on_let_go
        self._budget = Budget(calls_per_minute, max(calls_per_minute / 2, 4), monotonic())
        self._book, self._muteness = OrderBook(), Muteness()
        self._restored, self._flowing, self._hole = (asyncio.Event() for _ in range(3))
        self._account_id = ""
        self._first_start = False  # REST has never shown what there was when we began
        self._begun: float | None = None  # when the account was first followed; Alpaca's time
        self._held: list[OrderEvent] | None = []  # None: events flow
        self._flows_since = 0.0  # Alpaca's time
        self._behind = 0.0  # Alpaca's clock behind ours
        self._listening_since = monotonic()
        self._watermark: float | None = None  # Alpaca's time: what is before it has been told
        self._whole_at = self._heard_at = float("-inf")
        self._checked_at = monotonic()
        self._found: list[OrderEvent] = []  # by the last look
        self._counted = 0  # of the link's REST calls, in the budget
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
        last = history.entries[-1][0] if history.entries else None
        for update in history.open_orders:
            if last and update.journal_id == last.journal_id and update.seq > last.seq:
                continue  # what it says never reached the journal: it is still to be told
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
        self._flowing.clear()
        self._muteness.speaks()
        self._counted = 0  # by a new `TradingRest`
        self.missed_since = None

    def hear(self, event: OrderEvent) -> None:
        """The stream has brought an event."""
        self._heard_at = monotonic()
        self._muteness.speaks()
        if self._held is not None:
            self._held.append(event)
        else:
            self._hear([event])

    async def room(self) -> None:
        """Wait until more may be read from the stream."""
        if len(self._held or ()) >= MOST_HELD:
            await self._flowing.wait()
        await self._lane.room()

    def has_room(self) -> bool:
        """Whether more may be read from the stream."""
        return len(self._held or ()) < MOST_HELD and self._lane.has_room()

    async def catch_up(self, rest: TradingRest) -> bool:
        """Tell what was missed, then let events flow; False where REST was no help in time."""
        self._listening_since = monotonic()
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
                first = self._first_found(rest, self._found)
                self.missed_since = min(self.missed_since or first, first)

    def _first_found(self, rest: TradingRest, found: list[OrderEvent]) -> float:
        """When the first event that a look found was, by our clock."""
        self._behind = time() - rest.now()
        return min(event.update.timestamp for event in found) + self._behind

    async def keep_watch(self, rest: TradingRest, on_found: OnFound) -> None:
        """Hold the stream against REST, again and again, until cancelled.

        Raises:
            UpstreamUnavailable: the stream is connected, but mute.
        """
        while True:
            await self._pause()
            began = time()
            is_whole = monotonic() - self._whole_at >= WHOLE_EVERY_S or self.trouble is not None
            try:
                done = await self._try_to_look(rest, whole=is_whole)
            finally:  # also where the link ends meanwhile
                if self._found:
                    on_found(len(self._found), self._first_found(rest, self._found))
            if done:
                self._on_checked(began)
            if lacking := self._muteness.after(self._found, self._flows_since + SLACK_S):
                reason = f"connected, but mute: it did not bring {lacking} events that REST shows"
                raise UpstreamUnavailable("the order stream", reason)

    async def find_lost(self, rest: TradingRest, on_found: OnFound) -> None:
        """Ask for what an event waits for, beside the other looks, until cancelled.

        They may take long (many pages, a slow answer), and an event waits five seconds at most.
        """
        while True:
            await self._hole.wait()
            self._hole.clear()
            await asyncio.sleep(SETTLE_EVERY_S)  # often two were only swapped
            while self._held is None and self._book.has_holes:
                await asyncio.sleep(self._budget.wait(CALLS_A_LOOK, monotonic(), urgent=True))
                found: list[OrderEvent] = []
                try:
                    if lost := self._book.lost():
                        await self._look_closely(rest, lost, found)
                except (UpstreamRefused, UpstreamUnavailable) as error:
                    self._failed(str(error))
                finally:
                    if found:
                        on_found(len(found), self._first_found(rest, found))
                await asyncio.sleep(CLOSELY_EVERY_S)

    async def release_holes(self) -> None:
        """Let go what waited too long for an event before it, until cancelled."""
        while True:
            await asyncio.sleep(SETTLE_EVERY_S)
            if self._held is None:
                self._tell(self._book.release(monotonic()))

    async def _try_to_look(self, rest: TradingRest, *, whole: bool) -> bool:
        """A look; whether it has told all that there was to tell."""
        self._found = []  # a new one: an event is told and kept there at once
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
        if not rest.calls:
            await rest.account()  # any answer shows Alpaca's clock
        now = rest.now()
        self._behind = time() - now
        listening_since = now - (monotonic() - self._listening_since)
        self._book.deaf_until = listening_since - CLOCK_SLACK_S - SLACK_S
        snapshot, since = self._snapshot(now), self._since(now)
        try:
            await take_snapshot(
                rest,
                snapshot,
                orders_since=since if whole else None,
                fills_since=since if whole else max(since, now - RECENT_S),
                unexplained=lambda found: self._book.unexplained(found, monotonic()),
            )
        finally:
            self._spend(rest)
        if self._first_start:
            if not snapshot.complete:
                return False  # nobody knows yet what there was before
            self._first_start = False
            self._book.begin(snapshot, (self._begun or now) + CLOCK_SLACK_S)
            self._lane.then(Journal.reopen)
        await self._settle(snapshot, self._found)
        if gone := self._book.looked_up(snapshot, monotonic()):
            log.warning("%d open orders are unknown to Alpaca: was the account reset?", len(gone))
            self._lane.then(Journal.reopen)
        self._lane.then(Journal.check)
        done = snapshot.complete and not self._book.waits
        if done and whole:
            self._reached(now)
        return done

    async def _look_closely(
        self, rest: TradingRest, lost: dict[str, tuple[float, float]], found: list[OrderEvent]
    ) -> None:
        """One snapshot of the orders of which an event was lost, and what it tells.

        Raises:
            UpstreamRefused, UpstreamUnavailable: one of the questions was not answered.
        """
        now = rest.now()
        snapshot = self._snapshot(now)
        last_told = min(told_at for _, told_at in lost.values())
        try:
            await look_closely(
                rest,
                snapshot,
                {order_id: first_seen for order_id, (first_seen, _) in lost.items()},
                fills_since=max(last_told - SLACK_S, self._since(now)),
            )
        finally:
            self._spend(rest)
        await self._settle(snapshot, found, closely=True)

    def _snapshot(self, at: float) -> Snapshot:
        return Snapshot(account_id=self._account_id, environment=self._environment, taken_at=at)

    def _since(self, now: float) -> float:
        """From when on something may not have been told."""
        return min(self._watermark or now, now) - MARGIN_S

    def _spend(self, rest: TradingRest) -> None:
        """Count the calls since the last time, whichever look made them."""
        self._budget.spend(rest.calls - self._counted, monotonic())
        self._counted = rest.calls

    def _reached(self, watermark: float) -> None:
        """Everything before `watermark` is told; it is so once it is journalled, too."""

        async def tell(_: Journal) -> None:
            self.reconciled = watermark

        self._whole_at, self._watermark = monotonic(), watermark
        self._book.reached(watermark)
        self._lane.then(tell)

    async def _settle(
        self, snapshot: Snapshot, found: list[OrderEvent], *, closely: bool = False
    ) -> None:
        """Tell what only REST shows once the stream has had its time; `found` takes it, too."""
        until = monotonic() + (CLOSELY_EVERY_S if closely else SETTLE_FOR_S)
        while True:
            told = self._book.reconcile(snapshot, monotonic(), self._held or (), closely=closely)
            found += [event for event in told if event.update.source == "reconcile"]
            self._tell(told)
            waits = self._book.has_holes if closely else self._book.waits
            if not waits or monotonic() >= until:
                return
            await asyncio.sleep(SETTLE_EVERY_S)

    def _flow(self) -> None:
        """From now on events are told as they come."""
        held, self._held = self._held, None
        self._flowing.set()
        self._book.rest(monotonic())
        self._hear(held or [])

    def _hear(self, events: list[OrderEvent]) -> None:
        for event in events:
            self._tell(self._book.hear(event, monotonic()))
        if self._book.has_holes:
            self._hole.set()

    def _tell(self, events: list[OrderEvent]) -> None:
        for event in events:
            self._lane.put(event)
        if lacking := [since for e in events if (since := e.lacks_since) is not None]:
            self._whole_at = float("-inf")  # the next look is whole: it may show what was missing
            self._on_let_go(len(lacking), min(lacking) + self._behind)

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
        await asyncio.sleep(BUSY_EVERY_S if busy else QUIET_EVERY_S)
        await asyncio.sleep(self._budget.wait(CALLS_A_LOOK, monotonic()))
        # What is lost was asked for meanwhile, and may have taken that: this one is next.
        await asyncio.sleep(self._budget.wait(CALLS_A_LOOK, monotonic(), urgent=True))
