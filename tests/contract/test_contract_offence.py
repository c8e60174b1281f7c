"""The check that every message which a bot of the tests hears has to pass."""

from __future__ import annotations

import json

import pytest
from contract_schema import offence
from support import Bot

from alpaca_broker.embedded import EmbeddedRedis

GAP = {
    "type": "gap",
    "feed": "iex",
    "from": 1.0,
    "to": 2.0,
    "symbols": ["AAPL"],
    "reason": "x",
    "recovered": False,
    "again": False,
    "epoch": 1,
}


def test_a_good_message_passes() -> None:
    """And one of a test's own, without an epoch, is not judged."""
    assert offence(GAP) is None
    assert offence({"type": "price_update", "symbol": 7}) is None
    assert offence({"hello": "you"}) is None


@pytest.mark.parametrize("change", [{"from": "1"}, {"symbols": "AAPL"}, {"recovered": None}])
def test_a_wrong_field_is_an_offence(change: dict[str, object]) -> None:
    """Whatever is retyped."""
    assert offence(GAP | change)


@pytest.mark.parametrize("name", ["from", "symbols", "reason"])
def test_a_missing_field_is_an_offence(name: str) -> None:
    """Whatever is dropped."""
    assert offence({k: v for k, v in GAP.items() if k != name})


def test_a_bot_of_the_tests_notices(valkey: EmbeddedRedis, prefix: str) -> None:
    """A message that breaks the contract fails the test that hears it."""
    channel = f"{prefix}price:X"
    with Bot(valkey.port, channel) as bot:
        bot.send(channel, json.dumps({"type": "price_update", "epoch": 1}).encode())
        with pytest.raises(AssertionError, match="price:X"):
            bot.next()
