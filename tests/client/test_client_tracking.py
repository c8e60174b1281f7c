"""What the numbers of a channel say, and when a heart has stopped."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpaca_broker.client.tracking import IGNORED, Health, Track
from alpaca_broker.client.updates import FeedStatus, PriceUpdate, Status
from alpaca_broker.core.feeds import Family

NOW = 100.0


@pytest.fixture(autouse=True)
def patience() -> None:
    """Here a client has no more of it than in life."""


def price(
    seq: int, epoch: int = 1, timestamp: float = 0.0, source: str | None = None
) -> PriceUpdate:
    """A price with only what the track looks at."""
    return PriceUpdate("AAPL", 1.0, timestamp, seq=seq, epoch=epoch, source=source)


def track_at(seq: int) -> Track:
    """A track that has heard this number."""
    track = Track("AAPL", 1)
    assert track.judge(price(seq)) == 0
    return track


def test_the_first_number_is_the_beginning() -> None:
    """Whatever came before a bot listened was not missed."""
    assert track_at(17).known == 17


def test_a_hole_is_the_difference() -> None:
    """What is missing between two numbers was missed."""
    assert track_at(5).judge(price(9)) == 3


def test_second_and_late_ones_are_ignored() -> None:
    """A number is accounted for once."""
    track = track_at(5)
    assert track.judge(price(5)) == IGNORED
    assert track.judge(price(3)) == IGNORED
    assert track.judge(price(6)) == 0


def test_a_new_epoch_counts_from_one() -> None:
    """What is missing at its beginning was missed; a lower epoch is ignored."""
    track = track_at(5)
    assert track.judge(price(1, 2)) == 0
    assert track.judge(price(6, 1)) == IGNORED
    assert track_at(5).judge(price(3, 2)) == 2


def test_without_a_number_nothing_is_judged() -> None:
    """A message with only the ● fields is a price like any other."""
    track = track_at(5)
    assert track.judge(price(0, 0)) == 0
    assert track.judge(price(6)) == 0


def test_a_doubt_ends_with_the_next_number_or_a_comparison() -> None:
    """After a reconnect nothing is sure until something newer, or as new, is seen."""
    track = track_at(5)
    track.doubt("reconnect")
    assert track.judge(price(8)) == 2
    assert (track.in_doubt, track.why()) == (False, "reconnect")
    track.doubt("cut by redis")
    assert track.compare(price(8), NOW) == (0, False)
    assert not track.in_doubt


def test_a_comparison_finds_what_a_quiet_symbol_lost() -> None:
    """The snapshot is ahead: what is between was missed, and the snapshot itself is newer."""
    track = track_at(5)
    assert track.compare(price(8), NOW) == (3, True)
    assert track.judge(price(9)) == 0


def test_a_snapshot_from_before_we_listened_is_no_beginning() -> None:
    """It may lag: what was published between it and our subscription is not ours to miss."""
    track = Track("AAPL", 1)
    track.listens_since = NOW
    assert track.compare(price(8), NOW + 0.1) == (0, False)
    assert track.judge(price(10)) == 0
    later = Track("AAPL", 1)
    later.listens_since = NOW
    assert later.compare(price(8), NOW + 5) == (0, False)
    assert later.judge(price(10)) == 1


def test_a_late_snapshot_proves_nothing() -> None:
    """It lags by up to a second: the doubt stays, no number is taken back."""
    track = track_at(5)
    track.doubt("reconnect")
    assert track.compare(price(4), NOW) == (0, False)
    assert track.compare(None, NOW) == (0, False)
    assert (track.in_doubt, track.known) == (True, 5)


def test_a_price_from_rest_repairs_a_gap_of_the_brokers() -> None:
    """After a gap `price:last` has the number we know, but a newer price."""
    track = track_at(5)
    track.last = price(5, timestamp=1.0)
    track.doubt("broker gap")
    assert track.compare(price(5, timestamp=2.0, source="snapshot"), NOW) == (0, True)
    assert not track.in_doubt


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_every_number_is_heard_or_missed_once(steps: list[tuple[bool, bool]]) -> None:
    """Whatever is lost, and whenever it is compared: heard and missed add up."""
    track, heard, missed = track_at(1), 1, 0
    seq = 1
    for lost, compares in steps:
        seq += 1
        if not lost:
            missed += track.judge(price(seq))
            heard += 1
        if compares:
            track.doubt("reconnect")
            missed += track.compare(price(seq), NOW)[0]
    missed += track.compare(price(seq), NOW)[0]
    assert heard + missed == seq


def status(state: str = "live", **feeds: str) -> Status:
    """A heartbeat."""
    return Status(state=state, feeds={n: FeedStatus(state=s) for n, s in feeds.items()})


def test_three_seconds_without_a_beat_are_told_once() -> None:
    """Stale exactly after three seconds, until the next beat."""
    health = Health()
    assert (health.state(0.0), health.falls_silent(99.0)) == ("unknown", False)
    health.beat(status(), 100.0)
    assert (health.beats(103.0), health.beats(103.1)) == (True, False)
    assert health.state(104.0) == "stale"
    assert [health.falls_silent(at) for at in (102.0, 103.5, 104.0)] == [False, True, False]
    assert health.beat(status(), 105.0)
    assert not health.beat(status(), 106.0)


def test_a_feed_is_live_when_the_broker_says_so() -> None:
    """The feed of the family decides; where there is none, all must be live; down is down."""
    health = Health()
    assert not health.feed_is_live("stocks")
    health.beat(status(**{"iex": "live", "crypto/us": "backoff", "news": "idle"}), 0.0)
    live = [family for family in get_args(Family) if health.feed_is_live(family)]
    assert live == ["stocks"]
    health.beat(status(iex="live", opra="live"), 0.0)
    assert all(map(health.feed_is_live, get_args(Family)))
    health.beat(status("down", iex="live"), 0.0)
    assert not health.feed_is_live("stocks")
