"""What is left of a broken frame: every whole value before the damage, and nothing else."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpaca_broker.core import salvage

VALUES = st.lists(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=40)
        | st.datetimes(timezones=st.just(UTC)),
        lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
        max_leaves=10,
    ),
    max_size=20,
)


def json_parts(frame: bytes | str) -> list[bytes]:
    """All of them."""
    return list(salvage.json_parts(frame))


def msgpack_parts(frame: bytes) -> list[bytes]:
    """All of them."""
    return list(salvage.msgpack_parts(frame))


@given(VALUES, st.data())
def test_messagepack_is_cut_where_its_values_end(values: list[Any], data: st.DataObject) -> None:
    """Whole, it is all of them; broken off anywhere, those before."""
    frame = msgspec.msgpack.encode(values)
    parts = [msgspec.msgpack.encode(value) for value in values]
    assert msgpack_parts(frame) == parts
    place = data.draw(st.integers(0, len(frame)))
    found = msgpack_parts(frame[:place])
    assert found == parts[: len(found)]
    head = len(frame) - sum(map(len, parts))
    whole = [n for n in range(len(parts) + 1) if head + sum(map(len, parts[:n])) <= place]
    assert len(found) == max(whole, default=0)


@given(VALUES, st.data())
def test_json_is_cut_where_its_values_end(values: list[Any], data: st.DataObject) -> None:
    """Blanks or none between them; a number at the very end may be a part of a longer one."""
    parts = [msgspec.json.encode(value) for value in values]
    between = data.draw(st.sampled_from([b",", b" , ", b",\n"]))
    frame = b"[" + between.join(parts) + b"]"
    assert json_parts(frame) == parts
    place = data.draw(st.integers(0, len(frame)))
    found = json_parts(frame[:place])
    assert found[:-1] == parts[: max(0, len(found) - 1)]
    ends = [1 + len(between.join(parts[:n])) for n in range(1, len(parts) + 1)]
    assert len(found) >= sum(end <= place for end in ends)


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(frame: bytes) -> None:
    """Never an exception."""
    json_parts(frame)
    msgpack_parts(frame)


@pytest.mark.parametrize("frame", [b"", b"{}", b"7", b"[" * 100_000, b"[" + b"9" * 5_000, b"\x81"])
def test_what_is_no_array_has_no_parts(frame: bytes) -> None:
    """Nor has one that never comes to an end."""
    assert json_parts(frame) == msgpack_parts(frame) == []


def test_bytes_that_are_no_text_stay_in_their_part() -> None:
    """The neighbours of a value in another encoding are whole."""
    assert json_parts(b'[1,"\xff",2,') == [b"1", b'"\xff"', b"2"]
    assert json_parts(json.dumps(["ä", "💥"], ensure_ascii=False)) == [
        '"ä"'.encode(),
        '"💥"'.encode(),
    ]
