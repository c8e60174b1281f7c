"""Alpaca's frames as values, and ours as frames.

Owns the reading of Alpaca's market-data and trading messages. A frame of known messages is decoded
in one pass; a frame with one unknown or malformed message costs a second, tolerant pass for that
frame only, in which its neighbours survive; of one that breaks off, those before the damage. Never
raises for bad input: counts it, keeps a sample.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import msgspec
from msgspec import Struct

from alpaca_broker.core.feeds import EVERY
from alpaca_broker.core.market_data import Data, OptionQuote, OptionTrade, StockData, Trade
from alpaca_broker.core.salvage import json_parts, msgpack_parts, print_of

SAMPLE_BYTES = 300
MOST_DIGITS = 60
MOST_BAD = 1_000  # messages of one frame that are looked at although they cannot be read
_NUMERIC = re.compile(r"[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?\Z")


class Success(Struct, tag_field="T", tag="success", frozen=True):
    """`connected` or `authenticated`."""

    msg: str


class Refusal(Struct, tag_field="T", tag="error", frozen=True):
    """One of Alpaca's error codes."""

    code: int
    msg: str = ""


class Subscription(Struct, tag_field="T", tag="subscription", frozen=True):
    """The complete list of what this session is subscribed to; a list may be absent.

    Corrections and cancels come by themselves with trades: their lists are not read.
    """

    trades: list[str] | None = None
    quotes: list[str] | None = None
    bars: list[str] | None = None
    updatedBars: list[str] | None = None
    dailyBars: list[str] | None = None
    statuses: list[str] | None = None
    lulds: list[str] | None = None
    orderbooks: list[str] | None = None
    news: list[str] | None = None

    @property
    def lists(self) -> dict[str, list[str]]:
        """The lists that are there, by kind."""
        return {
            kind: symbols
            for kind in self.__struct_fields__
            if (symbols := getattr(self, kind)) is not None
        }


Control = Success | Refusal | Subscription
CONTROL: frozenset[type[Struct]] = frozenset({Success, Refusal, Subscription})  # alone in a frame
MarketMessage = Trade | OptionTrade | Data | Control

_STOCKS = Trade | StockData | Control
_OPTIONS = OptionTrade | OptionQuote | Control

# For whole frames, for the parts of one, and for one part.
_Readers = tuple[
    Callable[[bytes | str], list[Any]],
    Callable[[bytes | str], list[msgspec.Raw]],
    Callable[[msgspec.Raw | bytes], Any],
]


def _readers(codec: Any, kinds: Any) -> _Readers:
    decoders = (codec.Decoder(list[kinds]), codec.Decoder(list[msgspec.Raw]), codec.Decoder(kinds))
    whole, parts, one = (decoder.decode for decoder in decoders)
    return whole, parts, one


_JSON = _readers(msgspec.json, _STOCKS)
_OPTIONS_JSON = _readers(msgspec.json, _OPTIONS)
_OPTIONS_MSGPACK = _readers(msgspec.msgpack, _OPTIONS)


class _Tagged(Struct):
    T: str
    S: str = EVERY


class MarketDecoder:
    """Decodes market-data frames and counts what it could not read."""

    def __init__(self, *, msgpack: bool = False) -> None:
        # What comes as text is JSON even where MessagePack is spoken: an error may come so.
        self._text = _OPTIONS_JSON if msgpack else _JSON
        self._binary = _OPTIONS_MSGPACK if msgpack else _JSON
        self._whole_text, self._whole_binary = self._text[0], self._binary[0]
        self.malformed = 0
        self.spoiled: set[str] = set()  # books of which a change was lost; `*`: nobody knows whose
        self.sample: str | None = None

    def decode(self, frame: bytes | str) -> list[MarketMessage]:
        """The messages of a frame, in order. Never raises; see `malformed` and `sample`."""
        try:
            if type(frame) is str:
                return self._whole_text(frame)
            return self._whole_binary(frame)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return self._tolerantly(frame)

    def _tolerantly(self, frame: bytes | str) -> list[MarketMessage]:
        is_text = isinstance(frame, str) or frame[:2] == b"[{"  # 412 may come as JSON in any case
        _, split, read = readers = self._text if is_text else self._binary
        parts: Iterable[msgspec.Raw | bytes]
        try:
            parts = split(frame)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            self._count(frame)
            self.spoiled.add(EVERY)
            if readers is _OPTIONS_MSGPACK and isinstance(frame, bytes):
                parts = msgpack_parts(frame)
            else:
                parts = json_parts(frame)
        messages: list[MarketMessage] = []
        bad = 0
        for number, part in enumerate(parts, 1):
            try:
                messages.append(read(part))
                continue
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                self._count(bytes(part))
            bad += 1
            if bad >= MOST_BAD:  # this is no data: the loop has better things to do
                self.malformed += len(parts) - number if isinstance(parts, list) else 0
                self.spoiled.add(EVERY)
                break
            if (found := self._print_of(bytes(part), readers)) is not None:
                messages.append(found)
            else:
                self._look_for_book(bytes(part))
        return messages

    def _print_of(self, part: bytes, readers: _Readers) -> Trade | OptionTrade | None:
        """A print of which something is not understood that it can do without."""
        codec = msgspec.msgpack if readers is _OPTIONS_MSGPACK else msgspec.json
        try:
            found = codec.decode(part)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("T") != "t":
            return None
        if self._text is _OPTIONS_JSON:
            return print_of(OptionTrade, found)
        return print_of(Trade, found)

    def _look_for_book(self, part: bytes) -> None:
        """What is not understood may be a change of a book, which nothing comes to replace."""
        try:
            found = msgspec.json.decode(part, type=_Tagged)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return
        if found.T == "o":
            self.spoiled.add(found.S)

    def _count(self, what: bytes | str) -> None:
        self.malformed += 1
        text = (
            what if isinstance(what, str) else what[: SAMPLE_BYTES * 2].decode("utf-8", "replace")
        )
        self.sample = text[:SAMPLE_BYTES]


def auth_message(key_id: str, secret: str, *, msgpack: bool = False) -> bytes:
    """The market-data authentication."""
    return _encoded({"action": "auth", "key": key_id, "secret": secret}, msgpack)


def subscribe_message(
    action: Literal["subscribe", "unsubscribe"],
    topics: Iterable[tuple[str, str]],
    *,
    msgpack: bool = False,
) -> bytes:
    """A (un)subscription: the symbols of each kind."""
    lists: dict[str, list[str]] = {}
    for kind, symbol in topics:
        lists.setdefault(kind, []).append(symbol)
    return _encoded({"action": action, **lists}, msgpack)


def _encoded(message: dict[str, Any], msgpack: bool) -> bytes:
    return msgspec.msgpack.encode(message) if msgpack else msgspec.json.encode(message)


def trading_auth_message(key_id: str, secret: str) -> bytes:
    """The trading stream's authentication, in the form that every SDK sends."""
    return msgspec.json.encode(
        {"action": "authenticate", "data": {"key_id": key_id, "secret_key": secret}}
    )


def listen_message() -> bytes:
    """Asks the trading stream for order events; replaces whatever was listened to."""
    return msgspec.json.encode({"action": "listen", "data": {"streams": ["trade_updates"]}})


def json_object(frame: bytes | str) -> dict[str, Any] | None:
    """A frame that holds one JSON object, or None. Never raises."""
    try:
        value = msgspec.json.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def epoch_seconds(text: object) -> float | None:
    """An RFC3339 time (any offset, up to nanoseconds) as epoch seconds, or None."""
    if not isinstance(text, str):
        return None
    try:
        when = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def number(value: object) -> Decimal | None:
    """Alpaca's numeric string (or number) with its exact digits, or None."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if isinstance(value, str) and not _NUMERIC.match(value):
        return None  # Decimal takes 1_000 and other digits than ours
    try:
        found = Decimal(str(value))
    except (InvalidOperation, ValueError):  # ValueError: an integer of thousands of digits
        return None
    # 1e999999 is finite, too, and would fill a megabyte.
    if not found.is_finite() or abs(found.adjusted()) > MOST_DIGITS:
        return None
    return found if len(found.as_tuple().digits) <= MOST_DIGITS else None
