"""What is known of one account's orders, and what is news, whoever tells it: stream or REST.

Owns the one order of events. Invariants: an event is handed out once, whichever source was first;
an order's events are handed out in the order's own sequence, for as long as a missing one may still
come; what REST shows from before our knowledge changes nothing. Pure: `now` is any clock that only
goes forward, all other times are epoch seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from decimal import Decimal
from heapq import merge
from math import inf

from alpaca_broker.core.difference import Missing, beginning, missing
from alpaca_broker.core.known_order import (
    GONE,
    HOLD_S,
    Order,
    before,
    in_its_order,
    is_older,
    lacks,
)
from alpaca_broker.core.messages import OrderUpdate
from alpaca_broker.core.orders import BEGINNINGS, BUSTS, CLOSED, FILLS, Fill, OrderEvent, fill_key
from alpaca_broker.core.snapshot import Snapshot

WAIT_FOR_STREAM_S = 2.0  # what only REST shows may still be on its way
WAIT_IN_A_HOLE_S = 0.5  # the stream has shown that something is missing
MARGIN_S = 300.0  # how far before the watermark REST is asked
SLACK_S = 1.0  # between the times that REST and the stream give the same event
GONE_FOR_S = 60.0
LOOK_UP_AGAIN_S = 60.0
MOST_CLOSED = 20_000
MOST_KEYS = 20_000
MOST_HELD = 1_000


class OrderBook:
    """One account's orders. Not thread-safe."""

    def __init__(self) -> None:
        self._open: dict[str, Order] = {}
        self._closed: OrderedDict[str, Order] = OrderedDict()
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._first_seen: dict[str, dict[str, float]] = {}  # by order: what only REST shows; when
        self._holding: dict[str, Order] = {}
        self._held = 0
        self.floor = 0.0  # what is older is no news
        self.deaf_until = 0.0  # what is older the stream will not bring
        self.waits = False  # whether REST shows something whose time has not come
        self.recovered = 0  # events that only REST has told

    # What was.

    def restore(self, update: OrderUpdate, key: str) -> None:
        """Take up an event that was told in another life, oldest first."""
        order = self._known(update.order_id) or self._new(update.order_id, update.timestamp)
        self._note(order, OrderEvent(update, key, changed_at=update.timestamp))
        if update.source == "reconcile":
            order.told[update.event] = update.timestamp
            if update.event in FILLS and update.execution_qty:
                order.merged.append((update.filled_qty - update.execution_qty, update.filled_qty))

    def begin(self, snapshot: Snapshot, since: float = inf) -> None:
        """The first start ever: what REST shows of before `since` is known, and not told again.

        What the stream brings of it is told all the same: it happened after we began to listen.
        """
        for order_id, shown in snapshot.orders.items():
            if (shown.changed_at or 0.0) >= since:
                continue  # REST was away since the start: what happened meanwhile is news
            update = snapshot.update(shown, shown.status, shown.changed_at)
            if update is not None and self._known(order_id) is None:
                self._note(self._new(order_id, update.timestamp), OrderEvent(update, ""))
        for fill in snapshot.fills:
            if fill.at >= since:
                continue
            order = self._known(fill.order_id) or self._new(fill.order_id, fill.at)
            order.fills.add(fill.cum_qty)
            order.untold.add(fill.cum_qty)
            order.filled_qty = max(order.filled_qty, fill.cum_qty)
        self.reached(snapshot.taken_at)

    def reached(self, watermark: float) -> None:
        """Everything from before `watermark` has been told."""
        self.floor = max(self.floor, watermark - MARGIN_S)

    def looked_up(self, snapshot: Snapshot, now: float) -> list[str]:
        """What was asked for by id is not asked again at once; returns orders that are no more.

        Alpaca must not know an order twice, a minute apart: a server may be behind. (A paper
        account that is reset loses its orders.)
        """
        forgotten = []
        for order_id in snapshot.looked_up:
            if (order := self._open.get(order_id)) is None:
                continue
            order.looked_up_at = now
            if order_id not in snapshot.gone:
                order.gone_at = None
            elif order.gone_at is None:
                order.gone_at = now
            elif now - order.gone_at >= GONE_FOR_S:
                order.status = GONE
                self._file(order_id, order)
                forgotten.append(order_id)
        return forgotten

    def open_updates(self) -> list[OrderUpdate]:
        """The last update of each open order."""
        return [order.last for order in self._open.values() if order.last is not None]

    @property
    def open_count(self) -> int:
        """How many orders can still change."""
        return len(self._open)

    @property
    def has_holes(self) -> bool:
        """Whether an event waits for one before it."""
        return self._held > 0

    # The stream.

    def hear(self, event: OrderEvent, now: float) -> list[OrderEvent]:
        """What to tell now that the stream brought this: nothing, it, or more before and after."""
        update = event.update
        order = self._known(update.order_id)
        began: list[OrderEvent] = []
        if order is None:
            order, began = self._first_heard(event)
        elif self._is_known(order, event):
            return []
        event.lacks_since = order.told_until if lacks(order, update) else None
        if event.lacks_since is not None and self._held < MOST_HELD:
            order.held.append((now, event))
            self._holding[update.order_id] = order
            self._held += 1
            return began
        return [*began, self._note(order, event), *self._freed(order)]

    def rest(self, now: float) -> None:
        """What waits for an event before it begins to wait now: nobody listened meanwhile."""
        for order in self._holding.values():
            order.held = [(now, event) for _, event in order.held]

    def release(self, now: float) -> list[OrderEvent]:
        """The events that have waited long enough for one before them."""
        freed: list[OrderEvent] = []
        for order_id, order in list(self._holding.items()):
            if order.held and now - min(since for since, _ in order.held) >= HOLD_S:
                freed += self._freed(order, also_in_a_hole=True)
            if not order.held:
                del self._holding[order_id]
        return freed

    # REST.

    def lost(self) -> dict[str, tuple[float, float]]:
        """The orders of which an event waits for one before it, the longest wait first.

        With each since when it is known, and when the last of it that was told happened.
        """
        waiting = [one for one in self._holding.items() if one[1].held]
        waiting.sort(key=lambda one: min(since for since, _ in one[1].held))
        return {order_id: (order.first_seen, order.told_until) for order_id, order in waiting}

    def unexplained(self, snapshot: Snapshot, now: float) -> dict[str, float]:
        """Orders that must be looked at one by one, and since when each is known."""
        ids = {
            order_id: order.first_seen
            for order_id, order in self._open.items()
            if order_id not in snapshot.orders
            and (order.looked_up_at is None or now - order.looked_up_at >= LOOK_UP_AGAIN_S)
        }
        for fill in snapshot.fills:
            if fill.order_id not in snapshot.orders and self._is_news(fill):
                ids.setdefault(fill.order_id, fill.at)
        return ids

    def reconcile(
        self,
        snapshot: Snapshot,
        now: float,
        coming: Collection[OrderEvent] = (),
        *,
        closely: bool = False,
    ) -> list[OrderEvent]:
        """What REST shows and nobody has told for long enough; `coming` is heard, and not yet told.

        May be called again with the same snapshot while `waits`. A look taken `closely`, at what
        was `lost`, says nothing of other orders; it may come between two calls of another one.
        """
        expected = {_identity(event) for event in coming}
        since: dict[str, float] = {}  # when the first of an order's coming events happened
        begins = {e.update.order_id for e in coming if e.update.event in BEGINNINGS}
        for event in coming:
            at = event.update.timestamp
            since[event.update.order_id] = min(at, since.get(event.update.order_id, at))
        first_seen = self._first_seen
        # What is asked for closely has been shown for as long as the hole lasts, whoever looks.
        self._first_seen = {
            order_id: seen
            for order_id, seen in first_seen.items()
            if closely or self._is_in_a_hole(order_id)
        }
        waits = False
        told: list[list[OrderEvent]] = []
        for order_id, fills in snapshot.by_order(self._is_news).items():
            order = self._known(order_id)
            held = {_identity(event) for _, event in order.held} if order is not None else set()
            if closely and not held:
                continue
            seen = first_seen.get(order_id, {})
            still = dict(seen) if held else {}
            due: list[OrderEvent] = []
            may_tell = True
            for one in missing(snapshot, order_id, fills, order, self.floor):
                identity = _identity(one.event)
                is_later = one.event.update.timestamp > since.get(order_id, inf)
                # REST gives the time of its submission for that of its beginning.
                is_later |= one.event.update.event in BEGINNINGS and order_id in begins
                if is_later or identity in expected or identity in held:
                    # What comes after it is told after it, at the next look.
                    waits = waits or (identity in held and bool(due))
                    break
                shown_at = seen.get(identity, now)
                patience = self._patience(one, bool(held))
                if may_tell := may_tell and now - shown_at >= patience:
                    one.event.lacks_since = one.lacks_since
                    due.append(one.event)
                else:
                    still[identity] = shown_at
                    waits = True
            if due:
                told.append(self._tell(order_id, due))
            self._first_seen[order_id] = still
        self.waits = self.waits if closely else waits
        return list(merge(*told, key=lambda event: event.update.timestamp))

    def _tell(self, order_id: str, events: list[OrderEvent]) -> list[OrderEvent]:
        order = self._known(order_id) or self._new(order_id, events[0].update.timestamp)
        told: list[OrderEvent] = []
        for event in events:
            until = event.changed_at or event.update.timestamp
            order.told[event.update.event] = max(until, event.update.timestamp)
            if event.after is not None:
                order.merged.append((event.after, event.update.filled_qty))
            told.append(self._note(order, event))
            self.recovered += 1
        return told + self._freed(order)

    # The parts of both.

    def _known(self, order_id: str) -> Order | None:
        return self._open.get(order_id) or self._closed.get(order_id)

    def _is_in_a_hole(self, order_id: str) -> bool:
        order = self._holding.get(order_id)
        return order is not None and bool(order.held)

    def _new(self, order_id: str, at: float) -> Order:
        order = self._open[order_id] = Order("", Decimal(0), at)
        return order

    def _first_heard(self, event: OrderEvent) -> tuple[Order, list[OrderEvent]]:
        """An order that nobody knows: it was new before, if that was in our time."""
        update, created_at = event.update, event.created_at
        order = self._new(update.order_id, created_at or update.timestamp)
        if created_at is None or created_at < self.floor:
            order.filled_qty = before(update)  # its beginning is not ours to tell
            return order, []
        if update.event in BEGINNINGS:
            return order, []
        self.recovered += 1
        began = beginning(update, created_at)
        order.told["new"] = update.timestamp
        return order, [self._note(order, OrderEvent(began, f"new|{update.order_id}"))]

    def _is_known(self, order: Order, event: OrderEvent) -> bool:
        update = event.update
        if update.event in FILLS and update.filled_qty:
            if not order.has_fill(update.filled_qty):
                return False
            if order.may_refill(update.filled_qty) or update.filled_qty in order.untold:
                return False
            if update.event != "fill" or not order.is_open or update.status not in CLOSED:
                return True
            event.key += "|done"  # no more was filled, but now it is known to be all
        if event.key in self._keys:
            return True
        until = order.told.get(update.event)
        if until is None or update.timestamp > until + SLACK_S:
            return False
        del order.told[update.event]  # it stood for this one event
        self._remember(event.key)
        return True

    def _is_news(self, fill: Fill) -> bool:
        order = self._known(fill.order_id)
        if order is None:
            return fill.at >= self.floor
        known = order.has_fill(fill.cum_qty)
        if known and order.may_refill(fill.cum_qty) and fill.at > order.busted_at:
            return True
        return not known and (fill.at >= self.floor or fill.cum_qty > order.filled_qty)

    def _note(self, order: Order, event: OrderEvent) -> OrderEvent:
        """An event is told: what is known now."""
        update = event.update
        if update.event in FILLS:
            if update.filled_qty in order.busted:
                order.busted.discard(update.filled_qty)
                event.key += f"|{update.execution_id or update.timestamp}"
            order.fills.add(update.filled_qty)
            order.untold.discard(update.filled_qty)
        elif update.event in BUSTS:
            order.bust(update.filled_qty, update.timestamp)
        if is_older(order, event):
            event.is_late = True
        else:
            order.status, order.filled_qty = update.status, update.filled_qty
            order.changed_at = event.changed_at or order.changed_at
            order.last = update
            self._file(update.order_id, order)
        self._remember(event.key)
        return event

    def _file(self, order_id: str, order: Order) -> None:
        """Open orders are kept, of the closed ones the latest."""
        if order.is_open:
            if self._closed.pop(order_id, None) is not None:
                self._open[order_id] = order  # a bust, or Alpaca knows it again
            return
        order.last = None
        if self._open.pop(order_id, None) is None:
            return
        self._closed[order_id] = order
        while len(self._closed) > MOST_CLOSED:
            _, oldest = self._closed.popitem(last=False)
            self.floor = max(self.floor, oldest.first_seen)

    def _freed(self, order: Order, *, also_in_a_hole: bool = False) -> list[OrderEvent]:
        """The held events that lack nothing any more."""
        freed: list[OrderEvent] = []
        order.held.sort(key=lambda held: in_its_order(held[1].update))
        while order.held:
            _, event = order.held[0]
            event.lacks_since = order.told_until if lacks(order, event.update) else None
            if event.lacks_since is not None and not also_in_a_hole:
                break
            order.held.pop(0)
            self._held -= 1
            if not self._is_known(order, event):
                freed.append(self._note(order, event))
        return freed

    def _patience(self, one: Missing, in_a_hole: bool) -> float:
        if one.patience_s:
            return one.patience_s
        if one.event.update.timestamp < self.deaf_until:
            return 0.0
        return WAIT_IN_A_HOLE_S if in_a_hole else WAIT_FOR_STREAM_S

    def _remember(self, key: str) -> None:
        if key:
            self._keys[key] = None
        while len(self._keys) > MOST_KEYS:
            self._keys.popitem(last=False)


def _identity(event: OrderEvent) -> str:
    update = event.update
    if update.event in FILLS:
        return fill_key(update.order_id, update.filled_qty)
    return f"{update.order_id}|{update.event}"
