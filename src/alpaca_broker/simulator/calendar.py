"""The US stock market's days: holidays, early closes, and the hours of each session.

Owns the rules and the answers of the clock and the calendar. Invariant: pure, time is an argument;
hours are New York's, whatever its offset is that day.
"""

import enum
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
_MOST_DAYS = 366 * 60
_SATURDAY, _SUNDAY = 5, 6
_MONDAY, _THURSDAY = 0, 3
_MOURNING = frozenset({date(2018, 12, 5), date(2025, 1, 9)})
_DAY = timedelta(days=1)


class Phase(enum.Enum):
    """What the market does at a moment."""

    CLOSED = "closed"
    PRE_MARKET = "pre-market"
    REGULAR = "regular"
    AFTER_HOURS = "after-hours"


class Hours(NamedTuple):
    """One trading day's hours in New York."""

    first: time
    open: time
    close: time
    last: time


_FULL = Hours(time(4), time(9, 30), time(16), time(20))
_HALF = Hours(time(4), time(9, 30), time(13), time(17))


def hours(day: date) -> Hours | None:
    """When the market trades on a day; None on weekends and holidays."""
    if day.weekday() >= _SATURDAY or day in holidays(day.year):
        return None
    return _HALF if day in early_closes(day.year) else _FULL


@lru_cache(maxsize=256)
def holidays(year: int) -> frozenset[date]:
    """The days of a year on which the exchanges stay closed, though no weekend."""
    thanksgiving = _nth(year, 11, _THURSDAY, 4)
    days = {
        _nth(year, 1, _MONDAY, 3),  # Martin Luther King
        _nth(year, 2, _MONDAY, 3),  # Washington
        _easter(year) - timedelta(days=2),
        _nth(year, 6, _MONDAY, 1) - timedelta(days=7),  # Memorial Day, the last Monday of May
        _observed(date(year, 7, 4)),
        _nth(year, 9, _MONDAY, 1),  # Labor Day
        thanksgiving,
        _observed(date(year, 12, 25)),
    }
    if year >= 2022:
        days.add(_observed(date(year, 6, 19)))
    if (new_year := date(year, 1, 1)).weekday() != _SATURDAY:  # else not observed at all
        days.add(_observed(new_year))
    return frozenset(days) | {day for day in _MOURNING if day.year == year}


@lru_cache(maxsize=256)
def early_closes(year: int) -> frozenset[date]:
    """The days of a year on which the exchanges close at 13:00."""
    eves = (date(year, 7, 3), date(year, 12, 24), _nth(year, 11, _THURSDAY, 4) + _DAY)
    return frozenset(day for day in eves if day.weekday() < _SATURDAY and day not in holidays(year))


def phase(now_ns: int) -> Phase:
    """What the market does now."""
    now = _new_york(now_ns)
    at, today = now.time(), hours(now.date())
    if today is None or not today.first <= at < today.last:
        return Phase.CLOSED
    if at < today.open:
        return Phase.PRE_MARKET
    return Phase.REGULAR if at < today.close else Phase.AFTER_HOURS


def clock(now_ns: int, *, is_open: bool) -> dict[str, Any]:
    """What GET /v2/clock says [OAS]: New York times with offset."""
    now = _new_york(now_ns)
    return {
        "timestamp": now.isoformat(),
        "is_open": is_open,
        "next_open": _next(now, "open").isoformat(),
        "next_close": _next(now, "close").isoformat(),
    }


def days(start: str | None, end: str | None, now_ns: int) -> list[dict[str, str]]:
    """What GET /v2/calendar says [OAS]; this year by default. Raises `ValueError`."""
    this_year = _new_york(now_ns).year
    day = date.fromisoformat(start[:10]) if start else date(this_year, 1, 1)
    last = date.fromisoformat(end[:10]) if end else date(this_year, 12, 31)
    if (last - day).days > _MOST_DAYS:
        raise ValueError(f"more than {_MOST_DAYS} days")
    found = []
    while day <= last:
        if today := hours(day):
            found.append(
                {
                    "date": day.isoformat(),
                    "open": f"{today.open:%H:%M}",
                    "close": f"{today.close:%H:%M}",
                    "session_open": f"{today.first:%H%M}",
                    "session_close": f"{today.last:%H%M}",
                    "settlement_date": _trading_day(day + _DAY).isoformat(),
                }
            )
        day += _DAY
    return found


def _next(now: datetime, which: str) -> datetime:
    day = now.date()
    today = hours(day)
    if today is None or now.time() >= getattr(today, which):
        day += _DAY
    day = _trading_day(day)
    return datetime.combine(day, getattr(hours(day), which), NEW_YORK)


def _trading_day(day: date) -> date:
    while hours(day) is None:
        day += _DAY
    return day


def _new_york(now_ns: int) -> datetime:
    # Whole microseconds: a float of seconds would be off by some.
    moment = datetime.fromtimestamp(now_ns // 10**9, UTC)
    return moment.replace(microsecond=now_ns % 10**9 // 1000).astimezone(NEW_YORK)


def _observed(day: date) -> date:
    return day + {_SATURDAY: -_DAY, _SUNDAY: _DAY}.get(day.weekday(), timedelta(0))


def _nth(year: int, month: int, weekday: int, number: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (number - 1))


def _easter(year: int) -> date:
    """Easter Sunday by the anonymous Gregorian algorithm."""
    golden, century, rest = year % 19, year // 100, year % 100
    moon = (19 * golden + century - century // 4 - (8 * century + 13) // 25 + 15) % 30
    week = (32 + 2 * (century % 4) + 2 * (rest // 4) - moon - rest % 4) % 7
    shift = (golden + 11 * moon + 22 * week) // 451
    month, day = divmod(moon + week - 7 * shift + 114, 31)
    return date(year, month, day + 1)
