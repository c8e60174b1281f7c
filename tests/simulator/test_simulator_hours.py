"""Pretended times: the market's calendar, and a simulator that can be at any hour."""

from datetime import UTC, date, datetime

import pytest
from simulator_clients import Start, eventually, market, rest_of

from alpaca_broker.simulator import SimulatorOptions
from alpaca_broker.simulator.calendar import NEW_YORK, Phase, clock, days, early_closes, phase
from alpaca_broker.simulator.calendar import holidays as closed_in
from alpaca_broker.simulator.trading_hours import TradingHours

HOLIDAYS = {
    2024: "01-01 01-15 02-19 03-29 05-27 06-19 07-04 09-02 11-28 12-25",
    2025: "01-01 01-09 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25",
    2026: "01-01 01-19 02-16 04-03 05-25 06-19 07-03 09-07 11-26 12-25",
    2027: "01-01 01-18 02-15 03-26 05-31 06-18 07-05 09-06 11-25 12-24",
    2028: "01-17 02-21 04-14 05-29 06-19 07-04 09-04 11-23 12-25",
}
EARLY = {2024: "07-03 11-29 12-24", 2025: "07-03 11-28 12-24", 2026: "11-27 12-24"}
EARLY |= {2027: "11-26", 2028: "07-03 11-24"}


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).timestamp()) * 10**9


@pytest.mark.parametrize("year", HOLIDAYS)
def test_holidays_and_early_closes(year: int) -> None:
    """As the exchanges published them."""
    expected = [date.fromisoformat(f"{year}-{day}") for day in HOLIDAYS[year].split()]
    assert sorted(closed_in(year)) == expected
    expected = [date.fromisoformat(f"{year}-{day}") for day in EARLY[year].split()]
    assert sorted(early_closes(year)) == expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-11-25T03:00", Phase.CLOSED),
        ("2026-11-25T04:00", Phase.PRE_MARKET),
        ("2026-11-25T09:29:59", Phase.PRE_MARKET),
        ("2026-11-25T09:30", Phase.REGULAR),
        ("2026-11-25T15:59:59", Phase.REGULAR),
        ("2026-11-25T16:00", Phase.AFTER_HOURS),
        ("2026-11-25T20:00", Phase.CLOSED),
        ("2026-11-26T12:00", Phase.CLOSED),  # Thanksgiving
        ("2026-11-27T12:59:59", Phase.REGULAR),  # a half day
        ("2026-11-27T13:00", Phase.AFTER_HOURS),
        ("2026-11-27T17:00", Phase.CLOSED),
        ("2026-11-28T12:00", Phase.CLOSED),  # Saturday
        ("2026-07-01T09:30", Phase.REGULAR),  # daylight saving time
    ],
)
def test_phases(moment: str, expected: Phase) -> None:
    """What the market does at a moment in New York."""
    assert phase(ns(moment)) is expected


@pytest.mark.parametrize(
    ("moment", "next_open", "next_close"),
    [
        ("2026-11-25T03:00", "2026-11-25T09:30:00-05:00", "2026-11-25T16:00:00-05:00"),
        ("2026-11-25T12:00", "2026-11-27T09:30:00-05:00", "2026-11-25T16:00:00-05:00"),
        ("2026-11-26T12:00", "2026-11-27T09:30:00-05:00", "2026-11-27T13:00:00-05:00"),
        ("2026-11-27T13:00", "2026-11-30T09:30:00-05:00", "2026-11-30T16:00:00-05:00"),
        ("2026-03-06T17:00", "2026-03-09T09:30:00-04:00", "2026-03-09T16:00:00-04:00"),
    ],
)
def test_the_clock_knows_the_next_session(moment: str, next_open: str, next_close: str) -> None:
    """Over holidays, half days and the change to daylight saving time."""
    said = clock(ns(moment) + 123_456_789, is_open=False)
    assert (said["next_open"], said["next_close"]) == (next_open, next_close)
    assert said["timestamp"][:16] == moment
    assert said["timestamp"][19:26] == ".123456"


def test_the_calendar_shows_half_days_and_skips_holidays() -> None:
    """With the hours before and after the session, and the day of settlement."""
    found = days("2026-11-25", "2026-11-30", 0)
    assert [day["date"][8:] for day in found] == ["25", "27", "30"]
    assert found[0] == {
        **{"date": "2026-11-25", "open": "09:30", "close": "16:00", "session_open": "0400"},
        **{"session_close": "2000", "settlement_date": "2026-11-27"},
    }
    assert (found[1]["close"], found[1]["session_close"]) == ("13:00", "1700")
    assert found[1]["settlement_date"] == "2026-11-30"


@pytest.mark.parametrize("moment", ["soon", "2026-13-01T00:00", ""])
def test_times_that_are_none_are_refused(moment: str) -> None:
    """With an example of one that is."""
    with pytest.raises(ValueError, match="2026-11-27T12:59"):
        SimulatorOptions(time=moment)


def test_time_goes_on_from_where_it_was_set() -> None:
    """With an offset or without; None and "now" are the real time."""
    hours = TradingHours("2026-11-25T03:00", market_open=True, quiet=False)
    assert 0 <= hours.now_ns() - ns("2026-11-25T03:00") < 60 * 10**9
    assert hours.phase() is Phase.CLOSED
    hours.set(datetime(2026, 11, 25, 14, 30, tzinfo=UTC))
    assert 0 <= hours.now_ns() - ns("2026-11-25T09:30") < 60 * 10**9
    assert hours.is_open()
    assert hours.share() == 1.0
    hours.set(None)
    assert abs(hours.now_ns() / 1e9 - datetime.now(UTC).timestamp()) < 60
    assert hours.is_open()
    hours.set("now")
    assert hours.phase() is phase(hours.now_ns())


async def test_clock_calendar_and_messages_follow_the_time(start: Start) -> None:
    """Set at the start, and changed while it runs."""
    simulator = await start(time="2026-11-26T03:00", rate=200.0)
    async with market(simulator) as client, rest_of(simulator) as rest:
        _, said = await rest("GET", "/v2/clock")
        assert (said["is_open"], said["timestamp"][:16]) == (False, "2026-11-26T03:00")
        assert said["next_open"] == "2026-11-27T09:30:00-05:00"
        await client.ask({"action": "subscribe", "trades": ["AAPL"]})
        assert (await client.receive_type("t"))["t"][:13] == "2026-11-26T08"
        simulator.set_time("2026-07-01T10:00")
        _, said = await rest("GET", "/v2/clock")
        assert (said["is_open"], said["timestamp"][19:][-6:]) == (True, "-04:00")
        while (trade := await client.receive_type("t"))["t"][:13] != "2026-07-01T14":
            assert trade["t"][:10] == "2026-11-26"
        _, listed = await rest("GET", "/v2/calendar")
        assert {day["date"][:4] for day in listed} == {"2026"}
        assert len(listed) == 251


async def test_a_quiet_market_keeps_to_its_hours(start: Start) -> None:
    """Silent on a holiday, alive again when it opens; crypto never closes."""
    simulator = await start(time="2026-12-25T12:00", quiet_when_closed=True, rate=200.0)
    async with market(simulator) as stocks, market(simulator, "/v1beta3/crypto/us") as coins:
        await stocks.ask({"action": "subscribe", "trades": ["AAPL"]})
        await coins.ask({"action": "subscribe", "trades": ["BTC/USD"]})
        await eventually(lambda: len(simulator.data.ledger("crypto/us", "BTC/USD")) > 20)
        assert simulator.data.ledger("iex", "AAPL") == []
        simulator.set_time("2026-12-28T09:30")
        assert (await stocks.receive_type("t"))["t"][:10] == "2026-12-28"


async def test_orders_follow_the_time(start: Start) -> None:
    """A day order waits for the opening; one for extended hours does not."""
    simulator = await start(time="2026-11-27T08:00", rate=200.0)
    async with rest_of(simulator) as rest:
        waiting = await rest.order("AAPL", "1")
        extended = {"type": "limit", "limit_price": "10000", "extended_hours": True}
        early = await rest.order("MSFT", "1", **extended)
        orders = simulator.exchange.account("PK1").orders
        await eventually(lambda: orders[early["id"]].status == "filled")
        assert orders[waiting["id"]].status == "new"
        simulator.set_time("2026-11-27T09:30")
        await eventually(lambda: orders[waiting["id"]].status == "filled")
        _, filled = await rest("GET", f"/v2/orders/{waiting['id']}")
        assert filled["filled_at"][:16] == "2026-11-27T14:30"
