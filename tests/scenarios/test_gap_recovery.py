"""What a gap took comes from REST: beside the live data, each trade once, and the truth is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support import Bot, Rig, eventually, rest

from alpaca_broker.core import backoff
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.market import backfill
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread
from alpaca_broker.simulator.fault_script import script


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

    def until(self, condition: Any, within_s: float = 20.0) -> None:
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
        again = bot.until(lambda _, m: m.get("again", False), 20)
        assert not again["recovered"]
        assert "subscription does not permit" in again["reason"]
        bot.until(lambda _, m: m.get("state") == "live")
