"""What was missed in a gap, told apart from what was published on either side of it.

Owns the two edges of a gap: the last things that were published before it and the first ones after
it, of the symbols whose bots asked for `backfill`. REST answers with what happened; what is neither
on one edge nor beyond it was missed. So nothing is published twice, and nothing in between is left
out; gaps close together remember what was recovered of each other. Pure: times are epoch seconds,
arguments.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Protocol, TypeVar

from alpaca_broker.core.market_hours import DELAYS_S, NO_DELAY

EDGE = 128  # things remembered on each side, for each symbol
LATENESS_OF = 8  # trades that tell how late a feed is
MARGIN_S = 2.0  # what happened so long before a cut may still have been on its way
MINUTE_S = 60.0
NO_LONGER_VALID = frozenset({"canceled", "incorrect"})


class Trade(Protocol):
    """A trade as stream and REST show it."""

    p: float
    t: datetime

    @property
    def i(self) -> int | None:
        """Its id, where the feed has ids."""

    @property
    def s(self) -> int | float | None:
        """Its size."""


class Bar(Protocol):
    """A minute bar as stream and REST show it; `t` is its beginning."""

    t: datetime


H = TypeVar("H")
Key = tuple[float, int | None, float, int | float | None]


def key_of(trade: Trade) -> Key:
    """What makes a trade the same, seen by stream and by REST; first of all its time."""
    return (trade.t.timestamp(), trade.i, trade.p, trade.s)


def bar_key(bar: Bar) -> Key:
    """The same for a minute bar, which is told when its minute is over."""
    return (bar.t.timestamp() + MINUTE_S, None, 0.0, None)


class Seam:
    """The two edges of one gap. Times of a gap are ours; those of trades are the exchange's."""

    def __init__(
        self,
        before: dict[str, deque[Key]],
        followed_since: dict[str, float],
        recovered: Mapping[str, Collection[Key]],
    ) -> None:
        self._before = {symbol: tuple(keys) for symbol, keys in before.items()}
        self._since = followed_since
        self._recovered = recovered  # of the gaps before this one, until it is this one's turn
        self._after: dict[str, list[Key]] = {}

    def note(self, symbol: str, key: Key) -> None:
        """Something was published live after the gap began."""
        after = self._after.setdefault(symbol, [])
        if len(after) < EDGE:
            after.append(key)

    def starts_at(self, symbol: str, began: float, ahead_s: float = 0.0) -> float:
        """From when on REST's word counts, in a gap that began then; the exchange's time.

        `ahead_s` is what to add to our time for the exchange's.
        """
        before = self._before.get(symbol)
        if before is None:  # nothing is known of the edge: a broker before us had it
            return began + ahead_s
        start = max(began - MARGIN_S, self._since.get(symbol, began)) + ahead_s
        if len(before) == EDGE:
            start = max(start, before[0][0])
        recovered = self._recovered.get(symbol, ())
        if len(recovered) == EDGE:  # what was recovered of before that is not known any more
            start = max(start, min(key[0] for key in recovered))
        return start

    def ends_at(self, symbol: str, ended: float, ahead_s: float = 0.0) -> float:
        """Until when REST's word counts, in a gap that ended then; the exchange's time."""
        after = self._after.get(symbol, ())
        end = ended + MARGIN_S + ahead_s
        return min(end, max(key[0] for key in after)) if len(after) == EDGE else end

    def missed(
        self,
        symbol: str,
        found: Iterable[tuple[Key, H]],
        span: tuple[float, float],
        most: int,
        *,
        ahead_s: float = 0.0,
    ) -> tuple[list[H], bool]:
        """What was missed, oldest first, and whether older ones were cut off at `most`.

        What has no id may have happened twice in the same way (prints of an option), and is then
        missed as often as it is not known.
        """
        began, ended = span
        after = self._after.get(symbol, [])
        start = self.starts_at(symbol, began, ahead_s)
        end = self.ends_at(symbol, ended, ahead_s)
        known = Counter((*self._before.get(symbol, ()), *after, *self._recovered.get(symbol, ())))
        missed: list[tuple[Key, H]] = []
        for key, one in found:
            if not start <= key[0] <= end:
                continue
            has_id = key[1] is not None
            if known[key]:
                known[key] -= not has_id
                continue
            known[key] += has_id  # REST may show it twice
            missed.append((key, one))
        missed.sort(key=lambda pair: (pair[0][0], pair[0][1] or 0))
        return [one for _, one in missed[-most:]], len(missed) > most


class Edges:
    """Remembers the last of what is published, and hands out a seam when a gap begins."""

    def __init__(self) -> None:
        self.recent: dict[str, deque[Key]] = {}  # the hot path asks before it notes
        self._since: dict[str, float] = {}
        self._recovered: dict[str, deque[Key]] = {}  # lately, oldest first; seams look into it
        self._open: list[Seam] = []

    def follow(self, symbols: Collection[str], now: float) -> None:
        """Replace the symbols whose edges count; of a new one they begin now."""
        self.recent = {s: self.recent.get(s) or deque(maxlen=EDGE) for s in symbols}
        self._since = {s: self._since.get(s, now) for s in symbols}
        for symbol in self._recovered.keys() - self._since.keys():
            del self._recovered[symbol]

    def note(self, symbol: str, key: Key) -> None:
        """One thing was published live."""
        recent = self.recent.get(symbol)
        if recent is None:
            return
        recent.append(key)
        for seam in self._open:
            seam.note(symbol, key)

    def recovered(self, symbol: str, keys: Iterable[Key]) -> None:
        """These were published after a gap, oldest first: no later gap shall bring them again."""
        if symbol in self._since:
            self._recovered.setdefault(symbol, deque(maxlen=EDGE)).extend(keys)

    def cut(self, *, ours: bool = True) -> Seam:
        """A gap begins: its seam, which hears what is published until it is closed.

        Not `ours` is one that another broker left: what it published last is not known.
        """
        known = (self.recent, dict(self._since)) if ours else ({}, {})
        seam = Seam(*known, self._recovered)
        self._open.append(seam)
        return seam

    def close(self, seam: Seam) -> None:
        """What was missed is known, or will never be."""
        if seam in self._open:
            self._open.remove(seam)


class Lateness:
    """How late a feed is: stated, or, where that is not known, seen of the last trades it brought.

    The least of them counts: a trade may have been reported late by itself.
    """

    def __init__(self, feed: str) -> None:
        self._least, self._most = DELAYS_S.get(feed, NO_DELAY)
        self._seen: deque[float] = deque(maxlen=LATENESS_OF)
        self.is_to_be_seen = self._least < self._most

    def seen(self, late_s: float) -> None:
        """So long after it had traded a trade came."""
        self._seen.append(late_s)

    @property
    def delay_s(self) -> float | None:
        """None where it is not known yet."""
        if not self.is_to_be_seen:
            return self._least
        return min(max(min(self._seen), self._least), self._most) if self._seen else None


def still_valid(update: str | None) -> bool:
    """Whether a trade that REST shows with this `u` was not taken back since."""
    return update not in NO_LONGER_VALID


def history(feed: str, kind: str) -> str | None:
    """Where Alpaca's REST has the history of a feed (`trades` or `bars`), up to the parameters.

    None where it has none.
    """
    if feed.startswith("crypto"):
        return f"/v1beta3/crypto/{feed[len('crypto/') :]}/{kind}?"
    if feed in ("indicative", "opra"):
        return f"/v1beta1/options/{kind}?"
    historical = {"iex": "iex", "sip": "sip", "delayed_sip": "sip", "boats": "boats"}.get(feed)
    return None if historical is None else f"/v2/stocks/{kind}?feed={historical}&"
