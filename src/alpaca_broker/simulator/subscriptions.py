"""Which channels and symbols one market-data session asked for.

Owns the sets behind an acknowledgement and the rules of a request. Invariant: a refused request
changes nothing [D WSS, 405]. Pure; the `T` of messages is mapped to channels here.
"""

from collections.abc import Mapping
from typing import Any

from alpaca_broker.simulator.feeds import FEEDS, Feed, Kind
from alpaca_broker.simulator.market import SYMBOL_LIMIT, Record

STAR = "*"
_ALL_CHANNELS = frozenset(
    {"pricing"}.union(*(feed.accepted + feed.implicit for feed in FEEDS.values()))
)
_SYMBOL_LENGTH = 32

CHANNEL_OF = {
    "t": "trades",
    "c": "trades",
    "x": "trades",
    "q": "quotes",
    "b": "bars",
    "u": "updatedBars",
    "d": "dailyBars",
    "s": "statuses",
    "l": "lulds",
    "i": "imbalances",
    "o": "orderbooks",
    "n": "news",
}
"""The channel that carries a message type [D RTS, RTC, RTN]."""


class Refused(Exception):
    """A request that is answered with an error code and changes nothing."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Subscriptions:
    """The channel lists of one session on one feed."""

    def __init__(
        self, feed: Feed, symbol_limit: int | None, option_quote_limit: int | None = None
    ) -> None:
        self._feed = feed
        self._limited: tuple[str, ...] = ("trades", "quotes")
        self._limit = symbol_limit
        if feed.kind is Kind.OPTIONS:  # counted by quotes [D ABT]
            self._limited, self._limit = ("quotes",), option_quote_limit
        self._symbols: dict[str, set[str]] = {channel: set() for channel in feed.accepted}

    def subscribe(self, request: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
        """Add what the request names; what was not there before, as (channel, symbol).

        Raises `Refused` with 400, 405, 410 or 413.
        """
        added = self._named(request)
        if self._feed.kind is Kind.OPTIONS and STAR in added.get("quotes", ()):
            raise Refused(413)
        merged = {c: symbols | added.get(c, set()) for c, symbols in self._symbols.items()}
        if len(set().union(*merged.values())) > SYMBOL_LIMIT:
            raise Refused(405)
        limited: set[str] = set().union(*(merged.get(channel, ()) for channel in self._limited))
        if self._limit is not None and len(limited) > self._limit:
            raise Refused(405)
        before, self._symbols = self._symbols, merged
        return frozenset((c, s) for c, symbols in added.items() for s in symbols - before[c])

    def unsubscribe(self, request: Mapping[str, Any]) -> None:
        """Take away what the request names. Raises `Refused` with 400 or 410."""
        for channel, symbols in self._named(request).items():
            self._symbols[channel] -= symbols

    def acknowledgement(self, *, sparse: bool = False) -> dict[str, Any]:
        """The complete list: every channel key, in the documented order [D WSS].

        If it is `sparse`, without the keys of empty lists.
        """
        feed = self._feed
        lists = {channel: sorted(self._symbols[channel]) for channel in feed.channels}
        lists |= {channel: lists["trades"] for channel in feed.implicit}
        lists |= {c: sorted(self._symbols[c]) for c in feed.unlisted if self._symbols[c]}
        if sparse:
            lists = {channel: symbols for channel, symbols in lists.items() if symbols}
        return {"T": "subscription"} | lists

    def wants(self, channel: str, symbol: str) -> bool:
        """Whether a message of this channel and symbol is for this session."""
        symbols = self._symbols.get(channel, ())
        return symbol in symbols or STAR in symbols

    def topics(self) -> frozenset[tuple[str, str]]:
        """Everything asked for as (channel, symbol), "*" included."""
        return frozenset((c, s) for c, symbols in self._symbols.items() for s in symbols)

    def _named(self, request: Mapping[str, Any]) -> dict[str, set[str]]:
        channels = {key: value for key, value in request.items() if key in _ALL_CHANNELS}
        if not channels:
            raise Refused(400)  # at least one channel should be present [D OLD]
        named: dict[str, set[str]] = {}
        for channel, symbols in channels.items():
            if not symbols and (symbols is None or isinstance(symbols, list)):
                continue  # Go sends nil, JavaScript [] for channels they do not use [S GO; O JS3]
            if not isinstance(symbols, list) or not all(map(_is_symbol, symbols)):
                raise Refused(400)
            if channel in self._feed.implicit:
                continue  # they follow trades whatever the client says
            if channel not in self._symbols:
                raise Refused(410)
            named[channel] = set(symbols)
        return named


def topic(record: Record) -> tuple[str, str]:
    """The (channel, symbol) a record belongs to."""
    return record.channel, record.symbol


def _is_symbol(value: object) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= _SYMBOL_LENGTH
        and value.isprintable()
        and not any(map(str.isspace, value))
    )
