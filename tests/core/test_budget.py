"""The budget of REST calls: a burst, then its pace."""

from __future__ import annotations

from alpaca_broker.core.budget import Budget


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


def test_what_is_urgent_may_overdraw_by_as_much_as_the_burst() -> None:
    """The budget is spent: five looks of two calls more, then its pace."""
    budget = Budget(20, 10, now=0.0)
    budget.spend(10, 0.0)
    for _ in range(5):
        assert budget.wait(2, 0.0, urgent=True) == 0.0
        budget.spend(2, 0.0)
    assert budget.wait(2, 0.0, urgent=True) == 6.0
    assert budget.wait(2, 0.0) == 36.0
