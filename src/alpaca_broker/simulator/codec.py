"""How messages look on the wire: JSON in text frames, or MessagePack in binary frames.

Owns both encodings of everything the simulator says, and the decoding of what clients say.
Invariant: `T` is the first key of every map and whole numbers are encoded as integers
[S GO marketdata/stream/message.go]. It knows nothing of sessions.
"""

import contextlib
import enum
import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from alpaca_broker.simulator.market import Record
from alpaca_broker.simulator.shapes import WIRE

SECOND_NS = 10**9
_TIMES = {"t", "created_at", "updated_at"}
_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_fixext4 = struct.Struct(">I").pack
_fixext8 = struct.Struct(">Q").pack
_ext12 = struct.Struct(">Iq").pack


class Codec(enum.Enum):
    """The encoding of one connection, chosen by Content-Type at the upgrade [D WSS]."""

    JSON = "application/json"
    MSGPACK = "application/msgpack"

    @classmethod
    def of(cls, content_type: str | None, *, packed: bool = False) -> "Codec":
        """The codec for a Content-Type header.

        JSON unless it is MessagePack; where `packed` is the rule, also without a header, as one
        SDK relies on [S CS].
        """
        kind = (content_type or "").split(";")[0].strip().lower()
        return cls.MSGPACK if kind == cls.MSGPACK.value or (packed and not kind) else cls.JSON

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
        return self.encode([WIRE[type(record)](record, stamp) for record in records])

    def encode_message(self, message: Mapping[str, Any]) -> bytes:
        """One data frame with one ready-made message: `T` moved to the front, times adapted."""
        ordered = {"T": message["T"]} | dict(message) if "T" in message else dict(message)
        if self is Codec.MSGPACK:
            for name in _TIMES & ordered.keys():
                with contextlib.suppress(ValueError, TypeError):  # a test may send a broken time
                    ordered[name] = extension(nanoseconds(ordered[name]))
        return self.encode([ordered])


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


def plain(record: Record) -> dict[str, Any]:
    """A record as the REST API shows it: the stream's keys without `T` and `S` [OAS oas_data]."""
    builtin = message_of(record)
    del builtin["T"], builtin["S"]
    return builtin


def message_of(record: Record) -> dict[str, Any]:
    """A record as the JSON stream shows it."""
    builtin: dict[str, Any] = msgspec.to_builtins(WIRE[type(record)](record, rfc3339))
    if isinstance(builtin.get("c"), tuple):
        builtin["c"] = list(builtin["c"])
    return builtin


@lru_cache(maxsize=4096)
def _date_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=4096)
def _fraction(nanos: int) -> str:
    return f".{nanos:09d}".rstrip("0") + "Z" if nanos else "Z"
