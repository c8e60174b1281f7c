"""When a gap begins: the last time at which data was known to be whole."""

from __future__ import annotations

from datetime import UTC, datetime
from time import time
from typing import Any

import pytest

from alpaca_broker.alpaca.hours import MarketHours
from alpaca_broker.alpaca.quota import Quota
from alpaca_broker.core.accounts import KeyPair
from alpaca_broker.core.backfill import Lateness
from alpaca_broker.core.feeds import Feed, Feeds
from alpaca_broker.core.market_data import Trade
from alpaca_broker.core.messages import Gap
from alpaca_broker.core.topics import Topics
from alpaca_broker.core.wire import Subscription
from alpaca_broker.market import continuity as module
from alpaca_broker.market.continuity import Continuity
from alpaca_broker.market.upstream import Upstream

AAPL = Topics.of([("trades", "AAPL")])
DATA = [Trade("AAPL", 1.0, datetime.now(UTC))]
ANSWER = [Subscription({})]


def upstream_of(feed: Feed) -> Upstream:
    """A feed at an address that nobody asks."""
    return Upstream(
        feed=feed,
        url="wss://alpaca",
        data_url="https://alpaca",
        keys=KeyPair("paper", "PK", "s"),
        quota=Quota(),
        hours=MarketHours(),
        backfill_trades=10,
    )


class Clock:
    """Our clock, which the test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """The continuity of one feed, and its gaps."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.gaps = clock, list[Gap]()
        upstream = upstream_of(Feeds().stocks)
        self.flow = Continuity(upstream, changed=lambda: None, on_gap=self.gaps.append)
        nothing: Any = type("Nothing", (), {"backfill": None, "backfill_bar": None})
        self.flow.use(nothing, nothing, nothing)

    def at(self, now: float, act: str) -> None:
        """One thing happens."""
        self.clock.now = now
        match act:
            case "data" | "answer":
                self.flow.heard(DATA if act == "data" else ANSWER, now)
            case "confirmed":
                self.flow.mends(AAPL, 7)
            case "connected":
                self.flow.mends(Topics.of([]), 7)
            case "unwanted":
                self.flow.breaks({"AAPL"}, None)
                self.flow.begin_anew()
            case "cut":
                self.flow.breaks({"AAPL"}, None)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """At 1,000 s."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return Scene(clock)


@pytest.mark.parametrize(
    ("told", "gaps"),
    [
        ("10 confirmed, 11 data, 15 answer, 20 cut, 21 confirmed", [(11, 21)]),
        ("10 confirmed, 20 cut, 21 confirmed", [(10, 21)]),
        ("10 confirmed, 15 confirmed, 20 cut, 21 confirmed", [(10, 21)]),
        ("9 connected, 10 confirmed, 20 cut, 21 confirmed", [(10, 21)]),
        ("10 confirmed, 11 data, 20 cut, 21 data, 22 cut, 30 confirmed", [(11, 30)]),
        ("1 confirmed, 2 data, 3 cut, 9 confirmed, 20 cut, 21 confirmed", [(2, 9), (9, 21)]),
        ("1 confirmed, 2 data, 3 unwanted, 9 confirmed, 12 cut, 13 confirmed", [(9, 13)]),
    ],
    ids=[
        "an answer is no data",
        "nothing has come yet",
        "a later confirmation proves nothing",
        "before anything was subscribed nothing could come",
        "data on a link that was not whole",
        "nothing came between two gaps",
        "while nobody wanted anything nothing was missed",
    ],
)
def test_a_gap_begins_where_data_was_last_known_to_be_whole(
    scene: Scene, told: str, gaps: list[tuple[float, float]]
) -> None:
    """Neither an answer nor a ping is a sign that nothing is missing."""
    for word in told.split(", "):
        at, act = word.split()
        scene.at(float(at), act)
    assert [(gap.began, gap.ended) for gap in scene.gaps] == gaps
    assert scene.flow.whole_at == gaps[-1][1]


def test_how_late_a_feed_is_is_seen_where_nobody_states_it() -> None:
    """The least of the last trades, within what is possible."""
    assert (Lateness("iex").delay_s, Lateness("delayed_sip").delay_s) == (0.0, 900.0)
    late = Lateness("indicative")
    assert late.delay_s is None
    late.seen(5_000.0)
    assert late.delay_s == 900.0
    for late_s in (900.4, 880.0, 899.0):
        late.seen(late_s)
    assert late.delay_s == 880.0
    for _ in range(8):
        late.seen(-0.1)
    assert late.delay_s == 0.0


def test_the_lateness_of_options_is_seen_of_their_trades(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that are followed; of other feeds it is stated."""
    upstream = upstream_of(Feeds().options)
    flow = Continuity(upstream, changed=lambda: None, on_gap=lambda gap: None)
    nothing: Any = type("Nothing", (), {"backfill": None, "backfill_bar": None})
    flow.use(nothing, nothing, nothing)
    flow.follow({"AAPL"}, ())
    flow.heard([Trade("AAPL", 1.0, datetime.fromtimestamp(time() - 600, UTC))], time())
    assert flow.backfill._delay_s() == pytest.approx(600, abs=1)
