"""What a key may ask of Alpaca's REST: one count for all who use it."""

from __future__ import annotations

from threading import Thread

from alpaca_broker.alpaca.quota import PAUSE_AFTER_429_S, Quota, Quotas


def test_within_any_minute_some_calls_are_left_to_others() -> None:
    """180 of 200 for orders; what can wait stops at 140, and orders go on."""
    quota = Quota()
    waits = [quota.take(at, 60) for at in range(30) for _ in range(5)]
    assert waits.count(0.0) == 140
    assert quota.take(29.0, 60) == 31.0, "until the first call is a minute old"
    assert [quota.take(30.0, 20) for _ in range(41)] == [0.0] * 40 + [30.0]
    assert quota.take(60.0, 20) == 0.0


def test_what_alpaca_says_is_left_holds_for_all_who_use_the_key() -> None:
    """Bots spent the rest: what can wait waits from 60 on, orders from 20 on, until the reset."""
    quota = Quota()
    quota.answered(0.0, granted=200, remaining=61, resets_in=40.0)
    assert quota.take(1.0, 60) == 0.0
    assert quota.take(1.0, 60) == 39.0
    quota.answered(2.0, granted=200, remaining=20, resets_in=38.0)
    assert quota.take(2.0, 20) == 38.0
    assert quota.take(40.0, 60) == 0.0


def test_too_many_requests_are_waited_out_by_everyone() -> None:
    """Until the reset where nothing is left, else for a moment."""
    quota = Quota()
    quota.refused(0.0)
    assert quota.take(0.0, 20) == PAUSE_AFTER_429_S
    assert quota.take(PAUSE_AFTER_429_S, 20) == 0.0
    quota.answered(10.0, granted=200, remaining=0, resets_in=25.0)
    quota.refused(10.0)
    assert quota.take(10.0, 0) == 25.0
    quota.answered(35.0, granted=None, remaining=None, resets_in=None)
    assert quota.take(35.0, 20) == 0.0


def test_a_plan_with_more_calls_is_used_and_a_small_one_is_not_given_away() -> None:
    """10,000 a minute of a paid plan; of ten calls half are left, not all."""
    large, small = Quota(), Quota()
    large.answered(0.0, granted=10_000, remaining=9_999, resets_in=60.0)
    assert [large.take(0.0, 20) for _ in range(1_000)] == [0.0] * 1_000
    small.answered(0.0, granted=10, remaining=None, resets_in=None)
    assert [small.take(0.0, 60) for _ in range(6)].count(0.0) == 5


def test_nonsense_of_a_clock_is_waited_for_a_minute_at_most() -> None:
    """A reset in a year, or in the past."""
    quota = Quota()
    quota.answered(0.0, granted=200, remaining=0, resets_in=3e7)
    assert quota.take(0.0, 20) == 60.0
    quota.answered(60.0, granted=200, remaining=0, resets_in=-3e7)
    assert quota.take(60.0, 20) == 0.0


def test_threads_share_one_count() -> None:
    """Eight of them, a thousand calls each: not one more than there are."""
    quotas = Quotas()
    granted: list[int] = []

    def work() -> None:
        quota = quotas.of("PK", "https://api")
        granted.append(sum(quota.take(0.0, 20) == 0.0 for _ in range(1_000)))

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 180
    assert quotas.of("PK", "https://data").take(0.0, 20) == 0.0
