"""Which channels and symbols one market-data session asked for.

Owns the sets behind an acknowledgement and the rules of a request. Invariant: a refused request
changes nothing [D WSS, 405]. Pure; `t` and `T` of messages are mapped to channels here.
"""

from collections.abc import Mapping
from typing import Any

from alpaca_broker.simulator.market import SYMBOL_LIMIT, Record

STAR = "*"
_FULL = ("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds")
_IMPLICIT = ("corrections", "cancelErrors")  # follow trades by themselves [D RTS]
_TEST = ("trades", "quotes", "bars")
_ALL_CHANNELS = frozenset((*_FULL, *_IMPLICIT, "imbalances", "orderbooks", "news", "pricing"))
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
}
"""The channel that carries a message type [D RTS]."""


class Refused(Exception):
    """A request that is answered with an error code and changes nothing."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Subscriptions:
    """The channel lists of one session on one feed."""

    def __init__(self, feed: str, symbol_limit: int | None) -> None:
        self._limit = symbol_limit
        self._shown = _TEST if feed == "test" else _FULL
        self._accepted = frozenset(_TEST if feed == "test" else (*_FULL, "imbalances"))
        self._implicit = () if feed == "test" else _IMPLICIT
        self._symbols: dict[str, set[str]] = {channel: set() for channel in self._accepted}

    def subscribe(self, request: Mapping[str, Any]) -> None:
        """Add what the request names. Raises `Refused` with 400, 405 or 410."""
        added = self._named(request)
        merged = {
            channel: self._symbols[channel] | added.get(channel, set())
            for channel in self._accepted
        }
        if len(set().union(*merged.values())) > SYMBOL_LIMIT:
            raise Refused(405)
        if self._limit is not None and len(merged["trades"] | merged["quotes"]) > self._limit:
            raise Refused(405)
        self._symbols = merged

    def unsubscribe(self, request: Mapping[str, Any]) -> None:
        """Take away what the request names. Raises `Refused` with 400 or 410."""
        for channel, symbols in self._named(request).items():
            self._symbols[channel] -= symbols

    def acknowledgement(self) -> dict[str, Any]:
        """The complete list: every channel key, in the documented order [D WSS]."""
        lists = {channel: sorted(self._symbols[channel]) for channel in self._shown}
        lists |= {channel: lists["trades"] for channel in self._implicit}
        if imbalances := self._symbols.get("imbalances"):
            lists["imbalances"] = sorted(imbalances)
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
            if channel in _IMPLICIT and channel in self._implicit:
                continue  # they follow trades whatever the client says
            if channel not in self._accepted:
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
