"""What a gap took comes from REST: beside the live data, each trade once, and the truth is told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest
from support import PATIENCE_S, Bot, Rig, eventually, rest

from alpaca_broker.core import backoff
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.market import backfill
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread
from alpaca_broker.simulator.fault_script import script

OPTION = "AAPL271217C00200000"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loopback settles at once."""
    monkeypatch.setattr(backfill, "SETTLES_WITHIN_S", 1.0)
    monkeypatch.setattr("alpaca_broker.core.backfill.MARGIN_S", 0.5)
    monkeypatch.setattr(backoff, "SLOW", (0.2, 0.26))


def ask_for_backfill(rig: Rig, *symbols: str) -> None:
    """A bot wants trades, and those of gaps, too."""
    rig.register(*symbols, channels=["trades", "backfill"])
    feeds = rig.broker._prices.feeds
    eventually(lambda: set(symbols) in [f._continuity.backfill.trades.wanted for f in feeds])


class Heard:
    """What one bot hears of a symbol, live and recovered, and of gaps."""

    def __init__(self, bot: Bot, rig: Rig, symbol: str) -> None:
        self._bot, self._channels, self._symbol = bot, rig.channels, symbol
        self.live: list[dict[str, Any]] = []
        self.recovered: list[dict[str, Any]] = []
        self.gaps: list[dict[str, Any]] = []
        bot.subscribe(rig.channels.status)
        bot.subscribe(rig.channels.price(symbol), rig.channels.backfill(symbol))

    def until(self, condition: Any, within_s: float = PATIENCE_S) -> None:
        """Listen until the condition holds."""

        def take(channel: str, message: dict[str, Any]) -> bool:
            if message["type"] == "gap":
                self.gaps.append(message)
            elif channel == self._channels.price(self._symbol):
                self.live.append(message)
            elif channel == self._channels.backfill(self._symbol):
                self.recovered.append(message)
            return bool(condition())

        self._bot.until(take, within_s)


@pytest.fixture
def lively(valkey: EmbeddedRedis, prefix: str) -> Iterator[Rig]:
    """A broker at a simulator with twenty trades a second."""
    with (
        SimulatorThread(SimulatorOptions(rate=20.0, incidents_per_min=0.0)) as simulator,
        Rig(valkey, simulator, prefix=prefix) as rig,
    ):
        yield rig


@pytest.mark.parametrize(
    ("symbol", "fault"),
    [("AAPL", "cut@0s:market"), ("AAPL", "406@0s+500ms"), ("BTC/USD", "cut@0s:market")],
)
def test_live_and_recovered_trades_are_all_that_traded_each_once(
    lively: Rig, symbol: str, fault: str
) -> None:
    """Over two gaps; what Alpaca's REST shows of the whole time is what the bot has heard."""
    ask_for_backfill(lively, symbol)
    with lively.bot() as bot:
        heard = Heard(bot, lively, symbol)
        heard.until(lambda: len(heard.live) >= 10)
        for gap in (1, 2):
            lively.simulator.play(script([fault]))
            heard.until(lambda gap=gap: sum(g.get("again", False) for g in heard.gaps) == gap)
            count = len(heard.live) + 10
            heard.until(lambda count=count: len(heard.live) >= count)
    told, again = heard.gaps[0], heard.gaps[1]
    assert (told["recovered"], "again" in told) == (False, False)
    assert (again["recovered"], again["symbols"]) == (True, [symbol])
    assert (again["from"], again["to"]) == (told["from"], told["to"])
    assert len(heard.gaps) == 4
    ids = [m["trade_id"] for m in heard.live + heard.recovered]
    assert len(ids) == len(set(ids))
    first, last = heard.live[0]["trade_id"], heard.live[-1]["trade_id"]
    kind = "/v1beta3/crypto/us" if "/" in symbol else "/v2/stocks"
    path = f"{kind}/trades?symbols={symbol}&limit=10000"
    shown = rest(lively.simulator.url, "GET", path)["trades"][symbol]
    traded = [t["i"] for t in shown if first <= t["i"] <= last]
    assert sorted(ids) == traded
    assert [m["seq"] for m in heard.recovered] == list(range(1, len(heard.recovered) + 1))
    assert all(m["source"] == "backfill" for m in heard.recovered)
    times = [m["timestamp"] for m in heard.recovered]
    assert times == sorted(times)
    assert [m["seq"] for m in heard.live] == list(
        range(heard.live[0]["seq"], heard.live[0]["seq"] + len(heard.live))
    )


@pytest.mark.parametrize("feed", ["indicative", "opra"])
def test_live_and_recovered_trades_of_an_option_are_all_that_traded(
    valkey: EmbeddedRedis, prefix: str, feed: str
) -> None:
    """They have no ids: what they are tells them apart."""
    with (
        SimulatorThread(SimulatorOptions(rate=20.0)) as simulator,
        Rig(valkey, simulator, prefix=prefix, alpaca_option_feed=feed) as rig,
        rig.bot() as bot,
    ):
        ask_for_backfill(rig, OPTION)
        heard = Heard(bot, rig, OPTION)
        heard.until(lambda: len(heard.live) >= 10)

        def cut_amid_trades() -> None:
            simulator.simulator.cut(feed)
            for size in (3, 4):
                trade = {"T": "t", "S": OPTION, "p": 2.5, "s": size, "x": "C", "c": "a"}
                simulator.simulator.emit(feed, trade)

        for gap in (1, 2):
            simulator.call(cut_amid_trades)
            heard.until(lambda gap=gap: sum(g.get("again", False) for g in heard.gaps) == gap)
            count = len(heard.live) + 10
            heard.until(lambda count=count: len(heard.live) >= count)
        path = f"/v1beta1/options/trades?symbols={OPTION}&limit=10000"
        shown = rest(simulator.url, "GET", path)["trades"][OPTION]
    assert [(g["feed"], g["recovered"]) for g in heard.gaps] == [(feed, False), (feed, True)] * 2
    assert len(heard.recovered) >= 4, "two each"
    ours = [(m["timestamp"], m["price"], m["size"]) for m in heard.live + heard.recovered]
    theirs = [(msgspec.convert(t["t"], datetime).timestamp(), t["p"], t["s"]) for t in shown]
    first, last = heard.live[0]["timestamp"], heard.live[-1]["timestamp"]
    assert sorted(ours) == sorted(t for t in theirs if first <= t[0] <= last)
    assert all(m["source"] == "backfill" and m["feed"] == feed for m in heard.recovered)


def test_a_minute_bar_that_was_missed_comes_on_the_channel_of_bars(
    valkey: EmbeddedRedis, prefix: str
) -> None:
    """The minute ended while nobody was connected; by Alpaca's clock, which is not ours."""
    minute = datetime.fromisoformat("2026-11-23T11:00:00-05:00").timestamp()
    # On a slow machine the minute may be over before all is ready: then it begins earlier.
    assert any(a_minute_ends(valkey, f"{prefix}{at}:", minute, at) for at in (55, 45, 25, 5))


def a_minute_ends(valkey: EmbeddedRedis, prefix: str, minute: float, at: int) -> bool:
    """Whether all was ready in time."""
    with (
        SimulatorThread(SimulatorOptions(time=f"2026-11-23T11:00:{at:02}-05:00")) as simulator,
        Rig(valkey, simulator, prefix=prefix) as rig,
        rig.bot(rig.channels.status, f"{rig.channels.prefix}bar:AAPL") as bot,
    ):

        def now() -> float:
            said = simulator.call(simulator.simulator.data.now)
            return float(msgspec.convert(said, datetime).timestamp())

        rig.register("AAPL", channels=["trades", "backfill", "bars"])
        eventually(lambda: now() > minute + 58)
        simulator.play(script(["refuse-503@0s+3s:market"]))
        if now() > minute + 59.5:
            return False
        bar = bot.until(lambda c, m: c.endswith("bar:AAPL"))
        again = bot.until(lambda _, m: m.get("again", False))
        shown = rest(simulator.url, "GET", "/v2/stocks/bars?symbols=AAPL&timeframe=1Min")
    (theirs,) = shown["bars"]["AAPL"]
    assert (bar["timestamp"], bar["source"], bar["seq"]) == (minute, "backfill", 1)
    assert (bar["open"], bar["close"], bar["volume"]) == (theirs["o"], theirs["c"], theirs["v"])
    assert (bar["timeframe"], bar["updated"], bar["feed"]) == ("1Min", False, "iex")
    assert (again["symbols"], again["recovered"]) == (["AAPL"], True)
    return True


def test_what_the_plan_does_not_show_is_told(valkey: EmbeddedRedis, prefix: str) -> None:
    """SIP, without the plan for its last 15 minutes: not recovered, and why."""
    options = SimulatorOptions(rate=20.0, recent_sip=False)
    with (
        SimulatorThread(options) as simulator,
        Rig(valkey, simulator, prefix=prefix, alpaca_feed="sip") as rig,
        rig.bot(rig.channels.status) as bot,
    ):
        ask_for_backfill(rig, "AAPL")
        simulator.play(script(["cut@0s:market"]))
        again = bot.until(lambda _, m: m.get("again", False))
        assert not again["recovered"]
        assert "subscription does not permit" in again["reason"]
        bot.until(lambda _, m: m.get("state") == "live")
