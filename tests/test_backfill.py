"""Recoveries from a REST that is made to order: pages, refusals, bounds, what is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import time
from typing import Any

import pytest
from support import PATIENCE_S

from alpaca_broker.alpaca.hours import MarketHours
from alpaca_broker.alpaca.rest import BarPage, PastBar, PastTrade, TradePage
from alpaca_broker.core.backfill import key_of
from alpaca_broker.core.messages import Gap
from alpaca_broker.errors import BrokerError, UpstreamRefused, UpstreamUnavailable
from alpaca_broker.market import backfill as module
from alpaca_broker.market.backfill import Backfill


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has to settle, and patience is short."""
    monkeypatch.setattr(module, "SETTLES_WITHIN_S", 0.0)
    monkeypatch.setattr(module, "AGAIN_AFTER_S", 0.01)
    monkeypatch.setattr(module, "CALLS_PER_MINUTE", 6_000)


def trade(at: float, number: int, **more: Any) -> PastTrade:
    """A trade at an epoch second."""
    return PastTrade(p=1.0, t=datetime.fromtimestamp(at, UTC), s=100, i=number, **more)


class PastStub:
    """A REST that has a past, in pages of so many rows."""

    def __init__(self, past: dict[str, list[PastTrade]], *, page: int = 10_000) -> None:
        self.past, self.page = past, page
        self.bars: dict[str, list[PastBar]] = {}
        self.fails: list[BrokerError] = []
        self.calls: list[tuple[list[str], dict[str, str]]] = []

    async def past_trades(self, path: str, symbols: Iterable[str], **span: str) -> TradePage:
        """Sorted by symbol, the newest first, cut at a page."""
        self.calls.append((list(symbols), span))
        if self.fails:
            raise self.fails.pop(0)
        rows = [(s, t) for s in sorted(self.calls[-1][0]) for t in reversed(self.past.get(s, []))]
        kept = rows[: min(self.page, int(span["limit"]))]
        found: dict[str, list[PastTrade]] = {}
        for symbol, one in kept:
            found.setdefault(symbol, []).append(one)
        return TradePage(found, "more" if len(kept) < len(rows) else None)

    async def past_bars(self, path: str, symbols: Iterable[str], **span: str) -> BarPage:
        """All of them."""
        self.calls.append((list(symbols), span))
        return BarPage({s: self.bars.get(s, []) for s in self.calls[-1][0]}, None)


class Stage:
    """A backfill, and what came of it."""

    def __init__(self, feed: str = "iex", most: int = 1000) -> None:
        self.trades: list[tuple[str, int | None]] = []
        self.bars: list[tuple[str, float]] = []
        self.gaps: list[Gap] = []
        self.waiting = 0  # live messages that Redis has not taken
        self.taken = self.settled = 0  # commands, as the publisher counts them
        self.backfill = Backfill(
            feed,
            MarketHours(),
            most=most,
            publish_trade=lambda symbol, one: self.trades.append((symbol, one.i)),
            publish_bar=lambda symbol, bar: self.bars.append((symbol, bar.t.timestamp())),
            publisher=self,  # type: ignore[arg-type]
            on_gap=self.gaps.append,
        )

    def follow(self, trades: set[str], bars: set[str] | None = None) -> None:
        """Follow these, for an hour by now."""
        self.backfill.follow(trades, bars or set())
        for kind, symbols in ((self.backfill.trades, trades), (self.backfill.bars, bars or set())):
            kind.edges._since |= dict.fromkeys(symbols, time() - 3600)

    def gap(self, began: float, *symbols: str) -> Gap:
        """A gap that has just ended, as it was announced."""
        return Gap(
            feed="iex", began=began, ended=began + 10, symbols=sorted(symbols),
            reason="the market-data link ended", recovered=False, epoch=7,
        )  # fmt: skip

    async def told(self, count: int) -> list[Gap]:
        """The gap messages that follow."""
        until = time() + PATIENCE_S
        while len(self.gaps) < count:
            assert time() < until, f"{len(self.gaps)} gaps"
            await asyncio.sleep(0.005)
        return self.gaps


@asynccontextmanager
async def running(stage: Stage, rest: PastStub) -> AsyncIterator[None]:
    """The backfill at work."""
    task = asyncio.create_task(stage.backfill.run(rest))  # type: ignore[arg-type]
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_was_missed_is_recovered_and_said() -> None:
    """Of two symbols that asked for it, in one call, oldest first; the third is left out."""
    began = time() - 20
    stage = Stage()
    stage.follow({"AAPL", "MSFT", "ELSE"})
    live = trade(began - 0.5, 1)
    stage.backfill.trades.edges.note("AAPL", key_of(live))
    stage.backfill.begins()
    rest = PastStub(
        {
            "AAPL": [live, trade(began + 1, 2), trade(began + 2, 3)],
            "MSFT": [trade(began + 1, 9), trade(began + 2, 10, u="canceled")],
        }
    )
    async with running(stage, rest):
        stage.backfill.ends(stage.gap(began, "AAPL", "MSFT", "IBM"))
        (gap,) = await stage.told(1)
    assert stage.trades == [("AAPL", 2), ("AAPL", 3), ("MSFT", 9)]
    assert (gap.symbols, gap.recovered, gap.again) == (["AAPL", "MSFT"], True, True)
    assert (gap.began, gap.ended, gap.feed, gap.epoch) == (began, began + 10, "iex", 7)
    assert len(rest.calls) == 1


async def test_what_one_gap_brought_the_next_one_does_not_bring_again() -> None:
    """A second later the link ended again, and the margin of that gap reaches into the first."""
    began = time() - 30
    stage = Stage()
    stage.follow({"AAPL"})
    day = [trade(began + n, n) for n in range(23)]
    rest = PastStub({"AAPL": day})
    async with running(stage, rest):
        stage.backfill.begins()
        stage.backfill.ends(stage.gap(began, "AAPL"))  # to + 10
        stage.backfill.begins()
        stage.backfill.ends(stage.gap(began + 11, "AAPL"))
        await stage.told(2)
    assert [number for _, number in stage.trades] == list(range(23))


async def test_the_last_word_comes_after_what_it_speaks_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gaps go over another connection than trades: Redis must have these first."""
    looks: list[int] = []
    began = time() - 20
    stage, rest = Stage(), PastStub({"AAPL": [trade(began + 1, 2)]})
    stage.taken = 2  # what is recovered, and something before it

    async def look(seconds: float, sleep: Any = asyncio.sleep) -> None:
        if stage.trades and seconds == module.LOOK_EVERY_S:
            looks.append(len(stage.gaps))
            stage.settled += 1
        await sleep(0)

    stage.follow({"AAPL"})
    stage.backfill.begins()
    monkeypatch.setattr(asyncio, "sleep", look)
    async with running(stage, rest):
        stage.backfill.ends(stage.gap(began, "AAPL"))
        await stage.told(1)
    assert looks == [0, 0]


async def test_of_the_wildcard_it_is_said_that_nothing_is_recovered() -> None:
    """What else is wished is; nobody waits for the second gap message in vain."""
    began = time() - 20
    stage = Stage()
    stage.follow({"*"})
    stage.backfill.begins()
    async with running(stage, PastStub({})):
        stage.backfill.ends(stage.gap(began, "*"))
        (gap,) = await stage.told(1)
        assert (gap.symbols, gap.recovered, gap.again) == (["*"], False, True)
        assert "by name" in gap.reason
        stage.follow({"*", "AAPL"})
        stage.backfill.begins()
        stage.backfill.ends(stage.gap(began, "*"))
        _, whole, rest = await stage.told(3)
    assert (whole.symbols, whole.recovered) == (["AAPL"], True)
    assert (rest.symbols, rest.recovered) == (["*"], False)


async def test_nobody_asked_and_nothing_is_asked() -> None:
    """The gap was announced as not recovered; that stands."""
    stage, rest = Stage(), PastStub({})
    stage.backfill.begins()
    async with running(stage, rest):
        stage.backfill.ends(stage.gap(time() - 20, "AAPL"))
        stage.follow({"MSFT"})
        stage.backfill.begins()
        stage.backfill.ends(stage.gap(time() - 20, "MSFT"))
        await stage.told(1)
    assert [call[0] for call in rest.calls] == [["MSFT"]]


async def test_where_one_call_does_not_hold_all_each_symbol_has_its_own() -> None:
    """A busy symbol does not cost another its recovery; its own is said to be cut."""
    began = time() - 20
    busy = [trade(began + n / 1000, n) for n in range(2000)]
    rest = PastStub({"AAPL": busy, "ZM": [trade(began + 1, 1)]}, page=500)
    stage = Stage(most=100)
    stage.follow({"AAPL", "ZM"})
    stage.backfill.begins()
    async with running(stage, rest):
        stage.backfill.ends(stage.gap(began, "AAPL", "ZM"))
        whole, cut = await stage.told(2)
    assert [call[0] for call in rest.calls] == [["AAPL", "ZM"], ["AAPL"], ["ZM"]]
    assert stage.trades == [*(("AAPL", n) for n in range(1900, 2000)), ("ZM", 1)]
    assert (whole.symbols, whole.recovered) == (["ZM"], True)
    assert (cut.symbols, cut.recovered) == (["AAPL"], False)
    assert "the newest 100 only" in cut.reason


async def test_what_the_plan_does_not_show_is_said() -> None:
    """403, once: asking again would not help."""
    stage, rest = Stage("sip"), PastStub({})
    text = "subscription does not permit querying recent SIP data"
    rest.fails = [UpstreamRefused(403, text, http=True)]
    stage.follow({"AAPL"})
    stage.backfill.begins()
    async with running(stage, rest):
        stage.backfill.ends(stage.gap(time() - 20, "AAPL"))
        (gap,) = await stage.told(1)
    assert (gap.recovered, gap.again) == (False, True)
    assert text in gap.reason
    assert "HTTP 403" in gap.reason
    assert len(rest.calls) == 1


@pytest.mark.parametrize("error", [UpstreamUnavailable("https://x", "down"),
                                   UpstreamRefused(429, "slow down", http=True),
                                   UpstreamRefused(500, "oops", http=True)])  # fmt: skip
async def test_a_rest_that_stumbles_is_asked_again(error: BrokerError) -> None:
    """Three times in all; what fails then is said."""
    began = time() - 20
    stage, rest = Stage(), PastStub({"AAPL": [trade(began + 1, 1)]})
    stage.follow({"AAPL"})
    rest.fails = [error] * 2
    async with running(stage, rest):
        stage.backfill.begins()
        stage.backfill.ends(stage.gap(began, "AAPL"))
        (gap,) = await stage.told(1)
        assert gap.recovered
        rest.fails = [error] * 3
        stage.backfill.begins()
        stage.backfill.ends(stage.gap(began, "AAPL"))
        gap = (await stage.told(2))[1]
        assert not gap.recovered
        assert str(error) in gap.reason
    assert len(rest.calls) == 6


async def test_a_feed_without_history_says_so() -> None:
    """No call is made for it."""
    stage, rest = Stage("overnight"), PastStub({})
    stage.backfill._delay_s = lambda: None  # nor does it matter how late it is
    stage.follow({"AAPL"})
    stage.backfill.begins()
    async with running(stage, rest):
        stage.backfill.ends(stage.gap(time() - 20, "AAPL"))
        (gap,) = await stage.told(1)
    assert not gap.recovered
    assert "no history of this feed" in gap.reason
    assert rest.calls == []


async def test_while_nobody_knows_how_late_a_feed_is_nothing_is_recovered() -> None:
    """What is still to come would come twice, and what was missed would not be asked for."""
    stage, rest = Stage("indicative"), PastStub({"AAPL": [trade(time() - 15, 1)]})
    stage.backfill._delay_s = lambda: None
    stage.follow({"AAPL"})
    stage.backfill.begins()
    async with running(stage, rest):
        stage.backfill.ends(stage.gap(time() - 20, "AAPL"))
        (gap,) = await stage.told(1)
    assert (gap.recovered, stage.trades, rest.calls) == (False, [], [])
    assert "how late this feed is" in gap.reason


async def test_of_a_late_feed_what_it_would_have_brought_is_recovered() -> None:
    """That is a quarter of an hour old."""
    began = time() - 20
    day = [trade(began + n + 0.5 - 900, n) for n in range(-5, 20)]
    stage, rest = Stage("delayed_sip"), PastStub({"AAPL": [*day, trade(began + 5, 99)]})
    stage.backfill._delay_s = lambda: 900.0
    stage.follow({"AAPL"})
    for one in day[:4]:
        stage.backfill.trades.edges.note("AAPL", key_of(one))
    stage.backfill.begins()
    async with running(stage, rest):
        stage.backfill.ends(stage.gap(began, "AAPL"))
        await stage.told(1)
    assert [number for _, number in stage.trades] == list(range(-1, 12))


async def test_a_recovery_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next gap has its turn."""
    monkeypatch.setattr(module, "WITHIN_S", 0.05)
    began = time() - 20
    stage, rest = Stage(), PastStub({"AAPL": [trade(began + 1, 1)]})
    monkeypatch.setattr(module, "AGAIN_AFTER_S", 60.0)
    rest.fails = [UpstreamUnavailable("https://x", "down")]
    stage.follow({"AAPL"})
    async with running(stage, rest):
        stage.backfill.begins()
        stage.backfill.ends(stage.gap(began, "AAPL"))
        await stage.told(1)
        monkeypatch.setattr(module, "WITHIN_S", 180.0)
        stage.backfill.begins()
        stage.backfill.ends(stage.gap(began, "AAPL"))
        late, whole = await stage.told(2)
    assert not late.recovered
    assert "not within the time" in late.reason
    assert whole.recovered


async def test_missed_bars_are_recovered_for_those_who_hear_bars() -> None:
    """Those whose minute ended in the gap."""
    began = time() // 60 * 60 - 305
    bars = [
        PastBar(t=datetime.fromtimestamp(began + 5 + 60 * n, UTC), o=1, h=1, l=1, c=1)
        for n in range(-3, 4)
    ]
    stage, rest = Stage(), PastStub({})
    rest.bars = {"AAPL": bars}
    stage.follow(set(), {"AAPL"})
    stage.backfill.begins()
    gap = stage.gap(began, "AAPL")
    gap.ended = began + 130  # minutes end at +5, +65 and +125
    async with running(stage, rest):
        stage.backfill.ends(gap)
        (told,) = await stage.told(1)
    assert not told.recovered, "the trades of a price bot were missed all the same"
    assert "only its minute bars" in told.reason
    assert stage.bars == [("AAPL", began + 5 + 60 * n) for n in (-1, 0, 1)]
    assert rest.calls[0][1]["start"] < datetime.fromtimestamp(began - 55, UTC).isoformat()


async def test_what_a_broker_before_us_missed_is_recovered() -> None:
    """Nobody knows what it published last: from the word of its last heartbeat on."""
    began = time() - 20
    rest = PastStub({"AAPL": [trade(began - 0.1, 1), trade(began + 0.1, 2)]})
    stage = Stage()
    stage.backfill.begins(ours=False)
    stage.backfill.follow({"AAPL"}, ())
    async with running(stage, rest):
        stage.backfill.ends(stage.gap(began, "AAPL"))
        (gap,) = await stage.told(1)
    assert stage.trades == [("AAPL", 2)]
    assert gap.recovered


async def test_recoveries_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes, and its edges with it."""
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    stage = Stage()
    stage.follow({"AAPL"})
    for _ in range(10):
        stage.backfill.begins()
        stage.backfill.ends(stage.gap(time() - 20, "AAPL"))
    assert len(stage.backfill._waiting) == 3
    assert len(stage.backfill.trades.edges._open) == 3
