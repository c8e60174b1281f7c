"""Which feed carries what: the kind of data and the shape of the symbol decide.

Owns Alpaca's feeds: their paths, their codecs, the kinds of data that each has, and the way from
what bots ask for to what is asked of Alpaca. A *topic* is one kind of data of one symbol; `"*"` is
every symbol. By its shape `BTC/USD` is crypto and `AAPL251219C00150000` is an option; all else, the
wildcard too, is the configured stock feed's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Literal

from msgspec import Struct

from alpaca_broker.core.topics import NO_TOPICS, Topics
from alpaca_broker.core.topics import Topic as Topic

Family = Literal["stocks", "crypto", "options", "news"]

EVERY = "*"
CONTENT = "newsContent"  # the whole article: asked for by `content`, and no kind of its own

# Alpaca's paths (its page "WebSocket Stream"): boats and overnight are not under /v2.
STOCK_PATHS = {
    "iex": "/v2/iex",
    "sip": "/v2/sip",
    "delayed_sip": "/v2/delayed_sip",
    "test": "/v2/test",
    "boats": "/v1beta1/boats",
    "overnight": "/v1beta1/overnight",
}

OPTION_FEEDS = frozenset({"indicative", "opra"})

_BARS = frozenset({"bars", "updatedBars", "dailyBars"})
_TRADES = frozenset({"trades", "quotes", "backfill"})
_STOCKS = _TRADES | _BARS | {"statuses", "lulds", "corrections"}
_TEST = frozenset({"trades", "quotes", "bars"})
_CRYPTO = _TRADES | _BARS | {"orderbooks"}
_NEWS = frozenset({"news", CONTENT})
KINDS: dict[Family, frozenset[str]] = {
    **{"stocks": _STOCKS, "crypto": _CRYPTO},
    **{"options": _TRADES, "news": _NEWS},
}

# What Alpaca has no channel for: it comes by itself with trades, or is made of them.
_COMES_WITH = {"corrections": "trades", "backfill": "trades", CONTENT: "news"}

_CRYPTO_SHAPE = re.compile(r"[A-Z0-9]+/[A-Z0-9]+\Z")
# OCC's; a digit behind the root marks contracts that were adjusted.
_OPTION_SHAPE = re.compile(r"[A-Z]{1,6}[0-9]?[0-9]{6}[CP][0-9]{8}\Z")


class Feed(Struct, frozen=True):
    """One of Alpaca's feeds."""

    name: str  # in the status, and as `feed` of every message
    family: Family
    path: str  # of its WebSocket
    kinds: frozenset[str]
    latest: str | None = None  # REST: where its latest trades are, up to the symbols
    on_demand: bool = True  # opened when somebody wants something of it

    @property
    def not_in_the_plan(self) -> str:
        """What to look at where Alpaca says so (409)."""
        why = "which is not in the plan of these keys"
        match self.family:
            case "stocks":
                return f"ALPACA_FEED is {self.name}, {why}; iex is free"
            case "options":
                return f"ALPACA_OPTION_FEED is {self.name}, {why}; indicative is free"
            case _:
                return f"a bot wants the {self.name} feed, {why}"

    @property
    def is_msgpack(self) -> bool:
        """Whether it speaks MessagePack: options speak nothing else (412)."""
        return self.family == "options"


class Wanted(Struct, frozen=True):
    """What is wanted of one feed; whoever comes first goes first under a limit."""

    topics: tuple[Topic, ...] = ()  # what to ask Alpaca for
    extras: Topics = NO_TOPICS  # corrections, backfill, newsContent: wished, not asked
    sets: Topics = NO_TOPICS  # the same as `topics`, without their order

    def plus(self, last: Topic) -> Wanted:
        """The same, and behind all of it one more."""
        return Wanted((*self.topics, last), self.extras, self.sets.plus(last))


NOTHING = Wanted()


class Feeds:
    """The feeds of one broker: one of each family."""

    def __init__(self, stock: str = "iex", crypto: str = "us", option: str = "indicative") -> None:
        self.stocks = Feed(
            stock,
            "stocks",
            STOCK_PATHS[stock],
            _TEST if stock == "test" else _STOCKS,
            None if stock == "test" else f"/v2/stocks/trades/latest?feed={stock}&symbols=",
            on_demand=False,
        )
        crypto_rest = f"/v1beta3/crypto/{crypto}/latest/trades?symbols="
        self.crypto = Feed(
            f"crypto/{crypto}", "crypto", f"/v1beta3/crypto/{crypto}", _CRYPTO, crypto_rest
        )
        option_rest = f"/v1beta1/options/trades/latest?feed={option}&symbols="
        self.options = Feed(option, "options", f"/v1beta1/{option}", _TRADES, option_rest)
        self.news = Feed("news", "news", "/v1beta1/news", _NEWS)
        all_of_them = (self.stocks, self.crypto, self.options, self.news)
        self._by_family: dict[Family, Feed] = {feed.family: feed for feed in all_of_them}

    def __iter__(self) -> Iterator[Feed]:
        return iter(self._by_family.values())

    def of(self, topic: Topic) -> Feed:
        """The feed that carries a topic, if any does."""
        return self._by_family[family(*topic)]

    def have(self, topic: Topic) -> bool:
        """Whether the feed has this kind of data: Alpaca would answer 410 if not."""
        return topic[0] in self.of(topic).kinds

    def route(self, wishes: Iterable[Topic]) -> dict[str, Wanted]:
        """What bots wish, as what each feed (by name) shall ask for."""
        asked: dict[Family, dict[Topic, None]] = {}
        extras: dict[Family, list[Topic]] = {}
        for wish in wishes:
            carrier = family(*wish)
            if wish[0] in _COMES_WITH:
                extras.setdefault(carrier, []).append(wish)
                wish = at_alpaca(wish)
            if (topics := asked.get(carrier)) is None:
                topics = asked[carrier] = {}
            topics[wish] = None
        return {
            feed.name: Wanted(
                tuple(found), Topics.of(extras.get(feed.family, ())), Topics.of(found)
            )
            for feed in self
            if (found := asked.get(feed.family))
        }


@lru_cache(maxsize=65_536)
def family(kind: str, symbol: str) -> Family:
    """Which family of feeds a topic belongs to."""
    if kind in _NEWS:
        return "news"
    if _CRYPTO_SHAPE.match(symbol) or (kind == "orderbooks" and symbol == EVERY):
        return "crypto"  # nobody else has order books
    return "options" if _OPTION_SHAPE.match(symbol) else "stocks"


def family_of_feed(name: str) -> Family | None:
    """Which family a feed of this name belongs to; None if it is none of Alpaca's."""
    if name in STOCK_PATHS:
        return "stocks"
    if name.startswith("crypto/"):
        return "crypto"
    return "options" if name in OPTION_FEEDS else "news" if name == "news" else None


def at_alpaca(wish: Topic) -> Topic:
    """The topic to subscribe to at Alpaca for what a bot wishes."""
    asked = _COMES_WITH.get(wish[0])
    return wish if asked is None else (asked, wish[1])


def shown(topic: Topic) -> str:
    """A topic as people see it: trades are what a symbol alone means."""
    kind, symbol = topic
    return symbol if kind == "trades" else f"{kind}:{symbol}"
