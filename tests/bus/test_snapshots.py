"""The last prices: how soon they are written in calm, and what they may cost under load."""

from __future__ import annotations

import pytest

from alpaca_broker.bus.snapshots import AT_LATEST_S, CALM_AFTER_S, FIELDS_PER_S, Snapshots


class Redis:
    """Counts the fields that are written."""

    connected = True

    def __init__(self) -> None:
        self.fields = 0

    def send(self, command: bytes) -> None:
        self.fields += (int(command[1 : command.index(b"\r\n")]) - 2) // 2


def noted(symbols: int, rounds: int = 1) -> tuple[Snapshots, Redis]:
    """So many prices of so many symbols, all written long ago but these."""
    redis = Redis()
    snapshots = Snapshots(redis, "price:last")  # type: ignore[arg-type]
    snapshots.write(0.0)
    for _ in range(rounds):
        for number in range(symbols):
            snapshots.note(f"S{number}", b"{}")
    return snapshots, redis


@pytest.mark.parametrize(("symbols", "rounds"), [(1, 1), (10, 1), (10, 50), (1_000, 10)])
def test_in_calm_they_are_written_after_a_tenth_of_a_second(symbols: int, rounds: int) -> None:
    """Not before: a burst costs one write."""
    snapshots, redis = noted(symbols, rounds)
    snapshots.tick(CALM_AFTER_S - 0.01)
    assert redis.fields == 0
    snapshots.tick(CALM_AFTER_S)
    assert redis.fields == symbols


def test_ten_thousand_symbols_under_load_wait_for_newer_prices_but_not_for_ever() -> None:
    """Else writing them would cost more than the prices themselves."""
    snapshots, redis = noted(10_000, 20)
    for tenth in range(1, 8):
        snapshots.tick(tenth / 10)
    assert redis.fields == 0
    snapshots.tick(10_000 / FIELDS_PER_S)
    assert redis.fields == 10_000
    snapshots, redis = noted(100_000)
    snapshots.tick(AT_LATEST_S)
    assert redis.fields == 100_000
