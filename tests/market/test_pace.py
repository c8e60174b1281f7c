"""More than fits: when prices are kept, how they go out meanwhile, and when all is well again."""

from __future__ import annotations

import pytest

from alpaca_broker.market.pace import (
    FIRST_CALM,
    LATE_S,
    LEAST_UNREAD,
    MOST_AT_ONCE,
    MOST_CALM,
    TICK_S,
    Pace,
    Unread,
)


class World:
    """A publisher, what is unread, and what is kept; ticks as the loop would make them."""

    def __init__(self) -> None:
        self.behind, self.keeps_up = False, True
        self.unread_s, self.kept = 0.0, 0
        self.released: list[int] = []
        self.said: list[str] = []
        self.now = 100.0
        self.pace = Pace(self, lambda now: self.unread_s, self._release, self.said.append)

    def _release(self, most: int) -> bool:
        self.released.append(min(most, self.kept))
        self.kept -= self.released[-1]
        return self.kept > 0

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += TICK_S
            self.pace.tick(self.now)

    def ticks_until_calm(self) -> int:
        """How many quiet ticks it takes."""
        self.unread_s = 0.0
        for count in range(1, 2 * MOST_CALM):
            self.tick()
            if not self.behind:
                return count
        raise AssertionError("never calm")

    def overwhelm(self) -> None:
        self.unread_s = LATE_S
        self.tick(2)
        assert self.behind


@pytest.fixture
def world() -> World:
    return World()


def test_one_late_tick_is_a_hiccup_and_two_are_more_than_fits(world: World) -> None:
    """Both in turn; and it is said once, with the reason."""
    world.unread_s = LATE_S
    world.tick()
    assert not world.behind
    world.unread_s = 0.0
    world.tick()
    world.unread_s = LATE_S
    world.tick()
    assert not world.behind
    world.tick()
    assert world.behind
    world.tick(10)
    assert world.said == ["what arrives lies unread for 50 ms"]


def test_what_is_kept_goes_out_piece_by_piece_while_it_lasts(world: World) -> None:
    """At a measured pace, so that there is time to read; never into a Redis that is behind."""
    world.overwhelm()
    world.kept = 2 * MOST_AT_ONCE + 5
    world.tick(4)
    assert world.released == [MOST_AT_ONCE, MOST_AT_ONCE, 5, 0]
    world.keeps_up = False
    world.kept = 10
    world.tick(100)
    assert world.kept == 10
    assert world.behind


def test_where_nothing_is_late_any_more_more_goes_out_each_time(world: World) -> None:
    """However many symbols there are, it ends."""
    world.overwhelm()
    world.unread_s, world.kept = 0.0, 100_000
    for _ in range(100):
        world.tick()
        if not world.behind:
            break
        world.kept += 1_500  # as many symbols again trade before the next tick
    assert not world.behind
    assert world.released[:3] == [2 * MOST_AT_ONCE, 4 * MOST_AT_ONCE, 8 * MOST_AT_ONCE]


def test_it_ends_after_some_calm_and_needs_more_of_it_where_that_did_not_last(
    world: World,
) -> None:
    """A load that stays too high is tried again every five seconds, no oftener."""
    needed = []
    for _ in range(8):
        world.overwhelm()
        needed.append(world.ticks_until_calm())
    assert needed == [FIRST_CALM * 2**n for n in range(6)] + [MOST_CALM] * 2
    world.now += 2.0
    world.overwhelm()
    assert world.ticks_until_calm() == FIRST_CALM, "it had lasted: begin anew"


def test_it_does_not_end_while_anything_is_kept_unread_or_waits_for_redis(world: World) -> None:
    """Each of them begins the calm anew."""
    world.overwhelm()
    for trouble in ({"kept": 10**9}, {"unread_s": LATE_S}, {"keeps_up": False}):
        well = {name: getattr(world, name) for name in trouble}
        world.unread_s = 0.0
        world.tick(FIRST_CALM - 1)
        for name, value in trouble.items():
            setattr(world, name, value)
        world.tick(FIRST_CALM)
        assert world.behind
        world.kept = 0
        for name, value in well.items():
            setattr(world, name, value if name != "unread_s" else 0.0)
    assert world.ticks_until_calm() <= FIRST_CALM


def test_the_age_of_what_is_unread_is_its_size_by_our_speed() -> None:
    """Little is nothing; and where nothing was read, nothing is known."""
    unread = Unread(9.9)
    assert unread.seconds(10.0, 0, 10**6) == 0.0
    assert unread.seconds(10.1, 1_000_000, 500_000) == pytest.approx(0.05)
    assert unread.seconds(10.2, 1_000_000, 500_000) == 0.0
    assert unread.seconds(10.3, 1_000_100, LEAST_UNREAD - 1) == 0.0
