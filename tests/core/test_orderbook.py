"""The order book: each event once, in its order, whichever of stream and REST tells it first."""

from __future__ import annotations

import random
from collections import defaultdict
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from lives import BEGAN, Life, snapshot

from alpaca_broker.core.messages import OrderUpdate
from alpaca_broker.core.orderbook import HOLD_S, OrderBook
from alpaca_broker.core.orders import OrderEvent
from alpaca_broker.core.snapshot import Snapshot


def book() -> OrderBook:
    """A book that has known everything since `BEGAN`."""
    made = OrderBook()
    made.floor = BEGAN
    return made


def names(events: list[OrderEvent]) -> list[tuple[str, int]]:
    return [(e.update.event, int(e.update.filled_qty)) for e in events]


def settled(known: OrderBook, shown: Snapshot, *coming: OrderEvent) -> list[OrderEvent]:
    """What REST shows and the stream does not bring in time."""
    first = known.reconcile(shown, 0.0, coming)
    return first + known.reconcile(shown, 11.0, coming)


def test_what_the_stream_brings_is_told_as_it_comes() -> None:
    """No event waits, and REST has nothing to add."""
    known, life = book(), Life()
    told = [known.hear(event, 0.0) for event in (life.begin(), life.fill(10), life.fill(20))]
    assert [names(events) for events in told] == [
        [("new", 0)],
        [("partial_fill", 10)],
        [("fill", 30)],
    ]
    assert settled(known, snapshot(life)) == []
    assert known.open_count == 0


def test_what_the_stream_missed_is_told_from_rest_in_order() -> None:
    """An order that came, was filled in three parts and is done while nobody listened."""
    known, life = book(), Life()
    life.begin()
    for _ in range(3):
        life.fill(10, "12.5")
    found = settled(known, snapshot(life))
    assert names(found) == [("new", 0), ("partial_fill", 10), ("partial_fill", 20), ("fill", 30)]
    assert {event.update.source for event in found} == {"reconcile"}
    last = found[-1].update
    assert (last.status, last.execution_qty, last.execution_price) == (
        "filled",
        Decimal(10),
        Decimal("12.5"),
    )
    assert [e.update.filled_avg_price for e in found[1:]] == [Decimal("12.5")] * 3
    assert settled(known, snapshot(life)) == [], "and never again"


def test_what_rest_told_is_not_told_again_by_a_late_stream() -> None:
    """Two seconds were not enough: the late events are the same ones."""
    known, life = book(), Life()
    late = [life.begin(), life.fill(10), life.cancel()]
    assert names(settled(known, snapshot(life))) == [
        ("new", 0),
        ("partial_fill", 10),
        ("canceled", 10),
    ]
    assert [known.hear(event, 12.0) for event in late] == [[], [], []]


def test_rest_waits_two_seconds_for_the_stream() -> None:
    """What REST shows first is given to the stream to tell."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    event = life.fill(30)
    shown = snapshot(life)
    assert known.reconcile(shown, 10.0) == []
    assert known.waits
    assert known.reconcile(shown, 11.9) == []
    assert names(known.hear(event, 11.95)) == [("fill", 30)]
    assert known.reconcile(shown, 13.0) == []
    assert not known.waits


def test_an_old_answer_of_rest_changes_nothing() -> None:
    """REST still shows the order as new: the stream was ahead."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    old = snapshot(life)
    known.hear(life.fill(10), 0.0)
    known.hear(life.cancel(), 0.0)
    assert settled(known, old) == []
    assert known.open_count == 0


def test_a_duplicate_is_told_once() -> None:
    """The same event twice on the stream: with and without an id, and fills by their quantity."""
    known, life = book(), Life()
    new, fill = life.begin(), life.fill(10)
    again = OrderEvent(fill.update, "another key")
    told = [known.hear(event, 0.0) for event in (new, new, fill, again, fill)]
    assert [names(events) for events in told] == [[("new", 0)], [], [("partial_fill", 10)], [], []]


def test_a_fill_waits_for_the_one_before_it() -> None:
    """Two fills in the wrong order come out in the right one, at once."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    first, second, third = life.fill(10), life.fill(10), life.fill(10)
    assert known.hear(third, 0.0) == []
    assert known.hear(second, 0.0) == []
    assert known.has_holes
    assert names(known.hear(first, 0.1)) == [
        ("partial_fill", 10),
        ("partial_fill", 20),
        ("fill", 30),
    ]
    assert not known.has_holes


def test_a_lost_fill_is_found_by_rest_before_the_next_is_told() -> None:
    """The hole in the quantity is seen at once; REST fills it half a second later."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    life.fill(10)
    assert known.hear(life.fill(20), 1.0) == []
    shown = snapshot(life)
    assert known.reconcile(shown, 1.1) == []
    assert names(known.reconcile(shown, 1.7)) == [("partial_fill", 10), ("fill", 30)]


def test_a_fill_is_told_before_the_cancellation_that_overtook_it() -> None:
    """Both wait for the fill before them, and came in the wrong order."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    first, second, canceled = life.fill(10), life.fill(10), life.cancel()
    assert known.hear(canceled, 0.0) == []
    assert known.hear(second, 0.0) == []
    assert names(known.hear(first, 0.1)) == [
        ("partial_fill", 10),
        ("partial_fill", 20),
        ("canceled", 20),
    ]
    assert not known.has_holes


def test_a_fill_of_rest_waits_for_the_one_before_it_too() -> None:
    """REST shows the third before the second: five seconds, then it is told as what it is."""
    for in_time in (True, False):
        known, life = book(), Life()
        known.hear(life.begin(), 0.0)
        known.hear(life.fill(10), 0.0)
        known_until = life.now
        life.fill(10)
        life.fill(10)
        shown = snapshot(life)
        shown.fills = [fill for fill in shown.fills if fill.cum_qty != 20]
        assert [known.reconcile(shown, now) for now in (0.1, 2.5, 5.0)] == [[], [], []]
        if in_time:
            found = known.reconcile(snapshot(life), 5.05) + known.reconcile(snapshot(life), 7.1)
            assert names(found) == [("partial_fill", 20), ("fill", 30)]
        else:
            found = known.reconcile(shown, 5.2)
            assert names(found) == [("fill", 30)]
        lacking = [event.lacks_since for event in found]
        assert lacking == ([None, None] if in_time else [known_until])


def test_a_list_of_orders_that_is_older_than_the_fills_says_no_state() -> None:
    """They are asked for side by side: `new` again, after the fill, would be told twice."""
    known, life = book(), Life()
    life.begin()
    older = dict(life.order)
    life.fill(10)
    canceled = life.cancel()
    assert names(known.hear(canceled, 0.0)) == [("new", 0)]
    shown = snapshot(life)
    shown.orders.clear()
    shown.add_orders([older])
    found = [event for now in (0.1, 0.7) for event in known.reconcile(shown, now)]
    assert names(found) == [("partial_fill", 10), ("canceled", 10)]


def test_the_rejection_of_an_order_that_was_filled_in_part_is_told_with_its_fills() -> None:
    """All of it was missed: what comes after the fills does not wait anew for the stream."""
    known, life = book(), Life()
    life.begin()
    life.fill(10)
    life.event("rejected", "rejected")
    known.deaf_until = life.now + 1
    assert names(known.reconcile(snapshot(life), 0.0)) == [
        ("new", 0),
        ("partial_fill", 10),
        ("rejected", 10),
    ]


def test_what_was_before_the_link_does_not_wait_for_it() -> None:
    """The stream has no replay: two seconds of five would be lost for nothing."""
    known, life = book(), Life()
    life.begin()
    life.fill(10)
    known.deaf_until = life.now - 0.1
    assert names(known.reconcile(snapshot(life), 0.0)) == [("new", 0)]
    assert names(known.reconcile(snapshot(life), 2.0)) == [("partial_fill", 10)]


def test_what_was_lost_is_told_although_an_older_look_comes_between() -> None:
    """A routine look was taken before the hole, and is gone through again and again beside it."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    older, elsewhere = snapshot(life), snapshot(Life("o2", at=BEGAN - 50))
    life.fill(10)
    known.hear(life.fill(20), 1.0)
    assert list(known.lost()) == ["o1"]
    told = []
    for tenth in range(8):
        now = 1.1 + tenth / 10
        told += known.reconcile(older, now)
        told += known.reconcile(snapshot(life), now, closely=True)
        told += known.reconcile(elsewhere, now)
    assert names(told) == [("partial_fill", 10), ("fill", 30)]
    assert known.lost() == {}


def test_a_close_look_says_nothing_of_other_orders() -> None:
    """It asked only for the fills since the hole: of others some may be missing."""
    known, life, other = book(), Life(), Life("o2")
    known.hear(life.begin(), 0.0)
    known.hear(other.begin(), 0.0)
    other.fill(10)
    other.fill(10)
    assert known.reconcile(snapshot(other), 0.0) == []
    assert known.waits
    life.fill(10)
    known.hear(life.fill(20), 1.0)
    for now in (1.1, 1.7, 12.0):
        shown = snapshot(life, other)
        shown.fills = [fill for fill in shown.fills if fill.order_id == "o1" or fill.cum_qty == 20]
        assert {e.update.order_id for e in known.reconcile(shown, now, closely=True)} <= {"o1"}
    assert known.waits, "that is for the routine looks to say"
    assert names(known.reconcile(snapshot(other), 12.0)) == [
        ("partial_fill", 10),
        ("partial_fill", 20),
    ]


def test_an_event_in_a_hole_is_let_go_after_five_seconds() -> None:
    """REST is of no help: the event is told, and the missing one later if it shows."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    known_until = life.now
    lost = life.fill(10)
    known.hear(life.fill(10), 1.0)
    assert known.release(1.0 + HOLD_S - 0.1) == []
    [let_go] = known.release(1.0 + HOLD_S)
    assert names([let_go]) == [("partial_fill", 20)]
    assert let_go.lacks_since == known_until < lost.update.timestamp
    late = known.hear(lost, 9.0)
    assert names(late) == [("partial_fill", 10)]
    assert late[0].is_late, "it must not turn the order's state back"
    assert known.open_updates()[0].filled_qty == 20


def test_the_beginning_of_an_order_is_told_before_its_first_fill() -> None:
    """Its `new` was lost, or comes after the fill: told at once, and only once."""
    known, life = book(), Life(qty=10)
    new, fill = life.begin(), life.fill(10)
    found = known.hear(fill, 0.0)
    assert names(found) == [("new", 0), ("fill", 10)]
    assert found[0].update.source == "reconcile"
    assert found[0].update.execution_qty is None
    assert known.hear(new, 0.0) == []


def test_a_canceled_order_says_its_fills_first() -> None:
    """The cancellation was heard, the fill before it was not."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    life.fill(10)
    assert known.hear(life.cancel(), 0.0) == [], "its quantity shows the hole"
    shown = snapshot(life)
    known.reconcile(shown, 0.0)
    assert names(known.reconcile(shown, 1.0)) == [("partial_fill", 10), ("canceled", 10)]


def test_an_order_from_yesterday_is_looked_up_by_its_id() -> None:
    """It is open in the book and no longer among the open ones."""
    known, old = book(), Life("old", at=BEGAN + 10)
    known.hear(old.begin(), 0.0)
    known.floor = BEGAN + 80_000
    old.now = BEGAN + 90_000
    old.fill(30)
    shown = snapshot(taken_at=old.now)
    assert list(known.unexplained(shown, 0.0)) == ["old"]
    shown.add_orders([old.order])
    shown.add_fills(old.activities)
    assert names(settled(known, shown)) == [("fill", 30)]


def test_the_first_start_tells_nothing() -> None:
    """Whatever is there is known; what follows is told."""
    known, open_one, done = OrderBook(), Life("open"), Life("done", qty=10)
    open_one.begin()
    open_one.fill(10)
    done.begin()
    done.fill(10)
    known.begin(snapshot(open_one, done))
    assert settled(known, snapshot(open_one, done)) == []
    assert [update.order_id for update in known.open_updates()] == ["open"]
    assert names(known.hear(open_one.fill(20), 0.0)) == [("fill", 30)]


def test_a_restored_book_knows_what_was_told() -> None:
    """The journal of another life: neither the stream nor REST tells it again."""
    first, life, lost = book(), Life(), Life("lost", qty=10)
    events = [life.begin(), life.fill(10)]
    told = [event for one in events for event in first.hear(one, 0.0)]
    second = OrderBook()
    for event in told:
        second.restore(event.update, event.key)
    second.floor = BEGAN
    assert [second.hear(event, 0.0) for event in events] == [[], []]
    lost.begin()
    lost.fill(10)
    life.fill(20)
    assert sorted(names(settled(second, snapshot(life, lost)))) == [
        ("fill", 10),
        ("fill", 30),
        ("new", 0),
    ]


def test_a_quantity_without_fills_is_told_as_one_after_ten_seconds() -> None:
    """REST's fills are late: in the end the order's own quantity counts, and nothing is doubled."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    late = [life.fill(10, "10"), life.fill(20, "10")]
    shown = snapshot(life, fills=False)
    assert known.reconcile(shown, 0.0) == []
    assert known.reconcile(shown, 9.9) == []
    found = known.reconcile(shown, 10.1)
    assert names(found) == [("fill", 30)]
    assert found[0].update.execution_qty == Decimal(30)
    assert found[0].update.execution_price == Decimal(10)
    assert [known.hear(event, 11.0) for event in late] == [[], []]
    assert settled(known, snapshot(life)) == []


def test_an_order_that_alpaca_forgot_is_forgotten_when_it_says_so_twice() -> None:
    """A paper account was reset. One 404 alone may be a server that is behind."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    nothing = snapshot(taken_at=BEGAN)
    nothing.looked_up, nothing.gone = {"o1"}, {"o1"}
    assert known.looked_up(nothing, 0.0) == []
    assert known.looked_up(nothing, 59.0) == []
    assert names(known.hear(life.fill(10), 59.5)) == [("partial_fill", 10)], "it is there after all"
    assert known.looked_up(nothing, 60.0) == ["o1"]
    assert known.open_count == 0
    assert names(known.hear(life.fill(10), 61.0)) == [("partial_fill", 20)]
    assert known.open_count == 1


def test_what_was_looked_up_by_id_is_not_asked_again_at_once() -> None:
    """An order that REST does not list among the open ones (`done_for_day`?) and that has not
    changed."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    shown = snapshot(taken_at=BEGAN)
    assert list(known.unexplained(shown, 0.0)) == ["o1"]
    shown.looked_up = {"o1"}
    known.looked_up(shown, 0.0)
    assert not known.unexplained(snapshot(taken_at=BEGAN), 59.0)
    assert list(known.unexplained(snapshot(taken_at=BEGAN), 60.0)) == ["o1"]


def test_nothing_is_told_past_an_event_that_waits() -> None:
    """The fill up to 10 is heard and not yet told: what REST shows after it must wait."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    coming = life.fill(10)
    life.fill(20)
    shown = snapshot(life)
    assert settled(known, shown, coming) == []
    assert names(known.hear(coming, 12.0)) == [("partial_fill", 10)]
    assert names(settled(known, shown)) == [("fill", 30)]


def test_a_beginning_that_rest_shows_waits_for_the_one_that_was_heard() -> None:
    """`held` is heard and not yet told; REST shows `new`, and when the order was submitted."""
    known, life = book(), Life(qty=10)
    coming = life.begin("held")
    life.event("new", "new")
    life.fill(10)
    known.deaf_until = life.now + 1
    assert settled(known, snapshot(life), coming) == []
    assert names(known.hear(coming, 12.0)) == [("held", 0)]
    assert names(settled(known, snapshot(life))) == [("fill", 10)], "`new` is left again"


def test_a_state_that_rest_shows_waits_for_what_was_heard_before_it() -> None:
    """`new` is heard and not yet told; REST shows that the order was rejected after it."""
    known, life = book(), Life()
    coming = life.begin()
    life.event("rejected", "rejected")
    shown = snapshot(life)
    assert settled(known, shown, coming) == []
    assert names(known.hear(coming, 12.0)) == [("new", 0)]
    assert names(settled(known, shown)) == [("rejected", 0)]


def test_a_hole_is_filled_in_order_when_rest_shows_more_than_one_fill() -> None:
    """20 waits for 10, and REST shows 10, 20 and 30."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    life.fill(10)
    assert known.hear(life.fill(10), 0.0) == []
    life.fill(10)
    shown = snapshot(life)
    found = [e for at in (0.1, 0.7, 0.8, 3.0) for e in known.reconcile(shown, at)]
    assert names(found) == [("partial_fill", 10), ("partial_fill", 20), ("fill", 30)]


def test_an_event_in_a_hole_waits_anew_on_a_new_link() -> None:
    """While the link was down nobody could bring what is missing."""
    known, life = book(), Life()
    known.hear(life.begin(), 0.0)
    life.fill(10)
    known.hear(life.fill(10), 1.0)
    known.rest(20.0)
    assert known.release(24.9) == []
    assert names(known.release(25.0)) == [("partial_fill", 20)]


def test_what_happens_during_the_first_snapshot_is_told() -> None:
    """The first start publishes nothing of before. What the stream brings came after, also where
    REST has shown it first."""
    known, fresh, older, gone = OrderBook(), Life("fresh"), Life("older"), Life("gone")
    older.begin()
    older.fill(10)
    gone.begin()
    coming = [fresh.begin(), fresh.fill(30), older.fill(10), gone.cancel()]
    known.begin(snapshot(fresh, older, gone))
    assert settled(known, snapshot(fresh, older, gone)) == []
    told = [event for one in coming for event in known.hear(one, 0.0)]
    assert names(told) == [("new", 0), ("fill", 30), ("partial_fill", 20), ("canceled", 0)]
    assert [known.hear(event, 0.0) for event in coming] == [[], [], [], []], "but once"
    assert [update.order_id for update in known.open_updates()] == ["older"]


def test_closed_is_news_whatever_the_times_say_and_only_once() -> None:
    """REST's `updated_at` of the cancellation lies before the last event's own time."""
    known, life = book(), Life()
    first = known.hear(life.begin(), 0.0)
    life.cancel()
    restarted = OrderBook()
    for event in first:
        event.update.timestamp = life.now + 10
        restarted.restore(event.update, event.key)
    restarted.floor = BEGAN
    assert names(settled(restarted, snapshot(life))) == [("canceled", 0)]
    assert restarted.open_count == 0
    assert settled(restarted, snapshot(life)) == []


def test_all_was_filled_and_then_it_is_said_to_be_all() -> None:
    """A `fill` at the quantity of the last `partial_fill`: told, and the order is closed."""
    for by_stream in (True, False):
        known, life = book(), Life(qty=10)
        known.hear(life.begin(), 0.0)
        last = life.fill(10)
        last.update.event, last.update.status = "partial_fill", "partially_filled"
        known.hear(last, 0.0)
        assert known.open_count == 1
        again = life.event("fill", "filled", price="10", qty="10")
        told = known.hear(again, 0.0) if by_stream else settled(known, snapshot(life))
        assert [event.update.status for event in told] == ["filled"]
        assert told[0].key != last.key, "the journal must not take it for the same"
        assert known.open_count == 0


def test_rounded_quantities_are_no_hole() -> None:
    """Thirds of a share: the sum of what is said differs in the ninth digit."""
    known, life = book(), Life(qty=1)
    known.hear(life.begin(), 0.0)
    life.order |= {"filled_qty": "0.333333333"}
    known.hear(life.event("partial_fill", "partially_filled", qty="0.333333333"), 0.0)
    life.order |= {"filled_qty": "0.666666667"}
    event = life.event("partial_fill", "partially_filled", qty="0.333333333")
    assert len(known.hear(event, 0.0)) == 1


def test_after_a_bust_no_quantity_is_made_up() -> None:
    """REST may still show the quantity that was busted."""
    known, life = book(), Life(qty=30)
    known.hear(life.begin(), 0.0)
    known.hear(life.fill(10), 0.0)
    shown = dict(life.order)
    life.order |= {"filled_qty": "0", "status": "new"}
    known.hear(life.event("trade_bust", "new", execution_id="b1", qty="-10"), 0.0)
    life.order |= {"filled_qty": shown["filled_qty"], "status": shown["status"]}
    assert settled(known, snapshot(life)) == []


def test_a_bust_and_the_fill_after_it_are_told() -> None:
    """The same quantity is filled twice, since the first time did not count."""
    known, life = book(), Life(qty=10)
    known.hear(life.begin(), 0.0)
    known.hear(life.fill(10), 0.0)
    life.order |= {"filled_qty": "0", "status": "new"}
    bust = life.event("trade_bust", "new", execution_id="b1", qty="-10", price="10")
    assert names(known.hear(bust, 0.0)) == [("trade_bust", 0)]
    assert names(known.hear(life.fill(10), 0.0)) == [("fill", 10)]


def test_a_bust_of_fills_that_were_told_as_one_leaves_none_of_the_next_ones_out() -> None:
    """REST told 30 as one fill; 20 of it are busted, and filled again in two parts."""
    known, life = book(), Life(qty=30)
    known.hear(life.begin(), 0.0)
    life.fill(10)
    life.fill(20)
    assert names(settled(known, snapshot(life, fills=False))) == [("fill", 30)]
    life.order |= {"filled_qty": "10", "status": "partially_filled"}
    bust = life.event("trade_bust", "partially_filled", execution_id="b1", qty="-20", price="10")
    assert names(known.hear(bust, 20.0)) == [("trade_bust", 10)]
    parts = [life.fill(5), life.fill(15)]
    told = [known.hear(part, 20.0) for part in parts]
    assert [names(one) for one in told] == [[("partial_fill", 15)], [("fill", 30)]]
    assert settled(known, snapshot(life)) == []


def test_a_fill_after_a_bust_is_told_by_rest_where_the_stream_did_not_bring_it() -> None:
    """The same quantity as before the bust, later than it."""
    known, life = book(), Life(qty=10)
    known.hear(life.begin(), 0.0)
    known.hear(life.fill(10), 0.0)
    life.order |= {"filled_qty": "0", "status": "new"}
    known.hear(life.event("trade_bust", "new", execution_id="b1", qty="-10", price="10"), 0.0)
    life.fill(10)
    assert names(settled(known, snapshot(life))) == [("fill", 10)]
    assert settled(known, snapshot(life)) == []


def test_an_old_order_that_nobody_knew_is_told_from_now_on() -> None:
    """Submitted long before us: no beginning is made up, and no hole is seen."""
    known, life = book(), Life(at=BEGAN - 5_000)
    life.begin()
    life.fill(10)
    assert names(known.hear(life.fill(10), 0.0)) == [("partial_fill", 20)]


class Flow:
    """Many orders' lives in one stream, for the property below."""

    def __init__(self, chance: random.Random) -> None:
        self.lives = [Life(f"o{n}", qty=chance.choice([10, 30])) for n in range(6)]
        waiting = {
            life.order["id"]: [life.begin]
            + [lambda life=life: life.fill(10)] * chance.choice([0, 1, 1, 3])
            for life in self.lives
        }
        self.events: list[OrderEvent] = []
        at = BEGAN + 1_000
        while any(waiting.values()):
            life = chance.choice([li for li in self.lives if waiting[li.order["id"]]])
            life.now = at = max(at, life.now) + 0.1
            steps = waiting[life.order["id"]]
            step = steps.pop(0)
            if int(life.order["filled_qty"]) < int(life.order["qty"]):
                self.events.append(step())
            if not steps and life.order["status"] != "filled" and chance.random() < 0.5:
                self.events.append(life.cancel())


@given(st.integers(min_value=0, max_value=2**32))
def test_any_stream_and_rest_together_tell_everything_once_and_in_order(seed: int) -> None:
    """Events lost, doubled, swapped and late; REST in between, sometimes from before."""
    chance = random.Random(seed)
    flow, known = Flow(chance), book()
    wire: list[OrderEvent] = []
    for event in flow.events:
        fate = chance.random()
        if fate < 0.7:
            wire.append(event)
        if fate < 0.1:
            wire.append(event)
        elif 0.7 <= fate < 0.85:  # late, or swapped with what follows
            wire.insert(max(0, len(wire) - chance.randrange(3)), event)
    told: list[OrderEvent] = []
    now = 0.0
    for event in wire:
        now += chance.choice([0.0, 0.1, 1.0])
        told += known.hear(event, now)
        told += known.release(now)
    for _ in range(4):
        now += 6.0
        told += known.release(now)
        told += known.reconcile(snapshot(*flow.lives), now)
    expected: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for event in flow.events:
        expected[event.update.order_id] += names([event])
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for event in told:
        found[event.update.order_id] += names([event])
    for order_id, events in expected.items():
        assert sorted(found[order_id]) == sorted(events), f"{order_id}: once each"
        on_time = [e for e in told if e.update.order_id == order_id and not e.is_late]
        quantities = [event.update.filled_qty for event in on_time]
        assert quantities == sorted(quantities), f"{order_id}: in order"
    updates: list[OrderUpdate] = known.open_updates()
    assert all(u.status not in ("filled", "canceled") for u in updates)
