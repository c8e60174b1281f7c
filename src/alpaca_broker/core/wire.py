"""Alpaca's frames as values, and ours as frames.

Owns the reading of Alpaca's market-data and trading messages. A frame of known messages is decoded
in one pass; a frame with one unknown or malformed message costs a second, tolerant pass for that
frame only, in which its neighbours survive. Never raises for bad input: counts it, keeps a sample.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

SAMPLE_BYTES = 300
MOST_DIGITS = 60
_NUMERIC = re.compile(r"[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?\Z")

# What is read can always be written again: no time without a zone, no integer over 64 bits.
Instant = Annotated[datetime, Meta(tz=True)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Trade(Struct, tag_field="T", tag="t", gc=False):
    """One print: `S` symbol, `p` price, `s` size, `x` exchange, `c` conditions, `i` id."""

    S: str
    p: float
    t: Instant
    s: Int64 | float | None = None
    x: str | None = None
    c: list[str] | None = None
    i: Int64 | None = None


class Success(Struct, tag_field="T", tag="success", frozen=True):
    """`connected` or `authenticated`."""

    msg: str


class Refusal(Struct, tag_field="T", tag="error", frozen=True):
    """One of Alpaca's error codes."""

    code: int
    msg: str = ""


class Subscription(Struct, tag_field="T", tag="subscription", frozen=True):
    """The complete list of what this session is subscribed to."""

    trades: list[str] | None = None
    quotes: list[str] | None = None
    bars: list[str] | None = None


# Corrections and cancels arrive unasked with trades; the other kinds only if somebody asks.
class Quote(Struct, tag_field="T", tag="q", gc=False):
    """A quote: not passed on."""


class Bar(Struct, tag_field="T", tag="b", gc=False):
    """A minute bar: not passed on."""


class Correction(Struct, tag_field="T", tag="c", gc=False):
    """A corrected trade: not passed on."""


class Cancel(Struct, tag_field="T", tag="x", gc=False):
    """A cancelled trade: not passed on."""


MarketMessage = Trade | Quote | Bar | Correction | Cancel | Success | Refusal | Subscription

_frame = msgspec.json.Decoder(list[MarketMessage])
_one = msgspec.json.Decoder(MarketMessage)
_raws = msgspec.json.Decoder(list[msgspec.Raw])


class MarketDecoder:
    """Decodes market-data frames and counts what it could not read."""

    def __init__(self) -> None:
        self.malformed = 0
        self.sample: str | None = None

    def decode(self, frame: bytes | str) -> list[MarketMessage]:
        """The messages of a frame, in order. Never raises; see `malformed` and `sample`."""
        try:
            return _frame.decode(frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._tolerantly(frame)

    def _tolerantly(self, frame: bytes | str) -> list[MarketMessage]:
        try:
            parts = _raws.decode(frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._count(frame)
            return []
        messages: list[MarketMessage] = []
        for part in parts:
            try:
                messages.append(_one.decode(part))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self._count(bytes(part))
        return messages

    def _count(self, what: bytes | str) -> None:
        self.malformed += 1
        text = (
            what if isinstance(what, str) else what[: SAMPLE_BYTES * 2].decode("utf-8", "replace")
        )
        self.sample = text[:SAMPLE_BYTES]


def auth_message(key_id: str, secret: str) -> bytes:
    """The market-data authentication, JSON."""
    return msgspec.json.encode({"action": "auth", "key": key_id, "secret": secret})


def subscribe_message(action: Literal["subscribe", "unsubscribe"], symbols: list[str]) -> bytes:
    """A (un)subscription of trades, JSON."""
    return msgspec.json.encode({"action": action, "trades": symbols})


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
