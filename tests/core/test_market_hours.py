"""Which phase a feed is in: sessions, half days, holidays, nights, summer time, and ignorance."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from alpaca_broker.core.market_hours import (
    NEW_YORK,
    Calendar,
    CalendarDay,
    Clock,
    Phase,
    phase,
    read_calendar,
)


def calendar() -> Calendar:
    """November 2026: Thanksgiving on the 26th, a half day on the 27th."""
    rows = []
    for number in range(1, 31):
        day = date(2026, 11, number)
        if day.weekday() < 5 and number != 26:
            close = "13:00" if number == 27 else "16:00"
            end = "1700" if number == 27 else "2000"
            rows.append(CalendarDay(day.isoformat(), "09:30", close, "0400", end))
    return read_calendar(rows, date(2026, 11, 1), date(2026, 11, 30))


def new_york(day: int, hour: int, minute: int = 0, second: int = 0, month: int = 11) -> float:
    """A moment of autumn 2026 by New York's clocks."""
    return datetime(2026, month, day, hour, minute, second, tzinfo=NEW_YORK).timestamp()


@pytest.mark.parametrize(
    ("feed", "at", "expected"),
    [
        # Monday, the 23rd.
        ("iex", new_york(23, 3), Phase.CLOSED),
        ("iex", new_york(23, 4), Phase.EXTENDED),
        ("iex", new_york(23, 9, 29, 59), Phase.EXTENDED),
        ("iex", new_york(23, 9, 30), Phase.REGULAR),
        ("sip", new_york(23, 15, 59, 59), Phase.REGULAR),
        ("sip", new_york(23, 16), Phase.EXTENDED),
        ("sip", new_york(23, 20), Phase.CLOSED),
        # A quarter of an hour late.
        ("delayed_sip", new_york(23, 9, 44), Phase.EXTENDED),
        ("delayed_sip", new_york(23, 9, 45), Phase.REGULAR),
        ("delayed_sip", new_york(23, 16, 14), Phase.REGULAR),
        # Thanksgiving, and the half day after it.
        ("iex", new_york(26, 11), Phase.CLOSED),
        ("iex", new_york(27, 12, 59), Phase.REGULAR),
        ("iex", new_york(27, 13), Phase.EXTENDED),
        ("iex", new_york(27, 17), Phase.CLOSED),
        # A weekend.
        ("iex", new_york(22, 11), Phase.CLOSED),
        # Options have the regular session only.
        ("opra", new_york(23, 9), Phase.CLOSED),
        ("opra", new_york(23, 10), Phase.REGULAR),
        # Nights: Sunday to Thursday, and none before a holiday.
        ("boats", new_york(22, 19, 59), Phase.CLOSED),
        ("boats", new_york(22, 20), Phase.EXTENDED),
        ("boats", new_york(23, 3, 59), Phase.EXTENDED),
        ("boats", new_york(23, 4), Phase.CLOSED),
        ("boats", new_york(23, 11), Phase.CLOSED),
        ("boats", new_york(25, 21), Phase.CLOSED),
        ("boats", new_york(26, 3), Phase.CLOSED),
        ("boats", new_york(26, 21), Phase.EXTENDED),
        ("boats", new_york(20, 21), Phase.CLOSED),
        # It may be late, or may not: open only where both agree.
        ("overnight", new_york(22, 20, 14), Phase.CLOSED),
        ("overnight", new_york(22, 20, 15), Phase.EXTENDED),
        ("overnight", new_york(23, 4, 1), Phase.CLOSED),
        # Never closed; never due.
        ("crypto/us", new_york(22, 3), Phase.ALWAYS),
        ("test", new_york(22, 3), Phase.ALWAYS),
        ("news", new_york(23, 11), Phase.CLOSED),
    ],
)
def test_the_calendar_says_when_a_feed_speaks(feed: str, at: float, expected: Phase) -> None:
    """Wall time in New York, by the rows that Alpaca gave."""
    assert phase(feed, at, calendar()) is expected


def test_summer_time_moves_the_session_in_utc() -> None:
    """13:30 UTC is the open in October, an hour before it in November."""
    rows = [CalendarDay(f"2026-10-{d}", "09:30", "16:00") for d in (29, 30)]
    october = read_calendar(rows, date(2026, 10, 29), date(2026, 10, 31))
    at = datetime(2026, 10, 30, 13, 30, tzinfo=UTC).timestamp()
    assert phase("iex", at, october) is Phase.REGULAR
    at = datetime(2026, 11, 2, 13, 30, tzinfo=UTC).timestamp()
    assert phase("iex", at, calendar()) is Phase.EXTENDED


@pytest.mark.parametrize("feed", ["iex", "opra", "boats", "delayed_sip"])
def test_a_day_that_the_calendar_does_not_cover_is_unknown(feed: str) -> None:
    """Neither open nor closed: a calendar that ended yesterday says nothing of today."""
    at = new_york(1, 22, month=12) if feed == "boats" else new_york(1, 11, month=12)
    assert phase(feed, at, calendar()) is Phase.UNKNOWN
    assert phase(feed, at, None) is Phase.UNKNOWN


def clock(at: float, *, is_open: bool, opens_in_h: float, closes_in_h: float) -> Clock:
    """A clock answer given at a moment."""
    now = datetime.fromtimestamp(at, UTC)
    return Clock(
        now, is_open, now + timedelta(hours=opens_in_h), now + timedelta(hours=closes_in_h)
    )


def test_the_clock_knows_what_the_calendar_does_not() -> None:
    """Open without a calendar; and no further than to its next change."""
    at = new_york(1, 11, month=12)
    said = clock(at, is_open=True, opens_in_h=22, closes_in_h=5)
    assert phase("iex", at + 3600, None, said) is Phase.REGULAR
    assert phase("iex", at + 5 * 3600, None, said) is Phase.UNKNOWN
    assert phase("iex", at - 1, None, said) is Phase.UNKNOWN


def test_an_unforeseen_closure_is_closed() -> None:
    """The clock says closed while the calendar says open: nothing is due."""
    at = new_york(23, 11)
    said = clock(at, is_open=False, opens_in_h=22.5, closes_in_h=29)
    assert phase("iex", at, calendar(), said) is Phase.CLOSED
    # It does not make a closed night of what the calendar calls extended hours …
    early = clock(new_york(23, 4), is_open=False, opens_in_h=5.5, closes_in_h=12)
    assert phase("iex", new_york(23, 5), calendar(), early) is Phase.EXTENDED
    # … and alone it cannot tell extended hours from the night.
    assert phase("iex", new_york(23, 5), None, early) is Phase.UNKNOWN


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (CalendarDay("2026-11-23", "09:30", "09:30"), "are no hours"),
        (CalendarDay("2026-11-23", "16:00", "09:30"), "are no hours"),
        (CalendarDay("2026-11-23", "25:00", "26:00"), "unconverted data"),
        (CalendarDay("2026-11-23", "", "16:00"), "does not match"),
        (CalendarDay("someday", "09:30", "16:00"), "isoformat"),
    ],
)
def test_a_calendar_that_makes_no_sense_is_refused(row: CalendarDay, why: str) -> None:
    """As a whole: half a calendar would call the other half holidays."""
    with pytest.raises(ValueError, match=why):
        read_calendar([row], date(2026, 11, 1), date(2026, 11, 30))
