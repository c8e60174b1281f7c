"""What brokers say while nobody of the tests listens is checked, too."""

from __future__ import annotations

import json
import threading

import pytest
import redis
from overhearing import nothing_wrong, overhear
from support import Rig, eventually

from alpaca_broker.embedded import EmbeddedRedis


def test_a_wrong_message_fails_the_test_and_ends_the_thread(
    valkey: EmbeddedRedis, prefix: str
) -> None:
    """With the offending message; whoever asks PUBLISH about registrations does not count us."""
    ear = overhear(valkey.port, prefix)
    with redis.Redis(port=valkey.port) as client:
        wrong = {"type": "price_update", "symbol": "AAPL", "price": "1.5", "epoch": 1}
        client.publish(f"{prefix}price:AAPL", "no JSON")
        eventually(lambda: client.publish(f"{prefix}price:AAPL", json.dumps(wrong)))
        assert client.publish(f"{prefix}broker:registration", "{}") == 0
    eventually(lambda: ear.offences)
    with pytest.raises(AssertionError, match=r"PriceUpdate.*AAPL"):
        nothing_wrong()
    assert not [t for t in threading.enumerate() if t.name == "overhearing"]


def test_a_brokers_messages_are_looked_at(rig: Rig) -> None:
    """Of every kind that it says by itself."""
    rig.register("AAPL")
    eventually(lambda: rig.broker.counters["prices"] > 10)
    rig.broker.stop()
    assert nothing_wrong() > 10
