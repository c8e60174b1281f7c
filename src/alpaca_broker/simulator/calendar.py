"""The pretend market's opening hours: every weekday, 09:30 to 16:00 in New York.

Owns the clock and calendar answers. Invariant: pure, time is an argument. It knows no holidays
and no short days, which real trading calendars have.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
_OPEN, _CLOSE = time(9, 30), time(16, 0)
_MOST_DAYS = 366 * 60


def clock(now_ns: int, *, is_open: bool) -> dict[str, Any]:
    """What GET /v2/clock says [OAS]: New York times with offset."""
    now = datetime.fromtimestamp(now_ns / 10**9, UTC).astimezone(NEW_YORK)
    return {
        "timestamp": now.isoformat(),
        "is_open": is_open,
        "next_open": _next(now, _OPEN).isoformat(),
        "next_close": _next(now, _CLOSE).isoformat(),
    }


def days(start: str | None, end: str | None, now_ns: int) -> list[dict[str, str]]:
    """What GET /v2/calendar says [OAS]; this year by default. Raises `ValueError`."""
    this_year = datetime.fromtimestamp(now_ns / 10**9, UTC).year
    day = date.fromisoformat(start[:10]) if start else date(this_year, 1, 1)
    last = date.fromisoformat(end[:10]) if end else date(this_year, 12, 31)
    if (last - day).days > _MOST_DAYS:
        raise ValueError(f"more than {_MOST_DAYS} days")
    found = []
    while day <= last:
        if day.weekday() < 5:
            found.append(
                {
                    "date": day.isoformat(),
                    "open": "09:30",
                    "close": "16:00",
                    "session_open": "0400",
                    "session_close": "2000",
                    "settlement_date": _weekday_after(day).isoformat(),
                }
            )
        day += timedelta(days=1)
    return found


def _next(now: datetime, at: time) -> datetime:
    day = now.date()
    if now.time() >= at:
        day += timedelta(days=1)
    while day.weekday() >= 5:
        day += timedelta(days=1)
    return datetime.combine(day, at, NEW_YORK)


def _weekday_after(day: date) -> date:
    day += timedelta(days=1)
    while day.weekday() >= 5:
        day += timedelta(days=1)
    return day
