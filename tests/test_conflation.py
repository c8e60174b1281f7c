"""Conflation: the newest of each symbol, oldest waiter first, and what was left out is counted."""

from __future__ import annotations

from alpaca_broker.market.conflation import Conflation


def kept() -> tuple[Conflation[str], list[tuple[str, float, int]]]:
    """A conflation, and what it hands out."""
    out: list[tuple[str, float, int]] = []
    return Conflation(lambda message, at, skipped: out.append((message, at, skipped))), out


def test_the_newest_of_each_symbol_is_handed_out_with_how_many_it_stands_for() -> None:
    """It takes the place of the one that it replaces, so that none waits for ever."""
    conflation, out = kept()
    for symbol, message, at in [("A", "a1", 1.0), ("B", "b1", 2.0), ("A", "a2", 3.0)]:
        conflation.keep(symbol, message, at)
    conflation.keep("A", "a3", 4.0)
    conflation.release(1)
    assert out == [("a3", 4.0, 2)]
    assert len(conflation) == 1
    conflation.release(10)
    assert out[1:] == [("b1", 2.0, 0)]
    assert conflation.skipped == 2
    assert not conflation
