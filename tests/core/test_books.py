"""Order books as they stand, made of what Alpaca has sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from alpaca_broker.core import books as module
from alpaca_broker.core.books import Books
from alpaca_broker.core.market_data import Level, Orderbook

AT = datetime(2026, 1, 5, 15, tzinfo=UTC)


def change(
    bids: list[tuple[float, float]],
    asks: Sequence[tuple[float, float]] = (),
    **more: bool,
) -> Orderbook:
    """A second later than the one before it."""
    levels = [[Level(p, s) for p, s in side] for side in (bids, asks)]
    return Orderbook("BTC/USD", AT + timedelta(seconds=len(bids)), *levels, **more)


def test_a_book_is_what_was_sent_whole_and_all_changes_since() -> None:
    """The best prices first; size 0 takes a level away; the time is that of the last change."""
    books = Books()
    books.take(change([(10, 1), (12, 2)], [(14, 1), (13, 4)], r=True))
    books.take(change([(12, 0), (11, 5), (10, 3)], [(15, 2), (14, 0)]))
    assert books.whole("BTC/USD") == Orderbook(
        *("BTC/USD", AT + timedelta(seconds=3)),
        [Level(11, 5), Level(10, 3)],
        [Level(13, 4), Level(15, 2)],
        True,
    )
    books.take(change([(9, 1)], r=True))
    assert books.whole("BTC/USD") == change([(9, 1)], r=True)


def test_of_a_book_whose_beginning_is_unknown_nothing_whole_is_told() -> None:
    """Neither of one that only changes came of, nor of one that was forgotten."""
    books = Books()
    books.take(change([(10, 1)]))
    assert books.whole("BTC/USD") is None
    books.take(change([(10, 1)], r=True))
    books.forget(books.symbols)
    books.take(change([(11, 1)]))
    assert books.whole("BTC/USD") is None


def test_books_are_bounded() -> None:
    """One with too many levels is none any more; of too many books the last ones are not kept."""
    books = Books()
    for number in range(module.MOST_BOOKS + 1):
        books.take(Orderbook(f"S{number}/USD", AT, [Level(1, 1)], [], True))
    assert len(books.symbols) == module.MOST_BOOKS
    books.take(Orderbook("S0/USD", AT, [Level(n, 1) for n in range(module.MOST_LEVELS)]))
    assert books.whole("S0/USD") is not None
    books.take(Orderbook("S0/USD", AT, [Level(module.MOST_LEVELS, 1)]))
    assert books.whole("S0/USD") is None
