"""The watch over a live link, with a REST that is made to order, in short times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any

import pytest
from msgspec import Struct, field
from support import PATIENCE_S

from alpaca_broker.alpaca.hours import MarketHours
from alpaca_broker.core import health
from alpaca_broker.core.health import Limits
from alpaca_broker.core.market_hours import CalendarDay, Clock, Phase
from alpaca_broker.errors import UpstreamUnavailable
from alpaca_broker.market import link_watch
from alpaca_broker.market.link_watch import LinkWatch, Watched

QUICK: dict[Phase, Limits | None] = {
    Phase.REGULAR: Limits(0.1, 0.5, 0.5, 0.6),
    Phase.ALWAYS: Limits(0.1, 0.5, 0.5, 0.6),
    Phase.EXTENDED: Limits(0.1, 0.5, 0.5, None),
    Phase.UNKNOWN: Limits(0.1, 0.5, 0.5, None),
    Phase.CLOSED: None,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is seconds becomes hundredths."""
    monkeypatch.setattr(link_watch, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(link_watch, "ANSWER_WITHIN_S", 0.1)
    monkeypatch.setattr(health, "ARRIVES_WITHIN_S", 0.05)
    monkeypatch.setattr(health, "TOLD_FOR_S", 0.05)
    monkeypatch.setattr(health, "SLACK_S", 0.1)
    monkeypatch.setattr(health, "AFTER_A_FAILURE_S", 0.1)
    monkeypatch.setattr(health, "RECORD_AT_LEAST_S", 0.2)
    monkeypatch.setattr(health, "QUESTIONS_PER_MINUTE", 1000)


class TradingStub:
    """A REST that says what it is told to."""

    def __init__(self, clock: Clock | None = None, days: list[CalendarDay] | None = None) -> None:
        self._clock, self._days = clock, days or []

    async def clock(self) -> Clock:
        """The clock, or a failure."""
        if self._clock is None:
            raise UpstreamUnavailable("http://nowhere", "down")
        return self._clock

    async def calendar(self, first: object, last: object) -> list[CalendarDay]:
        """The days."""
        return self._days


async def in_session(ahead_s: float = 0.0) -> MarketHours:
    """A market that is open, whatever the day."""
    now = datetime.now(UTC) + timedelta(seconds=ahead_s)
    stub = TradingStub(
        Clock(now, True, now + timedelta(hours=20), now + timedelta(hours=3)),
        [
            CalendarDay(
                (now + timedelta(days=n)).date().isoformat(), "00:00", "23:59", "0000", "2359"
            )
            for n in (-1, 0, 1)
        ],
    )
    hours = MarketHours()
    await hours.renew(stub)  # type: ignore[arg-type]
    return hours


class FakeLink(Struct):
    """A link that says what the test wants."""

    last_data: float | None = None
    traded: frozenset[str] = frozenset({"AAPL"})
    rest: dict[str, float] | None = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)
    known: dict[str, float] = field(default_factory=dict)
    listens: bool = True

    async def ask(self, symbols: list[str]) -> Mapping[str, float]:
        """The last trades by REST."""
        self.asked.append(symbols)
        if self.rest is None:
            raise UpstreamUnavailable("http://nowhere", "down")
        return {s: at for s, at in self.rest.items() if s in symbols}

    def seen(self, *, can_ask: bool = True) -> Watched:
        """This link, as the watch sees it."""
        return Watched(
            last_data=lambda: self.last_data,
            listens=lambda: self.listens,
            is_subscribed=lambda: bool(self.traded),
            traded=lambda: self.traded,
            known=lambda: self.known,
            ask=self.ask if can_ask else None,
        )


@asynccontextmanager
async def watching(
    link: FakeLink, hours: MarketHours, feed: str = "iex", **more: Any
) -> AsyncIterator[tuple[LinkWatch, asyncio.Task[None]]]:
    """A watch that runs beside the test."""
    watch = LinkWatch(feed, "wss://alpaca", hours, limits=QUICK, **more)
    task = asyncio.create_task(watch.run(link.seen()))
    try:
        yield watch, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def reached(condition: Any, within_s: float = PATIENCE_S) -> None:
    """Wait until the condition holds."""
    until = time() + within_s
    while not condition():
        assert time() < until, f"not within {within_s} s"
        await asyncio.sleep(0.005)


async def test_a_mute_link_is_told_before_it_is_hung_up_on() -> None:
    """REST shows a trade that did not come: `trouble` first, then the end, with the same cause."""
    told: list[str | None] = []
    link = FakeLink(last_data=time() - 100, rest={"AAPL": time() + 60})
    async with watching(link, await in_session()) as (watch, task):
        watch._changed = lambda: told.append(watch.trouble)
        with pytest.raises(UpstreamUnavailable, match="mute") as caught:
            await task
    assert told[0] is not None
    assert told[0].startswith("connected, but mute: nothing for ")
    assert "AAPL has traded" in caught.value.reason
    assert told[-1] is None  # the end of the link is another state
    assert len(link.asked) == 1


async def test_one_illiquid_symbol_is_acquitted_by_rest_again_and_again() -> None:
    """Its last trade is the one that came: no trouble, however long it lasts."""
    traded_at = time() - 600
    link = FakeLink(last_data=traded_at, rest={"AAPL": traded_at}, known={"AAPL": traded_at})
    async with watching(link, await in_session()) as (watch, task):
        await reached(lambda: len(link.asked) >= 4)
        assert watch.trouble is None
        assert not task.done()


async def test_a_clock_that_is_late_convicts_nobody() -> None:
    """Ours is a minute behind Alpaca's: a trade's own time lies after its arrival."""
    hours = await in_session(ahead_s=60)
    now = time()
    link = FakeLink(last_data=now, rest={"AAPL": now + 59}, known={})
    async with watching(link, hours) as (watch, task):
        await reached(lambda: len(link.asked) >= 3)
        assert watch.trouble is None
        assert not task.done()


async def test_a_symbol_that_was_just_confirmed_is_no_witness() -> None:
    """What it traded before it was subscribed could not have come."""
    link = FakeLink(last_data=time() - 300, traded=frozenset(), rest={"SPY": time() - 1})
    async with watching(link, await in_session()) as (watch, task):
        link.traded = frozenset({"SPY"})
        await reached(lambda: len(link.asked) >= 3)
        assert watch.trouble is None
        assert not task.done()


async def test_the_canary_is_asked_about_first() -> None:
    """Then those that traded last; a hundred at most."""
    symbols = [f"S{n}" for n in range(300)]
    link = FakeLink(traded=frozenset({*symbols, "SPY"}))
    link.known = {s: float(n) for n, s in enumerate(symbols)}
    async with watching(link, await in_session(), canary="SPY"):
        await reached(lambda: link.asked)
    assert link.asked[0][:3] == ["SPY", "S299", "S298"]
    assert len(link.asked[0]) == 100


@pytest.mark.parametrize("hours_off", [-6, 6])
async def test_a_step_of_our_clock_blinds_nobody(hours_off: int) -> None:
    """The last data came before the clock was set: REST's trade counts all the same."""
    link = FakeLink(last_data=time() + hours_off * 3600, rest={"AAPL": time() + 60})
    async with watching(link, await in_session()) as (_, task):
        with pytest.raises(UpstreamUnavailable, match="mute"):
            await task


@pytest.mark.parametrize("feed", ["delayed_sip", "overnight", "indicative"])
async def test_a_delayed_feed_is_late_and_not_mute(
    feed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What REST shows is still to come, however much it is; mute is who is later than that."""
    monkeypatch.setitem(QUICK, Phase.EXTENDED, QUICK[Phase.REGULAR])
    hours = await in_session()
    monkeypatch.setattr(hours, "phase", lambda feed: Phase.EXTENDED)
    link = FakeLink(last_data=time() - 30)
    async with watching(link, hours, feed=feed) as (watch, task):
        for late_s in (880, 60, 0):
            link.rest = {"AAPL": time() - late_s}
            asked = len(link.asked)
            await reached(lambda asked=asked: len(link.asked) >= asked + 3)
            assert watch.trouble is None
            assert not task.done()


async def test_a_delayed_feed_that_brought_all_that_was_due_is_fine() -> None:
    """The trade was before the silence, the delay counted in."""
    link = FakeLink(last_data=time() - 30, rest={"AAPL": time() - 960})
    async with watching(link, await in_session(), feed="delayed_sip") as (watch, task):
        await reached(lambda: len(link.asked) >= 3)
        assert watch.trouble is None
        assert not task.done()


async def test_a_delayed_feed_that_does_not_bring_what_was_due_is_mute() -> None:
    """It was to come a moment ago, after the last data."""
    link = FakeLink(last_data=time(), rest={})
    async with watching(link, await in_session(), feed="delayed_sip") as (watch, task):
        await reached(lambda: link.asked)
        assert watch.trouble is None
        link.rest = {"AAPL": time() - 900 + 0.2}
        with pytest.raises(UpstreamUnavailable, match="mute"):
            await task


async def test_nothing_is_asked_when_nobody_subscribed_or_we_do_not_read() -> None:
    """Both are our own doing."""
    deaf = FakeLink(last_data=time() - 100, rest={"AAPL": time() + 60}, listens=False)
    idle = FakeLink(traded=frozenset())
    hours = await in_session()
    async with watching(deaf, hours), watching(idle, hours):
        await asyncio.sleep(0.3)  # three times as long as it would take
    assert deaf.asked == idle.asked == []


async def talk(link: FakeLink, seconds: float) -> float:
    """Data all the time; the longest pause in it, which is the machine's."""
    until, longest = time() + seconds, 0.0
    while (now := time()) < until:
        longest = max(longest, now - (link.last_data or now))
        link.last_data = now
        await asyncio.sleep(0.005)
    return longest


TRIALS = range(50)  # where the machine stood still, a link was not as lively as it is meant to be


async def test_without_rest_a_lively_link_is_told_and_hung_up_on_after_the_stated_time() -> None:
    """By its own record: it spoke all the time, then no more."""
    for _ in TRIALS:
        told: list[str | None] = []
        link = FakeLink(rest=None)
        async with watching(link, await in_session()) as (watch, task):
            if await talk(link, 0.3) > 0.04:
                continue
            watch._changed = lambda watch=watch, told=told: told.append(watch.trouble)
            fell_silent = time()
            await reached(task.done)
            assert "REST cannot be asked" in str(told[0])
            assert time() - fell_silent >= 0.55
            assert isinstance(task.exception(), UpstreamUnavailable)
            return
    raise AssertionError("the machine stands still all the time")


async def test_without_rest_and_without_hours_nothing_happens() -> None:
    """Ignorance alone: neither trouble nor an end."""
    link = FakeLink(rest=None)
    async with watching(link, MarketHours()) as (watch, task):
        await talk(link, 0.5)
        await reached(lambda: len(link.asked) >= 4)
        assert watch.trouble is None
        assert not task.done()


async def test_a_stale_link_that_speaks_again_is_live_again() -> None:
    """The trouble is taken back."""
    for _ in TRIALS:
        link = FakeLink(rest=None)
        async with watching(link, await in_session()) as (watch, task):
            if await talk(link, 0.3) > 0.04:
                continue
            await reached(lambda watch=watch, task=task: watch.trouble or task.done())
            link.last_data = time()
            await reached(lambda watch=watch: watch.trouble is None)
            if not task.done():
                return
    raise AssertionError("it is hung up on all the same")
