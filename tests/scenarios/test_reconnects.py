"""Links that are refused again and again: few attempts, nothing left open, nothing forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from support import Rig, eventually

from alpaca_broker.core import backoff
from alpaca_broker.simulator.fault_script import script


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steady patience with a taken slot, in fiftieths."""
    monkeypatch.setattr(backoff, "SLOW", (0.2, 0.26))


def feed(message: dict[str, Any]) -> dict[str, Any]:
    """The feed, where the message is a status."""
    found: dict[str, Any] = message.get("feeds", {}).get("iex", {})
    return found


def at_alpaca(rig: Rig) -> set[str]:
    """The symbols whose trades the simulator's sessions are subscribed to."""
    topics = rig.simulator.call(rig.simulator.simulator._hub.subscribed, "stocks")
    return {symbol for kind, symbol in topics if kind == "trades"}


def test_a_taken_slot_is_waited_for_and_named(rig: Rig) -> None:
    """406 for 90 s (here a fiftieth) after a cut: at most twelve attempts, then all is back."""
    rig.register("AAPL", "MSFT", "IBM")
    with rig.bot(rig.channels.status) as bot:
        rig.simulator.play(script(["406@0s+1800ms"]))
        told = bot.until(lambda _, m: "slot" in str(feed(m).get("error")))
        assert "another session holds the slot" in feed(told)["error"]
        bot.until(lambda _, m: feed(m).get("state") == "live" and feed(m)["symbols"] == 3)
        assert 2 < rig.simulator.stats.market_connections <= 1 + 12
        assert len(rig.simulator.call(rig.simulator.simulator.links, "market")) == 1
    with rig.bot(*map(rig.channels.price, ("AAPL", "MSFT", "IBM"))) as prices:
        heard: set[str] = set()
        while heard != {"AAPL", "MSFT", "IBM"}:
            heard.add(prices.next()[1]["symbol"])


@pytest.mark.parametrize(
    "fault", ["cut@0s:market", "406@0s+500ms", "accept-then-refuse@0s+500ms:market"]
)
def test_after_each_connect_alpaca_has_what_is_wanted(rig: Rig, fault: str) -> None:
    """Wishes change while the link is down: no symbol is forgotten, none is kept."""
    rig.register("AAPL", "MSFT")
    wanted = {"AAPL", "MSFT"}
    for number in range(2):
        connections = rig.simulator.stats.market_connections
        rig.simulator.play(script([fault]))
        eventually(lambda: rig.broker.status().feeds["iex"].state != "live")
        with rig.bot() as bot:
            for action, symbol in (("register", f"NEW{number}"), ("unregister", "MSFT")):
                message = {"action": action, "symbols": [symbol], "bot_id": "tester"}
                bot.send(rig.channels.registration, message)
        wanted = wanted - {"MSFT"} | {f"NEW{number}"}
        eventually(lambda: rig.broker.status().feeds["iex"].state == "live")
        eventually(
            lambda wanted=wanted: set(rig.broker.symbols) == at_alpaca(rig) == wanted,
            why=f"{set(rig.broker.symbols)}, {at_alpaca(rig)}, {wanted}",
        )
        assert rig.simulator.stats.market_connections > connections
        assert len(rig.simulator.call(rig.simulator.simulator.links, "market")) == 1
