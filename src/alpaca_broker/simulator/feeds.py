"""The market-data feeds: their paths, their channels, and which market stands behind each.

Owns the table. Invariant: one entry per WebSocket endpoint; feeds with equal `venue` say the same.
Pure. Perpetual futures and the retired crypto endpoints are not simulated.
"""

import enum
from dataclasses import dataclass

TEST_SYMBOL = "FAKEPACA"
_STOCKS = ("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds")
_CRYPTO = ("trades", "quotes", "orderbooks", "bars", "updatedBars", "dailyBars")
_FOLLOW_TRADES = ("corrections", "cancelErrors")


class Kind(enum.Enum):
    """What a feed is about, and with it the shapes of its messages."""

    STOCKS = "stocks"
    TEST = "test"
    CRYPTO = "crypto"
    OPTIONS = "options"
    NEWS = "news"


@dataclass(frozen=True)
class Feed:
    """One endpoint.

    Args:
        name: What the simulator's callers say: "iex", "crypto/us", "opra", "news".
        path: Of the WebSocket.
        kind: What it is about.
        venue: The market behind it.
        channels: The keys of an acknowledgement, in the documented order.
        implicit: Channels that follow `trades` by themselves [D RTS].
        unlisted: Channels that are taken, and acknowledged only when used.
    """

    name: str
    path: str
    kind: Kind
    venue: str
    channels: tuple[str, ...]
    implicit: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()

    @property
    def accepted(self) -> tuple[str, ...]:
        """What may be subscribed to."""
        return self.channels + self.unlisted

    @property
    def packed_only(self) -> bool:
        """Whether it speaks MessagePack only [D RTO]."""
        return self.kind is Kind.OPTIONS


def _stocks(name: str, path: str) -> Feed:
    return Feed(name, path, Kind.STOCKS, "stocks", _STOCKS, _FOLLOW_TRADES, ("imbalances",))


def _crypto(location: str) -> Feed:
    name = f"crypto/{location}"
    return Feed(name, f"/v1beta3/{name}", Kind.CRYPTO, name, _CRYPTO)


def _options(name: str) -> Feed:
    return Feed(name, f"/v1beta1/{name}", Kind.OPTIONS, "options", ("trades", "quotes"))


CRYPTO_LOCATIONS = ("us", "us-1", "eu-1")
FEEDS = {
    feed.name: feed
    for feed in (
        _stocks("iex", "/v2/iex"),
        _stocks("sip", "/v2/sip"),
        _stocks("delayed_sip", "/v2/delayed_sip"),
        _stocks("boats", "/v1beta1/boats"),
        _stocks("overnight", "/v1beta1/overnight"),
        Feed("test", "/v2/test", Kind.TEST, "test", ("trades", "quotes", "bars")),
        *map(_crypto, CRYPTO_LOCATIONS),
        _options("indicative"),
        _options("opra"),
        Feed("news", "/v1beta1/news", Kind.NEWS, "news", ("news",)),
    )
}
"""All feeds by name. `test` only knows FAKEPACA [D WSS]."""


def feed_of(name: str) -> Feed:
    """The feed of that name. Raises `ValueError`."""
    if (feed := FEEDS.get(name)) is None:
        raise ValueError(f"no such feed: {name!r}")
    return feed


def venue_of(place: str) -> str:
    """The venue behind a feed, or the venue of that name. Raises `ValueError`."""
    known = {feed.venue for feed in FEEDS.values()}
    return place if place in known else feed_of(place).venue
