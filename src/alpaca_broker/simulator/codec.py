"""How messages look on the wire: JSON in text frames, or MessagePack in binary frames.

Owns both encodings of everything the simulator says, and the decoding of what clients say.
Invariant: `T` is the first key of every map and whole numbers are encoded as integers
[S GO marketdata/stream/message.go]. It knows nothing of sessions.
"""

import contextlib
import enum
import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from alpaca_broker.simulator.market import PRICE_UNIT, Bar, Quote, Record, Trade, tape_of

SECOND_NS = 10**9
_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_fixext4 = struct.Struct(">I").pack
_fixext8 = struct.Struct(">Q").pack
_ext12 = struct.Struct(">Iq").pack

Stamp = str | msgspec.msgpack.Ext


class Codec(enum.Enum):
    """The encoding of one connection, chosen by Content-Type at the upgrade [D WSS]."""

    JSON = "application/json"
    MSGPACK = "application/msgpack"

    @classmethod
    def of(cls, content_type: str | None) -> "Codec":
        """The codec for a Content-Type header; JSON unless it is MessagePack."""
        kind = (content_type or "").split(";")[0].strip().lower()
        return cls.MSGPACK if kind == cls.MSGPACK.value else cls.JSON

    def encode(self, message: Any) -> bytes:
        """Any JSON-like value."""
        return _json.encode(message) if self is Codec.JSON else _msgpack.encode(message)

    def decode(self, frame: bytes) -> Any:
        """The value of a client's frame. Raises `ValueError` when it is none."""
        try:
            if self is Codec.JSON:
                return msgspec.json.decode(frame)
            return msgspec.msgpack.decode(frame)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        except msgspec.DecodeError as error:  # a ValueError, but say so in our own words
            raise ValueError(str(error)) from error

    def encode_records(self, records: Iterable[Record]) -> bytes:
        """One data frame: the array of the records' messages."""
        stamp = rfc3339 if self is Codec.JSON else extension
        return self.encode([_WIRE[type(record)](record, stamp) for record in records])

    def encode_message(self, message: Mapping[str, Any]) -> bytes:
        """One data frame with one ready-made message: `T` moved to the front, `t` adapted."""
        ordered = {"T": message["T"]} | dict(message) if "T" in message else dict(message)
        if self is Codec.MSGPACK and isinstance(t := ordered.get("t"), str):
            with contextlib.suppress(ValueError):  # a test may want to send a broken time
                ordered["t"] = extension(nanoseconds(t))
        return self.encode([ordered])


class _TradeMessage(msgspec.Struct, tag_field="T", tag="t", gc=False):  # fields in wire order
    S: str
    i: int
    x: str
    p: float
    s: int
    c: tuple[str, ...]
    z: str
    t: Stamp


class _QuoteMessage(msgspec.Struct, tag_field="T", tag="q", gc=False, rename={"asked": "as"}):
    S: str
    bx: str
    bp: float
    bs: int
    ax: str
    ap: float
    asked: int
    c: tuple[str, ...]
    z: str
    t: Stamp


class _BarMessage(msgspec.Struct, tag_field="T", tag="b", gc=False):
    S: str
    o: float
    h: float
    l: float  # noqa: E741 - the wire's name
    c: float
    v: int
    vw: float
    n: int
    t: Stamp


class _DayBarMessage(_BarMessage, tag_field="T", tag="d", gc=False):
    pass


def _trade(record: Trade, stamp: Callable[[int], Stamp]) -> _TradeMessage:
    return _TradeMessage(
        record.symbol,
        record.id,
        record.exchange,
        # Correctly rounded, so its shortest decimal form has exactly the price's digits.
        record.price / PRICE_UNIT,
        record.size,
        record.conditions,
        record.tape,
        stamp(record.ns),
    )


def _quote(record: Quote, stamp: Callable[[int], Stamp]) -> _QuoteMessage:
    return _QuoteMessage(
        record.symbol,
        record.bid_exchange,
        record.bid / PRICE_UNIT,
        record.bid_size,
        record.ask_exchange,
        record.ask / PRICE_UNIT,
        record.ask_size,
        record.conditions,
        record.tape,
        stamp(record.ns),
    )


def _bar(record: Bar, stamp: Callable[[int], Stamp]) -> _BarMessage:
    shape = _DayBarMessage if record.kind == "d" else _BarMessage
    average = record.turnover / record.volume if record.volume else record.close
    return shape(
        record.symbol,
        record.open / PRICE_UNIT,
        record.high / PRICE_UNIT,
        record.low / PRICE_UNIT,
        record.close / PRICE_UNIT,
        record.volume,
        round(average / PRICE_UNIT, 6),
        record.trades,
        stamp(record.ns),
    )


_WIRE: dict[type, Callable[[Any, Callable[[int], Stamp]], Any]] = {
    Trade: _trade,
    Quote: _quote,
    Bar: _bar,
}


def rfc3339(ns: int) -> str:
    """UTC with `Z`, to the nanosecond, trailing zeros trimmed [D RTS examples]."""
    seconds, fraction = divmod(ns, SECOND_NS)
    return _date_time(seconds) + _fraction(fraction)


def extension(ns: int) -> msgspec.msgpack.Ext:
    """MessagePack extension -1 in its three lengths [S vmihailenco time.go]."""
    seconds, nanos = divmod(ns, SECOND_NS)
    if seconds < 0 or seconds >> 34:
        data = _ext12(nanos, seconds)
    elif nanos or seconds >> 32:
        data = _fixext8(nanos << 34 | seconds)
    else:
        data = _fixext4(seconds)
    return msgspec.msgpack.Ext(-1, data)


def nanoseconds(text: str) -> int:
    """Nanoseconds since 1970 of an RFC3339 time or a date. Raises `ValueError`."""
    moment = datetime.fromisoformat(text)
    _, _, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    offset = moment.utcoffset()
    naive = moment.replace(microsecond=0, tzinfo=None) - datetime(1970, 1, 1)
    seconds = naive.days * 86_400 + naive.seconds - (int(offset.total_seconds()) if offset else 0)
    return seconds * SECOND_NS + int(digits[:9].ljust(9, "0"))


def decimal_text(units: int) -> str:
    """A price as its exact decimal digits: 1674100 is "167.41"."""
    text = f"{units // PRICE_UNIT}.{units % PRICE_UNIT:04d}".rstrip("0")
    return text.rstrip(".")


def plain(record: Record) -> dict[str, Any]:
    """A record as the REST API shows it: the stream's keys without `T` and `S` [OAS oas_data]."""
    builtin: dict[str, Any] = msgspec.to_builtins(_WIRE[type(record)](record, rfc3339))
    del builtin["T"], builtin["S"]
    return builtin


def trade_of(message: Mapping[str, Any]) -> Trade:
    """The trade a ready-made message speaks of. Raises `ValueError` or `KeyError`."""
    symbol = str(message["S"])
    return Trade(
        symbol,
        nanoseconds(message["t"]),
        int(message.get("i", 0)),
        str(message.get("x", "V")),
        round(float(message["p"]) * PRICE_UNIT),
        int(message.get("s", 1)),
        str(message.get("z", tape_of(symbol))),
    )


@lru_cache(maxsize=4096)
def _date_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=4096)
def _fraction(nanos: int) -> str:
    return f".{nanos:09d}".rstrip("0") + "Z" if nanos else "Z"
