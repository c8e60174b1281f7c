"""One consumer's bounded queue: who listens puts, the bot's thread takes.

Owns what waits, and the rule when it is full: prices and quotes shrink to the newest of each
symbol, counted in `skipped`; orders are refused before they are put (`room`), for the journal keeps
them. Whole batches change hands, so that no lock is taken for a single message.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from threading import Lock
from time import monotonic

from msgspec.structs import replace

from alpaca_broker.client.market_data import MarketData, QuoteUpdate
from alpaca_broker.client.updates import Gap, OrderUpdate, PriceUpdate

Item = MarketData | OrderUpdate | Gap

MOST_GAPS = 1_000
MOST_OTHERS = 10_000
AT_ONCE = 1_024
QUICK_S = 0.02  # a bot that takes longer for what it took is given less at once
SIGNAL_SEEN_WITHIN_S = 0.25


class Bell:
    """Rung by any thread, waited for by one; a ring that nobody waited for is kept, once.

    A bare lock, not `threading.Event`: there is no Python in it that Ctrl-C could break off half
    way, which left the event's own lock taken for ever. It is also quicker.
    """

    def __init__(self, also: Callable[[], None] | None = None) -> None:
        """`also` is called with every ring, for one who waits for something else besides."""
        self._also = also or _nobody
        self._silence = Lock()
        self._silence.acquire()

    def ring(self) -> None:
        """Let the one go on who waits, or who will."""
        try:
            self._silence.release()
        except RuntimeError:
            pass  # rung already
        self._also()

    @property
    def is_rung(self) -> bool:
        """Whether nobody has waited for the last ring yet."""
        return not self._silence.locked()

    def was_rung(self) -> bool:
        """Whether it is; the ring is then waited for."""
        return self._silence.acquire(blocking=False)

    def wait(self, timeout: float = inf) -> bool:
        """Wait until it is rung; False where it was not in time.

        In short waits: a signal that comes just before one does not end it, and its handler, so
        also Ctrl-C, would then run with the next ring only.
        """
        until = monotonic() + timeout
        while not self._silence.acquire(
            timeout=max(0.0, min(SIGNAL_SEEN_WITHIN_S, until - monotonic()))
        ):
            if monotonic() >= until:
                return False
        return True


class Inbox:
    """A queue between two threads. `bell` is rung when it is no longer empty, and when closed."""

    def __init__(self, bound: int, *, conflates: bool) -> None:
        self.bound, self._conflates = bound, conflates
        self._limit = bound  # grows with the number of symbols: the newest of each is kept
        self._lock = Lock()
        self._items: list[Item] = []
        self.in_hand: list[Item] = []  # taken, and not yet the bot's: Ctrl-C may come between
        self.pending: list[Item] = []  # of who holds the session's lock, until `flush`
        self.bell: Callable[[], None] = _nobody
        self.on_room: Callable[[], None] = _nobody
        self.wants_room = False  # set by the listening thread, which waits for it
        self.closed = False
        self.delivered = 0
        self.conflated = 0

    def __len__(self) -> int:
        return len(self._items) + len(self.pending)

    @property
    def room(self) -> int:
        """How many may still be put."""
        return self.bound - len(self)

    def flush(self) -> None:
        """Hand over what is pending."""
        with self._lock:
            was_empty = not self._items
            self._items += self.pending
            self.pending.clear()
            if self._conflates and len(self._items) > self._limit:
                self._items, dropped = conflated(self._items)
                self.conflated += dropped
                self._limit = max(self.bound, 2 * len(self._items))
        if was_empty:
            self.bell()

    def take(self, most: int) -> list[Item]:
        """The oldest that wait, at most so many; empty where none does."""
        taken, self.in_hand = self.hold(most), []
        return taken

    def hold(self, most: int) -> list[Item]:
        """As `take`, but they are held until `in_hand` is emptied, and are the next till then.

        Signals' handlers run with calls alone, so what is assigned in one statement is one step.
        """
        with self._lock:
            if self.in_hand:
                return self.in_hand
            if len(self._items) <= most:
                self.in_hand, self._items = self._items, []
            else:
                taken, rest = self._items[:most], self._items[most:]
                self.in_hand, self._items = taken, rest
            self.delivered += len(self.in_hand)
        if self.wants_room and len(self) <= self.bound // 2:
            self.wants_room = False
            self.on_room()
        return self.in_hand

    def hold_own(self, most: int) -> list[Item]:
        """`flush` and `hold` in one, for a thread that may do both; it rings for nobody else."""
        if self.in_hand or self._items or len(self.pending) > min(most, self._limit):
            self.flush()
            return self.hold(most)
        self.in_hand = self.pending.copy()
        self.pending.clear()
        self.delivered += len(self.in_hand)
        return self.in_hand

    def close(self) -> None:
        """Nothing more will come; what waits can still be taken."""
        self.closed = True
        self.bell()


class Portion:
    """How many to take at once: many for a quick bot, so that locks cost nothing; one for a slow
    one, so that what waits can be replaced by what is newer."""

    def __init__(self) -> None:
        self._most = AT_ONCE
        self._taken_at = 0.0
        self._was_full = False

    def take(self, inbox: Inbox) -> list[Item]:
        """The next that wait."""
        taken, inbox.in_hand = self.hold(inbox), []
        return taken

    def hold(self, inbox: Inbox) -> list[Item]:
        """The next that wait; held, as `Inbox.hold` says."""
        now = monotonic()
        if now - self._taken_at <= QUICK_S:
            self._most = min(AT_ONCE, self._most * 2)
        elif self._was_full:
            self._most = max(1, self._most // 4)
        taken = inbox.hold(self._most)
        self._taken_at, self._was_full = now, bool(taken)
        return taken

    def hold_own(self, inbox: Inbox) -> list[Item]:
        """The next, of what the bot's own thread has put there after it had found nothing."""
        taken = inbox.hold_own(self._most)
        self._taken_at, self._was_full = monotonic(), bool(taken)
        return taken


def conflated(items: list[Item]) -> tuple[list[Item], int]:
    """The newest price and quote of each symbol, the newest of the rest; how many were left out.

    What stands for itself (bars, halts, corrections, news, books) is bounded, too, and a gap then
    says how much of it is missing: nothing newer makes up for it.
    """
    newest: dict[tuple[type, str], PriceUpdate | QuoteUpdate] = {}
    skipped: dict[tuple[type, str], int] = {}
    gaps: list[Item] = []
    others: list[MarketData] = []
    for item in items:
        if isinstance(item, Gap | OrderUpdate):
            gaps.append(item)
        elif isinstance(item, PriceUpdate | QuoteUpdate) and not is_recovered(item):
            key = (type(item), item.symbol)
            # Taken out first, so that the order is that of the newest.
            if (older := newest.pop(key, None)) is not None:
                skipped[key] = skipped.get(key, 0) + older.skipped + 1
            newest[key] = item
        else:
            others.append(item)
    if lost := others[:-MOST_OTHERS]:
        names = tuple(sorted({update.symbol for update in lost}))
        gaps.append(Gap(reason="slow", symbols=names, missed=len(lost)))
    kept = [*gaps[-MOST_GAPS:], *others[-MOST_OTHERS:]]
    for key, update in newest.items():
        # A copy, for the same object may wait in another consumer's queue.
        left_out = skipped.get(key, 0)
        kept.append(replace(update, skipped=update.skipped + left_out) if left_out else update)
    return kept, len(items) - len(kept) + bool(lost)


def is_recovered(update: PriceUpdate | QuoteUpdate) -> bool:
    """Whether it is one of a past that is told after a gap: none replaces another."""
    return isinstance(update, PriceUpdate) and update.source == "backfill"


def _nobody() -> None:
    """Nobody waits."""
