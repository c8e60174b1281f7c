"""Patience: capped, jittered, earned, and without an end."""

from __future__ import annotations

from alpaca_broker.core.backoff import Patience


def longest(low: float, high: float) -> float:
    """Jitter that always takes the longest wait."""
    return high


def test_delays_double_up_to_the_ceiling() -> None:
    """And stay there, at attempt 10,000, too."""
    patience = Patience(longest, first=0.5, ceiling=60.0)
    first = [patience.after(0.0) for _ in range(9)]
    assert first == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert {patience.after(0.0) for _ in range(10_000)} == {60.0}


def test_only_a_link_that_stayed_live_is_forgiven() -> None:
    """A handshake forgives nothing; thirty seconds of life forgive all."""
    patience = Patience(longest, first=0.5, ceiling=60.0, settled=30.0)
    for _ in range(5):
        patience.after(0.0)
    assert patience.after(29.9) == 16
    assert patience.after(30.0) == 0.5


def test_a_server_that_accepts_and_then_refuses_is_asked_seldom() -> None:
    """At most 15 attempts in the first five minutes, even with the shortest jitter."""
    patience = Patience(lambda low, high: low)
    elapsed, attempts = 0.0, 0
    while elapsed < 300:
        attempts += 1
        elapsed += patience.after(0.1)
    assert attempts <= 15


def test_a_floor_holds_from_the_first_attempt() -> None:
    """406 for 90 seconds is at most twelve attempts."""
    patience = Patience(lambda low, high: low)
    elapsed, attempts = 0.0, 0
    while elapsed < 90:
        attempts += 1
        elapsed += patience.after(0.0, at_least=8.0)
    assert attempts <= 12
