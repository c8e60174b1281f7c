"""The queue between the listening thread and a bot: bounded, and honest about what it left out."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from alpaca_broker.client.inbox import MOST_GAPS, Inbox, Portion, conflated
from alpaca_broker.client.updates import Gap, PriceUpdate


def price(symbol: str, seq: int, skipped: int = 0) -> PriceUpdate:
    """A price with only what the queue looks at."""
    return PriceUpdate(symbol, 1.0, 0.0, seq=seq, skipped=skipped)


def put(inbox: Inbox, *updates: PriceUpdate) -> None:
    """What the listening thread does."""
    inbox.pending += updates
    inbox.flush()


def test_what_fits_is_untouched() -> None:
    """A queue that is not full keeps every price, in order."""
    inbox = Inbox(10, conflates=True)
    put(inbox, *(price("A", n) for n in range(10)))
    assert [u.seq for u in inbox.take(99) if isinstance(u, PriceUpdate)] == list(range(10))
    assert (inbox.delivered, inbox.conflated, len(inbox)) == (10, 0, 0)


def test_a_full_queue_shrinks_to_the_newest_of_each_symbol() -> None:
    """Older prices give way; how many is told with the newest, whatever was left out before."""
    inbox = Inbox(4, conflates=True)
    first = price("A", 2, skipped=3)
    put(inbox, price("A", 1), first, price("B", 1), price("A", 3), price("A", 4))
    b, a = inbox.take(99)
    assert isinstance(a, PriceUpdate)
    assert isinstance(b, PriceUpdate)
    assert (a.symbol, a.seq, a.skipped) == ("A", 4, 6)
    assert (b.symbol, b.skipped) == ("B", 0)
    assert inbox.conflated == 3
    assert first.skipped == 3  # it may wait in another queue


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 2)), max_size=80))
def test_nothing_is_left_out_untold(puts: list[tuple[str, int]]) -> None:
    """For each symbol: delivered and skipped add up, and the last delivered is the last put."""
    inbox, numbers, seen = Inbox(5, conflates=True), dict.fromkeys("ABC", 0), []
    for symbol, takes in puts:
        numbers[symbol] += 1
        put(inbox, price(symbol, numbers[symbol]))
        for _ in range(takes):
            seen += inbox.take(1)
    seen += inbox.take(99)
    updates = [item for item in seen if isinstance(item, PriceUpdate)]
    for symbol, last in numbers.items():
        mine = [u for u in updates if u.symbol == symbol]
        assert [u.seq for u in mine] == sorted(u.seq for u in mine)
        assert len(mine) + sum(u.skipped for u in mine) == last
        assert not last or mine[-1].seq == last


def test_many_symbols_do_not_make_it_slow() -> None:
    """More symbols than places: the newest of each is kept, and nothing is shrunk at every put."""
    inbox = Inbox(10, conflates=True)
    for n in range(50):
        put(inbox, *(price(f"S{s}", n) for s in range(100)))
    assert len(inbox) <= 300
    assert inbox.conflated + len(inbox) == 5_000


def test_gaps_outlive_prices_but_are_bounded() -> None:
    """A slow bot still hears of its gaps, the newest of them."""
    gaps = [Gap(reason="reconnect", missed=n) for n in range(MOST_GAPS + 5)]
    kept, dropped = conflated([*gaps, price("A", 1), price("A", 2)])
    assert dropped == 6
    assert kept[0] is gaps[5]
    assert len(kept) == MOST_GAPS + 1


def test_room_is_made_known_once_half_is_taken() -> None:
    """Whoever waits for room is called when there is plenty, not at every step."""
    calls: list[int] = []
    inbox = Inbox(10, conflates=False)
    inbox.on_room = lambda: calls.append(len(inbox))
    put(inbox, *(price("A", n) for n in range(10)))
    assert inbox.room == 0
    inbox.wants_room = True
    for _ in range(10):
        inbox.take(1)
    assert calls == [5]


def test_the_bell_rings_when_there_is_something_again() -> None:
    """Once for each time that it was empty, and when it is closed."""
    rings: list[int] = []
    inbox = Inbox(10, conflates=True)
    inbox.bell = lambda: rings.append(len(inbox))
    put(inbox, price("A", 1))
    put(inbox, price("A", 2))
    inbox.take(9)
    put(inbox, price("A", 3))
    inbox.close()
    assert rings == [1, 1, 1]


def test_a_slow_taker_is_given_one_at_a_time() -> None:
    """What it has not taken can still be replaced by what is newer."""
    inbox, portion = Inbox(10_000, conflates=True), Portion()
    put(inbox, *(price("A", n) for n in range(6_000)))
    sizes = [len(portion.take(inbox))]
    for _ in range(6):
        threading.Event().wait(0.025)
        sizes.append(len(portion.take(inbox)))
    assert sizes[0] > 100
    assert sizes[-1] == 1


def test_what_is_held_is_next_until_it_is_given() -> None:
    """A bot that was broken off before it had them gets them with the next call, once."""
    inbox, portion = Inbox(10, conflates=True), Portion()
    put(inbox, price("A", 1), price("A", 2), price("A", 3))
    assert inbox.hold(2) == [price("A", 1), price("A", 2)]
    assert portion.hold(inbox) == inbox.hold_own(99) == inbox.in_hand
    assert [u.seq for u in inbox.take(1) if isinstance(u, PriceUpdate)] == [1, 2]
    assert portion.take(inbox) == [price("A", 3)]
    assert (inbox.in_hand, inbox.delivered, portion.take(inbox)) == ([], 3, [])


def test_what_is_put_and_taken_in_one_is_bounded_all_the_same() -> None:
    """It comes after what waits already, and is no more than would wait."""
    inbox = Inbox(4, conflates=True)
    inbox.pending += [price("A", 1), price("B", 1)]
    assert inbox.hold_own(99) == [price("A", 1), price("B", 1)]
    inbox.in_hand = []
    inbox.pending += [price("A", n) for n in range(2, 8)]
    assert inbox.hold_own(99) == [price("A", 7, skipped=5)]
    inbox.in_hand = []
    put(inbox, price("A", 8))
    inbox.pending.append(price("A", 9))
    assert inbox.hold_own(99) == [price("A", 8), price("A", 9)]
    assert inbox.pending == []
