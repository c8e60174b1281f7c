"""A gap in a made-up day of trades: what is published live and what is recovered make the day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, floats, integers, lists, tuples
from msgspec import Struct

from alpaca_broker.core.backfill import (
    EDGE,
    Edges,
    Key,
    Seam,
    bar_key,
    history,
    key_of,
    still_valid,
)
from alpaca_broker.market.backfill import SETTLES_WITHIN_S

DAY = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)


class Print(Struct, frozen=True):
    """A trade."""

    t: datetime
    i: int | None = None
    p: float = 1.0
    s: int = 100


def at(seconds: float, number: int | None = None, price: float = 1.0) -> Print:
    """A trade so many seconds into the day."""
    return Print(DAY + timedelta(seconds=seconds), number, price)


def epoch(seconds: float) -> float:
    """So many seconds into the day."""
    return DAY.timestamp() + seconds


def keyed(trades: Iterable[Print]) -> list[tuple[Key, Print]]:
    """Trades, as REST's answer is taken."""
    return [(key_of(trade), trade) for trade in trades]


def edges() -> Edges:
    """Edges that follow AAPL since the day began."""
    found = Edges()
    found.follow({"AAPL"}, epoch(0))
    return found


@given(
    prints=lists(tuples(floats(0, 100), floats(0, 1)), max_size=300),
    cut=integers(10, 50),
    back=integers(1, 40),
)
def test_live_and_recovered_are_the_day_each_trade_once(
    prints: list[tuple[float, float]], cut: int, back: int
) -> None:
    """Each trade takes up to a second to arrive; what arrives in the outage is lost."""
    day = [at(t, number) for number, (t, _) in enumerate(prints)]
    arrives = sorted((t + delay, n) for n, (t, delay) in enumerate(prints))
    ended = cut + back
    live: list[Print] = []
    remembered = edges()
    seam = None
    for moment, number in arrives:
        if moment >= cut and seam is None:
            seam = remembered.cut()
        if not cut <= moment < ended:
            remembered.note("AAPL", key_of(day[number]))
            live.append(day[number])
    seam = seam or remembered.cut()
    # REST is asked when all that is on its way has arrived.
    found, was_cut = seam.missed("AAPL", keyed(day), (epoch(cut), epoch(ended)), 1000)
    assert not was_cut
    assert Counter(live + found) == Counter(day)
    assert found == sorted(found, key=lambda trade: (trade.t, trade.i))


def test_busy_edges_are_exact_although_they_are_bounded() -> None:
    """Thousands of trades a second on both sides: nothing twice, nothing left out."""
    day = [at(n / 1000, n) for n in range(30_000)]
    remembered = edges()
    for trade in day[:10_000]:
        remembered.note("AAPL", key_of(trade))
    seam = remembered.cut()
    for trade in day[20_000:]:
        remembered.note("AAPL", key_of(trade))
    found, _ = seam.missed("AAPL", keyed(day), (epoch(10), epoch(20)), 100_000)
    assert found == day[10_000:20_000]


def test_the_newest_are_kept_and_the_cut_is_told() -> None:
    """Of ten missed trades three."""
    seam = edges().cut()
    day = [at(10 + n, n) for n in range(10)]
    assert seam.missed("AAPL", keyed(reversed(day)), (epoch(9), epoch(30)), 3) == (day[-3:], True)
    assert seam.missed("AAPL", keyed(day), (epoch(9), epoch(30)), 10) == (day, False)


def test_what_rest_shows_twice_is_one_trade() -> None:
    """Pages may overlap."""
    seam = edges().cut()
    assert seam.missed("AAPL", keyed([at(11, 1), at(11, 1)]), (epoch(10), epoch(20)), 9)[0] == [
        at(11, 1)
    ]


def test_trades_without_ids_are_told_apart_by_what_they_are() -> None:
    """Options: same time, other price."""
    remembered = edges()
    remembered.note("AAPL", key_of(at(9.5, None, 1.0)))
    seam = remembered.cut()
    day = [at(9.5, None, 1.0), at(9.5, None, 2.0)]
    assert seam.missed("AAPL", keyed(day), (epoch(10), epoch(20)), 9)[0] == day[1:]


def test_prints_without_ids_that_are_the_same_are_missed_as_often_as_they_happened() -> None:
    """A sweep fills several times at one price in one microsecond: one was heard, two were not."""
    remembered = edges()
    remembered.note("AAPL", key_of(at(9.5)))
    seam = remembered.cut()
    day = [*[at(9.5)] * 3, *[at(11)] * 2, at(12)]
    found, _ = seam.missed("AAPL", keyed(day), (epoch(10), epoch(20)), 9)
    assert found == day[1:]
    remembered.recovered("AAPL", map(key_of, found))
    assert remembered.cut().missed("AAPL", keyed(day), (epoch(10), epoch(20)), 9)[0] == []


def test_nothing_from_before_a_symbol_was_followed_is_recovered() -> None:
    """It was subscribed half a second before the cut."""
    remembered = Edges()
    remembered.follow({"AAPL"}, epoch(9.5))
    seam = remembered.cut()
    day = [at(9.1, 1), at(9.6, 2), at(10.5, 3)]
    assert seam.missed("AAPL", keyed(day), (epoch(10), epoch(20)), 9)[0] == day[1:]


def test_of_a_broker_before_us_nothing_is_doubled() -> None:
    """It published until the gap began, and its edge is unknown: the gap is taken by its word."""
    seam = edges().cut(ours=False)
    day = [at(9.9, 1), at(10.1, 2), at(19, 3)]
    assert seam.missed("AAPL", keyed(day), (epoch(10), epoch(20)), 9)[0] == day[1:]


def test_an_exchange_whose_clock_is_ahead_is_understood() -> None:
    """Or behind: a delayed feed brings what is a quarter of an hour old."""
    day = [at(n - 900, n) for n in range(60)]
    remembered = edges()
    for trade in day[:10]:
        remembered.note("AAPL", key_of(trade))
    seam = remembered.cut()
    for trade in day[20:30]:
        remembered.note("AAPL", key_of(trade))
    span = (epoch(9.5), epoch(20))
    assert seam.missed("AAPL", keyed(day), span, 99, ahead_s=-900)[0] == day[10:20]
    assert seam.missed("AAPL", keyed(day), span, 99)[0] == []


def test_a_bar_is_missed_when_its_minute_ends_in_the_gap() -> None:
    """Not when it begins there, and not when it was told before."""
    bars = [at(60 * n) for n in range(10)]
    remembered = edges()
    for bar in bars[:3]:  # told at 60, 120 and 180
        remembered.note("AAPL", bar_key(bar))
    seam = remembered.cut()
    remembered.note("AAPL", bar_key(bars[6]))  # told at 420
    found, _ = seam.missed("AAPL", [(bar_key(b), b) for b in bars], (epoch(181), epoch(400)), 99)
    assert found == bars[3:6]


def test_two_gaps_in_a_row_have_seams_of_their_own() -> None:
    """The second begins before the first is recovered."""
    remembered = edges()
    day = [at(n, n) for n in range(60)]
    for trade in day[:10]:
        remembered.note("AAPL", key_of(trade))
    first = remembered.cut()
    for trade in day[20:30]:
        remembered.note("AAPL", key_of(trade))
    second = remembered.cut()
    for trade in day[40:]:
        remembered.note("AAPL", key_of(trade))
    assert first.missed("AAPL", keyed(day), (epoch(9.5), epoch(20)), 99)[0] == day[10:20]
    assert second.missed("AAPL", keyed(day), (epoch(29.5), epoch(40)), 99)[0] == day[30:40]


@given(
    prints=lists(tuples(floats(0, 60), floats(0, 1)), max_size=300),
    cut=integers(10, 20),
    lasted=integers(1, 10),
    between=floats(0, 6),
    asked_between=booleans(),
)
def test_of_two_gaps_close_together_each_trade_is_recovered_once(
    prints: list[tuple[float, float]], cut: int, lasted: int, between: float, asked_between: bool
) -> None:
    """The margin of each reaches into the other; the first may be recovered before the second.

    Not before what happened within its margin has come, though, or is lost: REST is asked later.
    """
    day = [at(t, number) for number, (t, _) in enumerate(prints)]
    first, second = (cut, cut + lasted), (cut + lasted + between, cut + 2 * lasted + between)
    remembered = edges()
    seams: list[Seam] = []
    heard: list[Print] = []

    def recover(n: int) -> None:
        span = ((epoch(first[0]), epoch(first[1])), (epoch(second[0]), epoch(second[1])))[n]
        found, _ = seams[n].missed("AAPL", keyed(day), span, 1000)
        remembered.recovered("AAPL", map(key_of, found))
        heard.extend(found)

    steps = [*((t + delay, n) for n, (t, delay) in enumerate(prints)), (first[0], -1)]
    asked_between &= second[1] - 0.001 >= first[1] + SETTLES_WITHIN_S
    if asked_between:  # all that it asks about has happened by then
        steps.append((second[1] - 0.001, -2))
    for moment, number in sorted([*steps, (second[0], -1)]):
        if number == -1:
            seams.append(remembered.cut())
        elif number == -2:
            day, whole = [t for t in day if t.t.timestamp() <= epoch(moment)], day
            recover(0)
            day = whole
        elif not any(began <= moment < ended for began, ended in (first, second)):
            remembered.note("AAPL", key_of(day[number]))
            heard.append(day[number])
    if not asked_between:
        recover(0)
    recover(1)
    assert Counter(heard) == Counter(day)


def test_of_busy_gaps_close_together_each_trade_is_recovered_once() -> None:
    """Far more than are remembered were recovered where the second gap begins."""
    day = [at(n / 1000, n) for n in range(40_000)]
    remembered = edges()
    for trade in day[:10_000]:
        remembered.note("AAPL", key_of(trade))
    first = remembered.cut()
    for trade in day[20_000:20_100]:
        remembered.note("AAPL", key_of(trade))
    second = remembered.cut()
    found, _ = first.missed("AAPL", keyed(day), (epoch(10), epoch(20)), 100_000)
    remembered.recovered("AAPL", map(key_of, found))
    for trade in day[30_000:]:
        remembered.note("AAPL", key_of(trade))
    more, _ = second.missed("AAPL", keyed(day), (epoch(20.1), epoch(30)), 100_000)
    assert found + more == day[10_000:20_000] + day[20_100:30_000]


def test_what_is_remembered_is_bounded_and_forgotten() -> None:
    """Per symbol, on both sides; and nothing of symbols that nobody follows any more."""
    remembered = edges()
    seam = remembered.cut()
    for n in range(10 * EDGE):
        remembered.note("AAPL", key_of(at(n, n)))
        remembered.note("MSFT", key_of(at(n, n)))
    assert len(seam._after["AAPL"]) == EDGE
    assert len(remembered.recent["AAPL"]) == EDGE
    assert "MSFT" not in seam._after
    remembered.recovered("AAPL", (key_of(at(n, n)) for n in range(10 * EDGE)))
    remembered.recovered("MSFT", [key_of(at(1, 1))])
    assert {s: len(keys) for s, keys in remembered._recovered.items()} == {"AAPL": EDGE}
    remembered.close(seam)
    remembered.follow(set(), epoch(99))
    assert remembered.recent == remembered._recovered == {}


@pytest.mark.parametrize(
    ("feed", "path"),
    [
        ("iex", "/v2/stocks/trades?feed=iex&"),
        ("delayed_sip", "/v2/stocks/trades?feed=sip&"),
        ("crypto/us", "/v1beta3/crypto/us/trades?"),
        ("indicative", "/v1beta1/options/trades?"),
        ("overnight", None),
        ("test", None),
        ("news", None),
    ],
)
def test_where_the_history_of_a_feed_is(feed: str, path: str | None) -> None:
    """Alpaca's REST has none of some feeds."""
    assert history(feed, "trades") == path


def test_what_was_taken_back_is_not_recovered() -> None:
    """REST marks cancelled trades and those that were corrected."""
    assert still_valid(None)
    assert still_valid("corrected")
    assert not still_valid("canceled")
    assert not still_valid("incorrect")
