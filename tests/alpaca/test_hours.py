"""Market hours from a REST that is sometimes away, or talks nonsense."""

from __future__ import annotations

import asyncio
import time as time_module
from datetime import UTC, date, datetime, timedelta
from functools import partial
from time import time
from typing import Any

import pytest
from aiohttp import web
from test_rest_and_link import KEYS, serving

from alpaca_broker.alpaca import hours as module
from alpaca_broker.alpaca.hours import MarketHours, steady
from alpaca_broker.alpaca.link import http_session
from alpaca_broker.alpaca.rest import TradingRest
from alpaca_broker.core.accounts import KeyPair
from alpaca_broker.core.market_hours import Phase
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread


def answers(now: datetime, days: list[dict[str, str]]) -> dict[str, Any]:
    """What a REST says whose clock shows `now`; the market is closed."""
    later = (now + timedelta(hours=20)).isoformat()
    clock = {"timestamp": now.isoformat(), "is_open": False, "next_open": later}
    return {"/v2/clock": clock | {"next_close": later}, "/v2/calendar": days}


@pytest.mark.parametrize("days_off", [0, 400])
async def test_hours_follow_alpacas_clock(days_off: int) -> None:
    """Not this machine's, which may be wrong by a year."""
    real = datetime(2026, 11, 24, 3, 0, tzinfo=UTC) + timedelta(days=days_off)
    monday = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)  # 10:00 in New York
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        days = [{"date": "2026-11-23", "open": "09:30", "close": "16:00"}]
        said = answers(monday, days)
        said["/v2/clock"] |= {"is_open": True}
        return web.json_response(said[request.path])

    async with serving(handler) as url, http_session() as http:
        hours = MarketHours(wall=real.timestamp)
        assert hours.phase("iex") is Phase.UNKNOWN
        await hours.renew(TradingRest(http, url, KEYS))
    assert hours.now() == pytest.approx(monday.timestamp(), abs=60)
    assert hours.phase("iex") is Phase.REGULAR
    assert hours.by_alpaca(steady() - 100) == pytest.approx(monday.timestamp() - 100, abs=60)
    assert hours.ahead_s == pytest.approx((monday - real).total_seconds(), abs=60)
    assert asked == ["/v2/clock", "/v2/calendar?start=2026-11-22&end=2026-12-07"]


@pytest.mark.parametrize("step_h", [-6, 6, -24 * 365 * 50])
async def test_a_step_of_our_clock_changes_no_hours(step_h: int) -> None:
    """NTP sets it right, or wrong, between two answers; and what follows is on time."""
    monday = datetime(2026, 11, 23, 20, 30, tzinfo=UTC).timestamp()  # 15:30 in New York
    wall, ran = monday + 3 - step_h * 3600, 1_000.0

    async def handler(request: web.Request) -> web.Response:
        days = [{"date": "2026-11-23", "open": "09:30", "close": "16:00"}]
        said = answers(datetime.fromtimestamp(monday, UTC), days)
        said["/v2/clock"] |= {"is_open": True}
        said["/v2/clock"]["next_close"] = datetime.fromtimestamp(monday + 1800, UTC).isoformat()
        return web.json_response(said[request.path])

    async with serving(handler) as url, http_session() as http:
        hours = MarketHours(wall=lambda: wall, steady=lambda: ran)
        await hours.renew(TradingRest(http, url, KEYS))
    wall += step_h * 3600
    assert hours.phase("iex") is Phase.REGULAR
    assert (hours.now(), hours.ahead_s) == (monday, -3)
    wall, ran = wall + 1801, ran + 1801  # it may have slept meanwhile
    assert hours.phase("iex") is Phase.EXTENDED
    assert hours.by_alpaca(1_000.0) == monday


async def test_a_clock_that_goes_on_while_the_machine_sleeps_is_used_where_there_is_one() -> None:
    """Linux' monotonic one stops."""
    if hasattr(time_module, "CLOCK_BOOTTIME"):
        clock = partial(time_module.clock_gettime, time_module.CLOCK_BOOTTIME)
        assert clock() <= steady() <= clock()


@pytest.mark.parametrize(
    ("answered", "asked"),
    [
        ({"PK1": 401, "PK2": 403}, ["PK1", "PK2", "PK3", "PK3", "PK3"]),
        ({"PK1": 500}, ["PK1", "PK1", "PK1"]),
        ({"PK1": 401, "PK2": 403, "PK3": 401}, ["PK1", "PK2", "PK3", "PK3", "PK1", "PK2"]),
    ],
    ids=["refused keys", "a REST that is down", "all refused"],
)
async def test_where_keys_are_refused_another_accounts_are_used(
    monkeypatch: pytest.MonkeyPatch, answered: dict[str, int], asked: list[str]
) -> None:
    """At once, and from then on; where that is not the trouble, patience helps."""
    heard: list[str] = []
    done = asyncio.Event()
    now = datetime(2026, 11, 23, 20, 30, tzinfo=UTC)

    async def handler(request: web.Request) -> web.Response:
        key = request.headers["APCA-API-KEY-ID"]
        heard.append(key)
        if status := answered.get(key):
            return web.Response(status=status)
        days = [{"date": "2026-11-23", "open": "09:30", "close": "16:00"}]
        return web.json_response(answers(now, days)[request.path])

    async def pause(seconds: float) -> None:
        if len(heard) >= len(asked) and not done.is_set():  # aiohttp sleeps, too
            done.set()
            await asyncio.Event().wait()

    def using(url: str, key: str) -> Any:
        return lambda http: TradingRest(http, url, KeyPair("paper", key, "very-secret"))

    monkeypatch.setattr(module.asyncio, "sleep", pause)
    async with serving(handler) as url:
        hours = MarketHours([using(url, key) for key in ("PK1", "PK2", "PK3")])
        task = asyncio.create_task(hours.run())
        async with asyncio.timeout(60):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert heard[: len(asked)] == asked


@pytest.mark.parametrize(
    "days",
    [[], [{"date": "2026-11-23", "open": "16:00", "close": "09:30"}]],
    ids=["no trading day in two weeks", "closes before it opens"],
)
async def test_a_calendar_that_makes_no_sense_is_not_believed(days: list[dict[str, str]]) -> None:
    """What was known before stays; here nothing was."""
    monday = datetime(2026, 11, 23, 20, 30, tzinfo=UTC)

    async def handler(request: web.Request) -> web.Response:
        return web.json_response(answers(monday, days)[request.path])

    async with serving(handler) as url, http_session() as http:
        hours = MarketHours(wall=monday.timestamp)
        with pytest.raises(ValueError, match=r"not believed|no hours"):
            await hours.renew(TradingRest(http, url, KEYS))
        assert hours.phase("iex") is Phase.UNKNOWN


@pytest.mark.parametrize("year", [1, 1970, 9999])
async def test_a_clock_that_makes_no_sense_is_not_believed(year: int) -> None:
    """Nothing is computed with it."""
    moment = datetime(year, 12, 31, 23, 59, tzinfo=UTC)
    said = {"timestamp": moment.isoformat(), "is_open": True}
    said |= {"next_open": moment.isoformat(), "next_close": moment.isoformat()}

    async def handler(request: web.Request) -> web.Response:
        return web.json_response(said)

    async with serving(handler) as url, http_session() as http:
        hours = MarketHours()
        with pytest.raises(ValueError, match="not believed"):
            await hours.renew(TradingRest(http, url, KEYS))
        assert hours.phase("iex") is Phase.UNKNOWN
        assert abs(hours.now() - time()) < 60


async def test_hours_are_asked_for_until_they_are_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """REST is down twice: it costs patience, then all is known; after that it is left alone."""
    calls: list[str] = []
    pauses: list[float] = []
    known = asyncio.Event()
    today = datetime.now(UTC).date()
    days = [
        {"date": (today + timedelta(days=n)).isoformat(), "open": "00:00", "close": "23:59",
         "session_open": "0000", "session_close": "2359"}
        for n in range(-1, 15)
    ]  # fmt: skip

    async def handler(request: web.Request) -> web.Response:
        calls.append(request.path)
        if len(calls) <= 2:
            return web.Response(status=500)
        return web.json_response(answers(datetime.now(UTC), days)[request.path])

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            known.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(module.asyncio, "sleep", pause)
    async with serving(handler) as url:
        hours = MarketHours([lambda http: TradingRest(http, url, KEYS)])
        task = asyncio.create_task(hours.run())
        async with asyncio.timeout(60):
            await known.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert calls == ["/v2/clock"] * 3 + ["/v2/calendar"]
    assert 3 < pauses[0] <= 5
    assert 7 < pauses[1] <= 10
    assert pauses[2] == module.RENEW_AFTER_S


async def test_the_simulator_is_understood() -> None:
    """A market that is open says so by its clock, whatever day it is here."""
    with SimulatorThread(SimulatorOptions(market_open=True)) as simulator:
        async with http_session() as http:
            hours = MarketHours()
            rest = TradingRest(http, simulator.url, KEYS)
            await hours.renew(rest)
            rows = await rest.calendar(date(2026, 11, 16), date(2026, 11, 22))
    assert hours.phase("iex") is Phase.REGULAR
    assert [row.date for row in rows] == [f"2026-11-{day}" for day in range(16, 21)]
