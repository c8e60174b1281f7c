"""Patience: capped, jittered, earned, and without an end."""

from __future__ import annotations

import pytest

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


def attempts_within(seconds: float, *, slowly: bool, high: bool = False) -> list[float]:
    """When a link is tried, against a server that refuses for ever."""
    patience = Patience(longest if high else lambda low, high: low)
    at, attempts = 0.0, []
    while at < seconds:
        attempts.append(at)
        at += patience.after(0.1, slowly=slowly)
    return attempts


@pytest.mark.parametrize("slowly", [False, True])
def test_a_server_that_accepts_and_then_refuses_is_asked_seldom(slowly: bool) -> None:
    """At most 15 attempts in the first five minutes, even with the shortest jitter."""
    assert len(attempts_within(300, slowly=slowly)) <= 15


@pytest.mark.parametrize("high", [False, True])
def test_a_slot_that_is_taken_for_90_s_is_asked_for_seldom_and_had_soon(high: bool) -> None:
    """At most twelve attempts meanwhile; once it is free, the next one comes within 13 s."""
    attempts = attempts_within(600, slowly=True, high=high)
    assert sum(at <= 90 for at in attempts) <= 12
    assert min(at for at in attempts if at > 90) - 90 <= 13


@pytest.mark.parametrize("slowly", [False, True])
def test_attempt_10_000_still_waits(slowly: bool) -> None:
    """And no longer than the ceiling."""
    patience = Patience(lambda low, high: low)
    waits = [patience.after(0.0, slowly=slowly) for _ in range(10_000)]
    assert waits[-1] == 45.0
    assert waits == sorted(waits)


def test_a_quick_ladder_does_not_use_up_the_slow_one() -> None:
    """A cut, then 406: the first refusals are met with the steady patience, whatever was before."""
    patience = Patience(longest)
    for _ in range(20):
        patience.after(0.0)
    assert patience.after(0.0, slowly=True) == 13.0
