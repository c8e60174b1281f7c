"""What becomes of a message between decoding and Redis: bounds, and what is told of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from alpaca_broker.alpaca.rest import PastBar
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.market_data import (
    Bar,
    DailyBar,
    Level,
    News,
    Orderbook,
    Quote,
    Trade,
    UpdatedBar,
)
from alpaca_broker.market import market_lanes, price_lanes
from alpaca_broker.market.lanes import Lanes

AT = datetime(2026, 1, 5, 15, tzinfo=UTC)


class PublisherStub:
    """Takes what is published; may have no room."""

    connected = True

    def __init__(self) -> None:
        self.behind = self.is_full = False
        self.told: list[dict[str, Any]] = []
        self.bytes = 0

    def publish(self, head: bytes, payload: bytes) -> None:
        """One message."""
        self.told.append(msgspec.json.decode(payload))
        self.bytes += len(payload)

    def send(self, command: bytes) -> None:
        """Any other command."""


def lanes_of(publisher: PublisherStub) -> Lanes:
    """Of a feed whose every topic is wanted."""
    return Lanes("crypto/us", Channels(), publisher, lambda topic: True)  # type: ignore[arg-type]


def test_a_symbol_too_many_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of trades and of the others; those that were there before go on."""
    monkeypatch.setattr(price_lanes, "MOST_LANES", 1)
    monkeypatch.setattr(market_lanes, "MOST_LANES", 1)
    publisher = PublisherStub()
    lanes = lanes_of(publisher)
    for symbol in ("A", "B", "C", "A"):
        lanes.prices.publish(Trade(symbol, 1.5, AT), 1.0)
        lanes.others.publish(Quote(symbol, AT), 1.0)
    assert [told["symbol"] for told in publisher.told] == ["A"] * 4
    assert lanes.turned_away == 4
    assert ["B" in record.getMessage() for record in caplog.records] == [True, True]


def test_a_recovered_bar_is_told_as_a_live_one_and_says_so() -> None:
    """It differs in its source and in when we had it, only."""
    publisher = PublisherStub()
    others = lanes_of(publisher).others
    values = {"o": 1.5, "h": 4.5, "l": 0.5, "c": 3.5, "v": 100, "vw": 2.5, "n": 7}
    for kind in (Bar, UpdatedBar, DailyBar):
        others.publish(kind("AAPL", AT, **values), 1.0)  # type: ignore[arg-type]
    others.backfill_bar("AAPL", PastBar(AT, **values))  # type: ignore[arg-type]
    live, *_, recovered = publisher.told
    assert [(t["timeframe"], t["updated"], t["source"], t["seq"]) for t in publisher.told] == [
        ("1Min", False, "stream", 1),
        ("1Min", True, "stream", 2),
        ("1Day", False, "stream", 3),
        ("1Min", False, "backfill", 4),
    ]
    assert recovered.pop("received_at") > live.pop("received_at")
    assert live | {"source": "backfill", "seq": 4} == recovered


def test_changes_of_a_book_that_were_left_out_are_made_good_by_the_whole() -> None:
    """As soon as there is room; a book is told whole once in a second at most."""
    publisher = PublisherStub()
    others = lanes_of(publisher).others
    others.publish(Orderbook("BTC/USD", AT, [Level(10, 1)], [], True), 1.0)
    publisher.behind = publisher.is_full = True
    others.publish(Orderbook("BTC/USD", AT, [Level(11, 2)], []), 2.0)
    others.tick(100.0)
    assert len(publisher.told) == 1
    publisher.behind = publisher.is_full = False
    others.tick(102.0)
    others.show_books({"*"})
    others.tick(102.5)
    assert [(b["seq"], b["snapshot"], b["bids"]) for b in publisher.told] == [
        (1, True, [[10, 1]]),
        (2, True, [[11, 2], [10, 1]]),
    ]
    others.tick(103.1)
    assert publisher.told[-1]["seq"] == 3


def test_a_huge_article_is_not_multiplied_by_its_symbols() -> None:
    """What would be a hundred megabytes goes out without its content; a small one goes whole."""
    publisher = PublisherStub()
    others = lanes_of(publisher).others
    symbols = [f"S{n}" for n in range(100)]
    for content in ("x" * 1_400_000, "small"):
        others.publish(News(1, AT, headline="h", content=content, symbols=symbols), 1.0)
    assert publisher.bytes < 1_000_000
    assert len(publisher.told) == 202
    assert {told["content"] for told in publisher.told[:101]} == {None}
    assert {told["content"] for told in publisher.told[101:]} == {"small"}
    others.publish(News(2, AT, content="x" * 1_400_000, symbols=["S1"]), 1.0)
    assert len(publisher.told[-1]["content"]) == 1_400_000
