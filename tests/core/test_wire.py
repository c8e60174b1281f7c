"""Reading Alpaca's frames: one bad message costs itself and nothing else."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpaca_broker.core.wire import (
    MarketDecoder,
    Refusal,
    Subscription,
    Success,
    Trade,
    epoch_seconds,
    json_object,
    number,
)

TRADE = (
    b'{"T":"t","S":"XYZ","i":52983525029461,"x":"V","p":10.25,"s":100,"c":["@"],"z":"C",'
    b'"t":"2026-01-05T15:00:00.123456789Z"}'
)


def test_a_documented_trade_is_read() -> None:
    """The sample of Alpaca's page, field by field."""
    (trade,) = MarketDecoder().decode(b"[" + TRADE + b"]")
    assert isinstance(trade, Trade)
    assert (trade.S, trade.p, trade.s, trade.x, trade.c) == ("XYZ", 10.25, 100, "V", ["@"])
    assert trade.i == 52983525029461
    assert trade.t.timestamp() == pytest.approx(1767625200.123457, abs=1e-6)


def test_control_messages_are_read() -> None:
    """Welcome, error, acknowledgement; unknown keys do not matter."""
    decoder = MarketDecoder()
    assert decoder.decode('[{"T":"success","msg":"connected"}]') == [Success("connected")]
    assert decoder.decode('[{"T":"error","code":406,"msg":"x"}]') == [Refusal(406, "x")]
    (ack,) = decoder.decode('[{"T":"subscription","trades":["A"],"imbalances":[],"bars":null}]')
    assert ack == Subscription(trades=["A"])


@pytest.mark.parametrize(
    "bad",
    [
        b'{"T":"zz","S":"A"}',
        b'{"T":"t","S":"A"}',
        b'{"T":"t","S":"A","p":"ten","t":"2026-01-05T15:00:00Z"}',
        b'{"T":"t","S":null,"p":1,"t":"2026-01-05T15:00:00Z"}',
        b'{"T":"t","S":"A","p":1,"t":"yesterday"}',
        b'{"T":"t","S":"A","p":1,"t":"2026-01-05T15:00:00"}',
        b'{"T":"t","S":"A","p":1,"i":99999999999999999999,"t":"2026-01-05T15:00:00Z"}',
        b'{"T":"t","S":"A","p":1e999,"t":"2026-01-05T15:00:00Z"}',
        b'{"S":"A","p":1}',
        b"null",
        b"7",
        b'"text"',
        b"[]",
    ],
)
def test_a_bad_message_leaves_its_neighbours(bad: bytes) -> None:
    """Both trades of the frame survive, in order; the bad one is counted, with a sample."""
    decoder = MarketDecoder()
    found = decoder.decode(b"[" + TRADE + b"," + bad + b"," + TRADE + b"]")
    assert [type(message) for message in found] == [Trade, Trade]
    assert decoder.malformed == 1
    assert decoder.sample == bad.decode()


@pytest.mark.parametrize("frame", [b"", b"[", b"{}", b"null", b"\xff", b"[" * 100_000, b"\x93\x01"])
def test_a_frame_that_is_none_is_counted(frame: bytes) -> None:
    """It yields nothing and raises nothing."""
    decoder = MarketDecoder()
    assert decoder.decode(frame) == []
    assert decoder.malformed == 1


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(frame: bytes) -> None:
    """Never an exception."""
    MarketDecoder().decode(frame)
    json_object(frame)


@given(st.integers(0, len(TRADE)), st.integers(0, 255))
def test_a_trade_with_one_wrong_byte_costs_only_itself(place: int, byte: int) -> None:
    """Whatever is decoded around it is right."""
    broken = TRADE[:place] + bytes([byte]) + TRADE[place + 1 :]
    found = MarketDecoder().decode(b"[" + TRADE + b"," + broken + b"]")
    if found:
        assert isinstance(found[0], Trade)
        assert found[0].S == "XYZ"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-05T15:00:00Z", 1767625200.0),
        ("2026-01-05T15:00:00.208Z", 1767625200.208),
        ("2026-01-05T10:00:00.123456789-05:00", 1767625200.123457),
        ("", None),
        (None, None),
        (17, None),
        ("soon", None),
    ],
)
def test_times_are_read_in_every_form_that_alpaca_sends(
    text: object, seconds: float | None
) -> None:
    """Any offset, up to nanoseconds; what is none is None."""
    assert epoch_seconds(text) == seconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("150.2500", "150.2500"),
        ("0.123456789", "0.123456789"),
        ("10", "10"),
        (10, "10"),
        (10.5, "10.5"),
        ("NaN", None),
        ("1e999999", None),
        ("1" * 61, None),
        pytest.param(10**5_000, None, id="5,001 digits"),
        ("123456789.123456789", "123456789.123456789"),
        ("Infinity", None),
        ("ten", None),
        ("1_000", None),
        ("١٢", None),
        ("-.5", "-0.5"),
        (None, None),
        (True, None),
        ([], None),
    ],
)
def test_numbers_keep_their_digits(value: object, expected: str | None) -> None:
    """Strings and numbers become exact decimals; anything else is None."""
    found = number(value)
    assert (str(found) if isinstance(found, Decimal) else None) == expected


def test_an_object_is_told_from_everything_else() -> None:
    """Arrays, numbers and rubbish are None."""
    assert json_object('{"a":1}') == {"a": 1}
    assert [json_object(x) for x in ("[]", "1", "", b"\xff", json.dumps("x"))] == [None] * 5
