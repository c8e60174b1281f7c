"""When a feed may be expected to speak: market phases in New York time.

Owns the reading of Alpaca's clock and calendar answers, and the question "which phase is it for
this feed?". Ignorance is a phase of its own (`UNKNOWN`): nobody may take it for an open market, nor
for a closed one. Times are epoch seconds as Alpaca's clock tells them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from alpaca_broker.core.market_data import Instant

try:
    NEW_YORK: ZoneInfo | None = ZoneInfo("America/New_York")
except ZoneInfoNotFoundError:  # a machine without time zones: every stock phase is unknown
    NEW_YORK = None

NIGHTLY = frozenset({"boats", "overnight"})  # 20:00 to 04:00, Sunday to Thursday nights
UNTIMED = frozenset({"news"})  # no hour in which an article is due
NIGHT_BEGINS, NIGHT_ENDS = time(20, 0), time(4, 0)
OPTIONS = frozenset({"indicative", "opra"})  # regular hours only

# How late a feed is, at the least and at the most. That `overnight` is late is hearsay, and of
# `indicative` Alpaca does not say how much it is: they count as open only where they would be with
# and without the delay.
DELAYS_S = {
    **{"delayed_sip": (900.0, 900.0), "overnight": (0.0, 900.0)},
    **{"indicative": (0.0, 900.0)},
}
NO_DELAY = (0.0, 0.0)


class Phase(Enum):
    """What a feed may be expected to do."""

    REGULAR = "the regular session"
    ALWAYS = "a market that never closes"
    EXTENDED = "extended hours"
    CLOSED = "closed"
    UNKNOWN = "unknown hours"


class Clock(Struct, frozen=True):
    """`GET /v2/clock`."""

    timestamp: Instant
    is_open: bool
    next_open: Instant
    next_close: Instant


class CalendarDay(Struct, frozen=True):
    """One trading day of `GET /v2/calendar`: `HH:MM`, and `HHMM` for the extended session."""

    date: str
    open: str
    close: str
    session_open: str = "0400"
    session_close: str = "2000"


class Hours(Struct, frozen=True):
    """One trading day, in New York wall time."""

    pre: time
    open: time
    close: time
    after: time


class Calendar(Struct, frozen=True):
    """The trading days from `first` to `last`; a day within that is not listed is none."""

    first: date
    last: date
    days: Mapping[date, Hours]

    def covers(self, day: date) -> bool:
        """Whether the calendar says anything about this day."""
        return self.first <= day <= self.last


def read_calendar(rows: Iterable[CalendarDay], first: date, last: date) -> Calendar:
    """Alpaca's answer about the days from `first` to `last`.

    Raises:
        ValueError: a row that is no trading day.
    """
    days = {}
    for row in rows:
        pre, begin, end, after = map(
            _wall_time, (row.session_open, row.open, row.close, row.session_close)
        )
        if not pre <= begin < end <= after:
            raise ValueError(f"{row.date}: {row.open} to {row.close} are no hours")
        days[date.fromisoformat(row.date)] = Hours(pre, begin, end, after)
    return Calendar(first, last, days)


def phase(feed: str, at: float, calendar: Calendar | None, clock: Clock | None = None) -> Phase:
    """The phase of a feed at a moment; of two possible ones the quieter."""
    if feed == "test" or feed.startswith("crypto"):
        return Phase.ALWAYS
    if feed in UNTIMED:
        return Phase.CLOSED
    early, late = (
        _phase_of(feed, at - delay, calendar, clock) for delay in DELAYS_S.get(feed, NO_DELAY)
    )
    return max(early, late, key=_QUIETER.index)


_QUIETER = [Phase.REGULAR, Phase.ALWAYS, Phase.EXTENDED, Phase.UNKNOWN, Phase.CLOSED]


def _phase_of(feed: str, at: float, calendar: Calendar | None, clock: Clock | None) -> Phase:
    if NEW_YORK is None:
        return Phase.UNKNOWN
    now = datetime.fromtimestamp(at, NEW_YORK)
    if feed in NIGHTLY:
        return _night(now, calendar)
    found = _by_calendar(now, calendar)
    said = _by_clock(at, clock)
    if said is True:
        found = Phase.REGULAR
    elif said is False and found in (Phase.REGULAR, Phase.UNKNOWN):
        # Closed against the calendar: an unforeseen closure. Without one: not the regular session.
        found = Phase.CLOSED if found is Phase.REGULAR else Phase.UNKNOWN
    if feed in OPTIONS and found is Phase.EXTENDED:
        return Phase.CLOSED
    return found


def _by_clock(at: float, clock: Clock | None) -> bool | None:
    """Whether the market is open, as far as the clock's word reaches: to the next change."""
    if clock is None:
        return None
    change = clock.next_close if clock.is_open else clock.next_open
    if not clock.timestamp.timestamp() <= at < change.timestamp():
        return None
    return clock.is_open


def _by_calendar(now: datetime, calendar: Calendar | None) -> Phase:
    if calendar is None or not calendar.covers(now.date()):
        return Phase.UNKNOWN
    hours = calendar.days.get(now.date())
    at = now.time()
    if hours is None or not hours.pre <= at < hours.after:
        return Phase.CLOSED
    return Phase.REGULAR if hours.open <= at < hours.close else Phase.EXTENDED


def _night(now: datetime, calendar: Calendar | None) -> Phase:
    """A night belongs to the trading day in whose morning it ends: Friday's has none."""
    if NIGHT_ENDS <= now.time() < NIGHT_BEGINS:
        return Phase.CLOSED
    morning = now.date() + timedelta(days=now.time() >= NIGHT_BEGINS)
    if morning.weekday() >= 5:
        return Phase.CLOSED
    if calendar is None or not calendar.covers(morning):
        return Phase.UNKNOWN
    # The venue is quiet at times although it is open: what it does is never taken for granted.
    return Phase.EXTENDED if morning in calendar.days else Phase.CLOSED


def _wall_time(text: str) -> time:
    """`09:30` or `0930`.

    Raises:
        ValueError: it is neither.
    """
    return datetime.strptime(text.replace(":", ""), "%H%M").time()
