"""What one channel's numbers say was missed, and whether the broker's heart beats.

Owns the last `seq` of each market-data channel and the last heartbeat. Pure: time is an argument.
Invariant: a number is accounted for once, as heard or as missed; a duplicate is neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from alpaca_broker.client.updates import PriceUpdate, Reason, Status
from alpaca_broker.core.feeds import Family, family_of_feed

HEARTBEAT_WITHIN_S = 3.0
SNAPSHOT_WITHIN_S = 1.0  # `price:last` is at most this far behind what is published
IGNORED = -1
_UNKNOWN = -1


class Numbered(Protocol):
    """Whatever has a number: a price, or another kind of market data."""

    seq: int
    epoch: int


class Track:
    """One channel: which number is next, and whether what is known may be out of date."""

    __slots__ = (
        *("cause", "epoch", "heard", "in_doubt", "last", "listens_since", "next", "seq", "sinks"),
        "symbol",
    )

    def __init__(self, symbol: str, epoch: int) -> None:
        self.symbol, self.epoch = symbol, epoch
        self.seq = _UNKNOWN  # the last number that is accounted for, while `next` is unknown
        self.next = _UNKNOWN  # the number that follows; the hot path compares with it alone
        self.in_doubt = False
        self.heard = False  # a price, in this epoch
        self.cause: Reason | None = None  # of the doubt
        self.last: PriceUpdate | None = None
        self.listens_since: float | None = None  # that is, no later than then
        self.sinks: tuple[Callable[[PriceUpdate], None], ...] = ()

    @property
    def known(self) -> int:
        """The last number that is accounted for, or -1."""
        return self.seq if self.next == _UNKNOWN else self.next - 1

    def doubt(self, cause: Reason) -> None:
        """Something may have been missed: nothing is sure until the next number is seen."""
        self.seq, self.next = self.known, _UNKNOWN
        self.in_doubt = True
        self.cause = self.cause or cause

    def begin(self, epoch: int) -> None:
        """The epoch is known now, or is a new one, in which numbers start at 1."""
        if self.epoch:
            self.seq, self.next = 0, _UNKNOWN
        self.epoch = epoch
        self.heard = False

    def judge(self, update: Numbered) -> int:
        """How many were missed before this one, or IGNORED for an old or a second one."""
        if update.seq <= 0:
            self._settle()  # it has no number; all the same it is the newest price
            self.heard = True
            return 0
        if update.epoch < self.epoch:
            return IGNORED
        if update.epoch > self.epoch:
            self.begin(update.epoch)
        known = self.known
        if known != _UNKNOWN and update.seq <= known:
            return IGNORED
        self.next = update.seq + 1
        self.heard, self.in_doubt = True, False
        return 0 if known == _UNKNOWN else update.seq - known - 1

    def compare(self, last: PriceUpdate | None, read_at: float) -> tuple[int, bool]:
        """What `price:last` showed at `read_at`: how many were missed, and whether to hand it on.

        To be called once everything that was published before it was read has been heard.
        """
        if last is None or last.epoch < self.epoch:
            return 0, False
        if last.epoch > self.epoch:
            self.begin(last.epoch)
        known = self.known
        is_newer = self.last is None or last.timestamp > self.last.timestamp
        if known == _UNKNOWN:
            since = read_at if self.listens_since is None else self.listens_since
            # Before, it may lack what was published before we listened: not ours to miss.
            if read_at - since > SNAPSHOT_WITHIN_S:
                self.next = last.seq + 1
            doubted = self._settle()
            return 0, doubted and is_newer
        if last.seq < known:
            return 0, False  # the snapshot is up to a second late: ask again
        self.next = last.seq + 1
        doubted = self._settle()
        if last.seq > known:
            return last.seq - known, True
        return 0, doubted and is_newer and last.source == "snapshot"

    def why(self) -> Reason:
        """The reason for what was missed; asked once."""
        cause, self.cause = self.cause, None
        return cause or "broker gap"

    def _settle(self) -> bool:
        doubted, self.in_doubt = self.in_doubt, False
        return doubted


class Health:
    """The last heartbeat, and when it was heard."""

    def __init__(self) -> None:
        self.status: Status | None = None
        self._heard_at: float | None = None
        self._told = False

    def beat(self, status: Status, now: float) -> bool:
        """A heartbeat; whether it ends a silence that was told."""
        self.status, self._heard_at = status, now
        told, self._told = self._told, False
        return told

    def beats(self, now: float) -> bool:
        """Whether a heartbeat was heard within three seconds."""
        return self._heard_at is not None and now - self._heard_at <= HEARTBEAT_WITHIN_S

    def falls_silent(self, now: float) -> bool:
        """Whether it has just become too long ago: true once for each silence."""
        if self._heard_at is None or self._told or self.beats(now):
            return False
        self._told = True
        return True

    def feed_is_live(self, wanted: Family) -> bool:
        """Whether the last heartbeat calls the feed of this family live.

        Where it names none: whether all that it names are.
        """
        if self.status is None or self.status.state == "down":
            return False
        feeds = self.status.feeds
        if mine := [f for name, f in feeds.items() if family_of_feed(name) == wanted]:
            return all(feed.state == "live" for feed in mine)
        return bool(feeds) and all(f.state in ("live", "idle") for f in feeds.values())

    def state(self, now: float) -> str:
        """`live`, `degraded` or `down` as the broker says, else `stale`, or `unknown` at first."""
        if self.status is None:
            return "unknown"
        return self.status.state if self.beats(now) else "stale"
