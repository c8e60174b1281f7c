"""The budget of REST calls: a burst, then its pace."""

from __future__ import annotations

from alpaca_broker.core.budget import Budget, PerMinute


def test_a_burst_is_free_and_then_the_pace_holds() -> None:
    """Twenty a minute are one every three seconds."""
    budget = Budget(20, 10, now=0.0)
    assert budget.wait(2, 0.0) == 0.0
    budget.spend(10, 0.0)
    assert budget.wait(1, 0.0) == 3.0
    assert budget.wait(2, 3.0) == 3.0
    assert budget.wait(2, 6.0) == 0.0


def test_what_was_overdrawn_is_waited_for_but_not_for_minutes() -> None:
    """After a reconnect that took a hundred calls the next look has its turn in 36 s."""
    budget = Budget(20, 10, now=0.0)
    budget.spend(15, 0.0)
    assert budget.wait(2, 0.0) == 21.0
    budget.spend(100, 0.0)
    assert budget.wait(2, 0.0) == 36.0


def test_it_never_waits_for_more_than_the_burst() -> None:
    """A question for more than there can be is answered when there is all there can be."""
    budget = Budget(20, 4, now=0.0)
    budget.spend(4, 0.0)
    assert budget.wait(100, 0.0) == 12.0
    assert budget.wait(100, 1_000.0) == 0.0


def test_a_minute_holds_so_many_and_each_is_forgotten_by_itself() -> None:
    """Any minute, not one by the clock; what was not made does not count."""
    calls = PerMinute(2)
    assert [calls.take(at) for at in (0.0, 40.0, 59.9)] == [True, True, False]
    assert [calls.take(at) for at in (60.0, 99.9, 100.0)] == [True, False, True]


def test_looking_whether_there_is_room_takes_none() -> None:
    """Who looks first and calls later has spent nothing until then."""
    calls = PerMinute(1)
    assert calls.has_room(0.0)
    assert calls.has_room(0.0)
    calls.spend(0.0)
    assert not calls.has_room(59.0)
    assert calls.has_room(60.0)


def test_what_is_urgent_may_overdraw_by_as_much_as_the_burst() -> None:
    """The budget is spent: five looks of two calls more, then its pace."""
    budget = Budget(20, 10, now=0.0)
    budget.spend(10, 0.0)
    for _ in range(5):
        assert budget.wait(2, 0.0, urgent=True) == 0.0
        budget.spend(2, 0.0)
    assert budget.wait(2, 0.0, urgent=True) == 6.0
    assert budget.wait(2, 0.0) == 36.0
