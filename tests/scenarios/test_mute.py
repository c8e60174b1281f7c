"""A link that is connected and says nothing: told from a quiet one, and ended only when it is mute.

The times of the watch are a twentieth of the real ones; tests/core/test_health.py holds those.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import time
from typing import Any

import pytest
from support import Bot, Rig, eventually

from alpaca_broker.core import backoff, health
from alpaca_broker.core.health import LIMITS, Limits
from alpaca_broker.core.market_hours import Phase
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.market import link_watch
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread
from alpaca_broker.simulator.fault_script import script
from alpaca_broker.simulator.switches import RestTrouble

IN_SESSION = "2026-11-23T11:00"  # a Monday
MANY_BEATS = 3  # at least two seconds: 40 s of real patience


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience in twentieths."""
    for phase, limits in (
        (Phase.REGULAR, Limits(0.4, 3.0, 3.0, 2.0)),
        (Phase.ALWAYS, Limits(0.4, 3.0, 3.0, 2.0)),
        (Phase.EXTENDED, Limits(0.4, 3.0, 3.0, None)),
        (Phase.UNKNOWN, Limits(0.4, 3.0, 3.0, None)),
    ):
        monkeypatch.setitem(LIMITS, phase, limits)
    monkeypatch.setattr(link_watch, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(health, "ARRIVES_WITHIN_S", 0.1)
    monkeypatch.setattr(health, "SLACK_S", 0.1)
    monkeypatch.setattr(health, "TOLD_FOR_S", 0.2)
    monkeypatch.setattr(health, "AFTER_A_FAILURE_S", 0.3)
    monkeypatch.setattr(health, "RECORD_AT_LEAST_S", 0.5)
    monkeypatch.setattr(health, "QUESTIONS_PER_MINUTE", 100)
    monkeypatch.setattr(backoff, "SLOW", (0.2, 0.26))


class Scene:
    """A broker with one symbol, and a simulator at a pretended time."""

    def __init__(
        self, valkey: EmbeddedRedis, prefix: str, time: str, *, canary: str = "", **options: Any
    ) -> None:
        self._simulator = SimulatorThread(SimulatorOptions(time=time, **{"rate": 100.0} | options))
        self._valkey, self._prefix, self._canary = valkey, prefix, canary

    def __enter__(self) -> Rig:
        self.rig = Rig(
            *(self._valkey, self._simulator.__enter__()),
            prefix=self._prefix,
            canary_symbol=self._canary,
        )
        self.rig.start()
        self.rig.register("AAPL")
        return self.rig

    def __exit__(self, *_: object) -> None:
        try:
            self.rig.stop()
        finally:
            self._simulator.__exit__(None, None, None)


@pytest.fixture
def scene(valkey: EmbeddedRedis, prefix: str) -> Iterator[Any]:
    """Makes scenes."""
    return lambda time, **options: Scene(valkey, prefix, time, **options)


def listening(rig: Rig) -> Bot:
    """A bot that hears states and gaps."""
    return rig.bot(rig.channels.status)


def feed_state(message: dict[str, Any]) -> str | None:
    """The state of the feed, where the message is a status."""
    feed = message.get("feeds", {}).get("iex")
    return None if feed is None else str(feed["state"])


@pytest.mark.parametrize("fault", ["mute", "half-open"])
def test_a_mute_link_in_session_is_told_ended_and_replaced(scene: Any, fault: str) -> None:
    """REST shows what it does not bring: stale with the cause, a new link, a gap; prices go on."""
    with scene(IN_SESSION) as rig, listening(rig) as bot:
        with rig.bot(rig.channels.price("AAPL")) as prices:
            last = prices.next()[1]
        rig.simulator.play(script([f"{fault}@0s+3s:market"]))  # a half-open one keeps its slot
        stale = bot.until(lambda _, m: feed_state(m) == "stale")
        assert stale["feeds"]["iex"]["error"].startswith("connected, but mute: nothing for ")
        assert "AAPL has traded" in stale["feeds"]["iex"]["error"]
        gap = bot.until(lambda _, m: m["type"] == "gap")
        assert gap["from"] >= last["received_at"]
        assert gap["to"] > gap["from"]
        assert "connected, but mute" in gap["reason"]
        assert (gap["symbols"], gap["recovered"]) == (["AAPL"], False)
        bot.until(lambda _, m: feed_state(m) == "live" and m["feeds"]["iex"]["symbols"] == 1)
        with rig.bot(rig.channels.price("AAPL")) as prices:
            assert prices.next()[1]["seq"] > last["seq"]
        assert len(rig.simulator.call(rig.simulator.simulator.links, "market")) == 1


def test_a_gap_begins_at_the_last_data_whatever_alpaca_answered_since(scene: Any) -> None:
    """It is mute and confirms a subscription all the same: that is no sign of anything."""
    with (
        scene(IN_SESSION) as rig,
        listening(rig) as bot,
        rig.bot(rig.channels.price("AAPL")) as prices,
    ):
        heard = [prices.next()[1]]
        rig.simulator.play(script(["no-data@0s+3s:market"]))
        rig.register("MSFT")
        confirmed_at = time()
        stale = bot.until(lambda _, m: feed_state(m) == "stale")
        gap = bot.until(lambda _, m: m["type"] == "gap")
        while heard[-1]["received_at"] <= gap["from"]:
            heard.append(prices.next()[1])
        assert gap["from"] == heard[-2]["received_at"] < confirmed_at
        assert stale["feeds"]["iex"]["last_message"] == gap["from"]
        assert heard[-1]["received_at"] >= gap["to"] - 0.5
        assert "AAPL" in gap["symbols"]


@pytest.mark.parametrize(
    ("time", "options"),
    [
        ("2026-11-23T03:00", {}),
        ("2026-11-26T11:00", {}),
        ("2026-11-27T17:30", {}),
        (IN_SESSION, {"rate": 0.0001}),
    ],
    ids=["at 03:00", "on a holiday", "after a half day", "with one illiquid symbol"],
)
def test_silence_that_is_in_order_ends_nothing(
    scene: Any, time: str, options: dict[str, Any]
) -> None:
    """Several times the patience of a session, and the link is the same and live."""
    with scene(time, **options) as rig, listening(rig) as bot:
        rig.simulator.play(script(["mute@0s+60s:market"]))
        for _ in range(MANY_BEATS):
            status = bot.until(lambda _, m: m["type"] == "status")
            assert feed_state(status) == "live"
        assert rig.simulator.stats.market_connections == 1


def test_without_rest_a_lively_link_is_stale_first_and_ended_much_later(scene: Any) -> None:
    """Its own record speaks against it; the cause is told."""
    with scene(IN_SESSION) as rig, listening(rig) as bot:
        eventually(lambda: rig.broker.counters["prices"] > 100)
        down = RestTrouble(status=500, prefix="/v2/stocks")
        rig.simulator.call(rig.simulator.simulator.switches.rest.append, down)
        rig.simulator.play(script(["mute@0s+60s:market"]))
        stale = bot.until(lambda _, m: feed_state(m) == "stale")
        assert "REST cannot be asked" in stale["feeds"]["iex"]["error"]
        gap = bot.until(lambda _, m: m["type"] == "gap")
        assert gap["to"] - gap["from"] >= 1.9
        bot.until(lambda _, m: feed_state(m) == "live")
        assert rig.simulator.stats.market_connections == 2


def test_a_canary_gives_its_place_to_whoever_is_wanted(scene: Any) -> None:
    """Under a limit of three it comes along with two symbols, and not with three."""
    with scene(IN_SESSION, canary="SPY", symbol_limit=3) as rig:
        eventually(lambda: rig.broker.symbols == {"AAPL", "SPY"})
        rig.register("MSFT")
        assert rig.broker.symbols == {"AAPL", "MSFT", "SPY"}
        rig.register("IBM")
        assert rig.broker.symbols == {"AAPL", "MSFT", "IBM"}
        assert rig.broker.status().feeds["iex"].refused == {}
        assert rig.simulator.stats.market_connections == 1
