"""What can still be read of a frame that is broken: the messages before the damage.

Owns the cutting of an array that does not end, or does not go on, as it should, and the reading
of a print of which a part is not understood. Never raises; what is cut are whole values, each still
to be read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

_raw_decode = json.JSONDecoder().raw_decode
_between = re.compile(r"[ \t\r\n]*,[ \t\r\n]*").match
_begins = re.compile(r"[ \t\r\n]*\[[ \t\r\n]*").match


def json_parts(frame: bytes | str) -> Iterator[bytes]:
    """The whole values at the beginning of an array in JSON."""
    text = frame if isinstance(frame, str) else frame.decode("utf-8", "surrogateescape")
    found = _begins(text)
    try:
        while found is not None:
            begin = found.end()
            _, end = _raw_decode(text, begin)
            yield text[begin:end].encode("utf-8", "surrogateescape")
            found = _between(text, end)
    except (ValueError, RecursionError):  # ValueError: of decoding, and of encoding
        pass


# MessagePack: how many bytes the length of these types takes, by their first byte.
_SIZED = {
    **{0xC4: 1, 0xC5: 2, 0xC6: 4},  # bin
    **{0xC7: 1, 0xC8: 2, 0xC9: 4},  # ext, with a byte for its type
    **{0xD9: 1, 0xDA: 2, 0xDB: 4},  # str
}
_FIXED = {
    **{0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8},  # nil, false, true, floats
    **{0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8},  # integers
    **{0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17},  # fixext, with a byte for its type
}
_MANY = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}  # arrays, maps: values per member


def msgpack_parts(frame: bytes) -> Iterator[bytes]:
    """The whole values at the beginning of an array in MessagePack."""
    try:
        at, members = _head(frame, 0)
        if not (0x90 <= frame[0] <= 0x9F or frame[0] in (0xDC, 0xDD)):
            return
        for _ in range(members):
            end = _end(frame, at)
            yield frame[at:end]
            at = end
    except (IndexError, ValueError):
        pass


DISPENSABLE = frozenset({"c", "i", "x"})  # of a print: conditions, id, exchange
EARLIEST = 10**8  # seconds: what is less is no time

_Print = TypeVar("_Print", bound=Struct)


def print_of(kind: type[_Print], message: dict[Any, Any]) -> _Print | None:
    """A trade without what it can do without; None where anything else of it cannot be read."""
    values: dict[str, Any] = {}
    for known in msgspec.structs.fields(kind):
        if known.encode_name not in message:
            continue
        value = message[known.encode_name]
        if known.name == "t" and type(value) is int:
            value = _instant(value)
        try:
            values[known.name] = msgspec.convert(value, known.type)
        except (msgspec.ValidationError, ValueError):
            if known.encode_name not in DISPENSABLE:
                return None
    try:
        return kind(**values)
    except TypeError:
        return None  # something required is not there


def _instant(number: int) -> datetime | None:
    """An integer as a time: seconds since the epoch, or a thousandth of one, …"""
    if number < EARLIEST:
        return None
    exponent = max(0, (len(str(number)) - 8) // 3 * 3)  # of today: 10, 13, 16 or 19 digits
    try:
        return datetime.fromtimestamp(number / 10**exponent, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _end(frame: bytes, at: int) -> int:
    """Where the value that begins at `at` ends. Raises IndexError where it does not."""
    owed = 1
    while owed:
        at, members = _head(frame, at)
        owed += members - 1
    return at


def _head(frame: bytes, at: int) -> tuple[int, int]:
    """Behind a value's own bytes, and how many values are inside it."""
    first = frame[at]
    at += 1
    members = length = 0
    if first <= 0x7F or first >= 0xE0:
        pass
    elif first <= 0x8F:
        members = 2 * (first & 0x0F)
    elif first <= 0x9F:
        members = first & 0x0F
    elif first <= 0xBF:
        length = first & 0x1F
    elif first in _FIXED:
        length = _FIXED[first]
    elif first in _SIZED:
        size = _SIZED[first]
        length = int.from_bytes(frame[at : at + size], "big") + (0xC7 <= first <= 0xC9)
        at += size
    elif first in _MANY:
        size, each = _MANY[first]
        members = each * int.from_bytes(frame[at : at + size], "big")
        at += size
    else:
        raise ValueError("0xC1 is no value")
    if at + length > len(frame):
        raise IndexError("it ends in the middle of a value")
    return at + length, members
