"""The lease: who may take it and when, and whose it is."""

from __future__ import annotations

import pytest

from alpaca_broker.core.lease import (
    ABSENT_FOR_S,
    BREAK_S,
    LASTS_S,
    LOOK_EVERY_S,
    RENEW_EVERY_S,
    Absence,
    Deployment,
    Holder,
    Link,
    deployment,
    fingerprints,
    holder,
    is_another,
    link_of,
    may_take,
)
from alpaca_broker.core.messages import encode


def test_a_killed_leader_is_replaced_within_three_seconds() -> None:
    """The lease runs out, is seen absent for long enough, and a look more."""
    assert LASTS_S + ABSENT_FOR_S + 2 * LOOK_EVERY_S < 2.8


def test_a_leader_that_is_well_has_several_tries_before_another_may_begin() -> None:
    """One lost renewal closes nothing; one that Redis forgot is back before the absence counts."""
    assert RENEW_EVERY_S * 3 < LASTS_S
    assert RENEW_EVERY_S * 2 < ABSENT_FOR_S
    assert LOOK_EVERY_S < BREAK_S < ABSENT_FOR_S


def absent_at(*looks: float) -> list[bool]:
    """What looks at these times say of a lease that nobody holds."""
    absence = Absence()
    return [absence.saw(present=False, asked=now, now=now) for now in looks]


def test_absence_counts_from_the_first_look_that_saw_it() -> None:
    """Not from when it began, which nobody saw."""
    assert absent_at(0.0, 0.4, 0.8, 0.9) == [False, False, False, False]
    assert absent_at(0.0, 0.4, 0.8, 1.0) == [False, False, False, True]


def test_a_break_in_the_looking_starts_the_absence_over() -> None:
    """Redis was frozen, or we were: in between anything may have expired."""
    assert absent_at(0.0, 0.4, 5.0) == [False, False, False]
    assert absent_at(0.0, 0.4, 5.0, 5.4, 5.8, 6.0) == [*[False] * 5, True]


def absent_over(took: float, looks: int) -> float | None:
    """After how long a lease counts as absent, where each look takes so long; None: never."""
    absence, now = Absence(), 0.0
    first: float | None = None
    for _ in range(looks):
        asked, now = now + LOOK_EVERY_S, now + LOOK_EVERY_S + took
        first = now if first is None else first
        if absence.saw(present=False, asked=asked, now=now):
            return now - first
    return None


@pytest.mark.parametrize("took", [0.0, 0.3, 0.45, 0.6, 1.0, 1.4])
def test_over_a_slow_redis_absence_takes_longer_and_counts(took: float) -> None:
    """Time enough for the leader's own question, which takes as long, and one more."""
    found = absent_over(took, looks=20)
    assert found is not None
    assert ABSENT_FOR_S + 2 * took <= found + 1e-9 <= ABSENT_FOR_S + 3 * took + 2 * LOOK_EVERY_S


def test_over_a_redis_slower_than_the_lease_nobody_takes_it() -> None:
    """No renewal would be known in time."""
    assert absent_over(LASTS_S + 0.1, looks=1_000) is None


def test_a_question_that_a_frozen_redis_kept_starts_the_absence_over() -> None:
    """Asked before the freeze, answered on waking: who is well needs its second from then on."""
    absence = Absence()
    assert not absence.saw(present=False, asked=0.0, now=0.0)
    assert not absence.saw(present=False, asked=0.1, now=5.0)
    assert not absence.saw(present=False, asked=5.1, now=5.1)
    assert not absence.saw(present=False, asked=5.5, now=5.5)
    assert not absence.saw(present=False, asked=5.9, now=5.9)
    assert absence.saw(present=False, asked=6.1, now=6.1)


def test_a_freeze_shorter_than_the_lease_leaves_the_leader_its_time() -> None:
    """It is not counted as if Redis had answered all the while."""
    absence = Absence()
    assert not absence.saw(present=False, asked=0.0, now=0.0)
    assert not absence.saw(present=False, asked=0.1, now=1.4)
    assert not absence.saw(present=False, asked=1.9, now=1.9)
    assert not absence.saw(present=False, asked=2.3, now=2.3)


@pytest.mark.parametrize(
    ("info", "found"),
    [
        (b"id=7 addr=10.0.0.1:5000 laddr=10.0.0.2:6379 fd=8 name=x", Link(7, "10.0.0.1:5000")),
        (b"id=7 addr=[::1]:5000 laddr=[::1]:6379 fd=8 name=", Link(7, "[::1]:5000")),
        (b"id=7 addr=/run/redis.sock:0 laddr=/run/redis.sock:0", Link()),
        (b"id=x addr=10.0.0.1:5000", Link()),
        (b"id=7", Link()),
        (b"", Link()),
        (ValueError("refused"), Link()),
        (7, Link()),
    ],
)
def test_a_connection_is_told_by_number_and_address(info: object, found: Link) -> None:
    """Where either is missing, or is the same for all, it is not told at all."""
    assert link_of(info) == found


def test_a_lease_that_was_seen_in_between_was_not_absent() -> None:
    """One look that sees it is enough."""
    absence = Absence()

    def seen(*, present: bool, now: float) -> bool:
        return absence.saw(present=present, asked=now, now=now)

    assert not seen(present=False, now=0.0)
    assert not seen(present=True, now=0.4)
    assert not seen(present=False, now=0.8)
    assert not seen(present=False, now=1.2)
    assert not seen(present=False, now=1.6)
    assert seen(present=False, now=1.8)


@pytest.mark.parametrize(
    ("held", "absent", "ever_led", "may"),
    [
        (Holder(epoch=1, leader="a"), False, True, False),
        (Holder(epoch=1, leader="a", left=True), False, True, True),
        (None, False, True, False),
        (None, True, True, True),
        (None, False, False, True),
    ],
)
def test_when_it_may_be_taken(held: Holder | None, absent: bool, ever_led: bool, may: bool) -> None:
    """At once after an orderly end and where nobody ever led; else after its absence."""
    assert may_take(held, absent=absent, ever_led=ever_led) is may


RUBBISH = [None, b"", b"\xff", b"[" * 100_000, b"{}", b'{"epoch":"x"}', b"1"]


@pytest.mark.parametrize("value", RUBBISH)
def test_what_is_no_lease_holds_none(value: bytes | None) -> None:
    """Nobody of ours wrote that."""
    assert holder(value) is None
    assert deployment(value) in (None, Deployment())


def test_a_value_is_read_as_it_was_written_and_bounded() -> None:
    """Whoever writes a million connections does not make us cut them all."""
    written = Holder(epoch=7, leader="a:1:b", connections=[3, 4], keys=["k"])
    assert holder(encode(written)) == written
    flood = holder(encode(Holder(leader="a", connections=list(range(1_000)))))
    assert flood is not None
    assert len(flood.connections) == 100


def test_another_deployment_shares_no_key_with_us() -> None:
    """One key in common is enough to be a copy; whose keys are unknown is no stranger."""
    ours = fingerprints(["PKONE", "AKTWO"])
    assert not is_another(fingerprints(["AKTWO"]), ours)
    assert is_another(fingerprints(["PKTHREE"]), ours)
    assert not is_another([], ours)


def test_a_fingerprint_tells_no_key() -> None:
    """Neither the key nor a part of it; the same key has the same one."""
    (found,) = fingerprints(["PKONE"])
    assert "PKONE" not in found
    assert fingerprints(["PKONE"]) == [found]
