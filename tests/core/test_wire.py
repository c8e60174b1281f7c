"""Reading Alpaca's frames: one bad message costs itself and nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from time import process_time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpaca_broker.core.market_data import (
    Band,
    Bar,
    Cancel,
    Correction,
    DailyBar,
    HaltStatus,
    News,
    OptionTrade,
    Orderbook,
    Quote,
    Trade,
    UpdatedBar,
)
from alpaca_broker.core.wire import (
    MarketDecoder,
    Refusal,
    Subscription,
    Success,
    auth_message,
    epoch_seconds,
    json_object,
    number,
    subscribe_message,
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


AT = "2026-01-05T15:00:00.5Z"
KINDS: list[tuple[dict[str, Any], Any]] = [
    (
        {
            "T": "q",
            "S": "A",
            "bx": "V",
            "bp": 1.5,
            "bs": 3,
            "ax": "V",
            "ap": 2,
            "as": 4,
            "c": ["R"],
        },
        lambda m: (type(m), m.bp, m.bs, m.ap, m.as_, m.c) == (Quote, 1.5, 3, 2.0, 4, ["R"]),
    ),
    (
        {"T": "b", "S": "A", "o": 1, "h": 3, "l": 0.5, "c": 2, "v": 9, "vw": 1.7, "n": 4},
        lambda m: (type(m), m.o, m.l, m.c, m.v, m.n) == (Bar, 1.0, 0.5, 2.0, 9, 4),
    ),
    ({"T": "u", "S": "A", "o": 1, "h": 3, "l": 1, "c": 2}, lambda m: type(m) is UpdatedBar),
    ({"T": "d", "S": "A", "o": 1, "h": 3, "l": 1, "c": 2}, lambda m: type(m) is DailyBar),
    (
        {"T": "s", "S": "A", "sc": "H", "sm": "Halt", "rc": "T1", "rm": "", "z": "C"},
        lambda m: (type(m), m.sc, m.rm) == (HaltStatus, "H", ""),
    ),
    (
        {"T": "l", "S": "A", "u": 2.5, "d": 1.5, "i": "B", "z": "C"},
        lambda m: (type(m), m.u, m.d, m.i) == (Band, 2.5, 1.5, "B"),
    ),
    (
        {"T": "c", "S": "A", "x": "V", "oi": 1, "op": 1.5, "os": 7, "oc": ["@"], "ci": 2, "cp": 2},
        lambda m: (type(m), m.oi, m.oc, m.cp, m.cs) == (Correction, 1, ["@"], 2.0, None),
    ),
    (
        {"T": "x", "S": "A", "i": 1, "x": "V", "p": 1.5, "s": 7, "a": "C", "z": "C"},
        lambda m: (type(m), m.i, m.a) == (Cancel, 1, "C"),
    ),
    (
        {"T": "o", "S": "BTC/USD", "b": [{"p": 1.5, "s": 0}], "a": [], "r": True},
        lambda m: (type(m), m.b[0].p, m.b[0].s, m.a, m.r) == (Orderbook, 1.5, 0, [], True),
    ),
    (
        {"T": "n", "id": 5, "headline": "H", "created_at": AT, "symbols": ["A"], "content": "<p>"},
        lambda m: (type(m), m.id, m.symbols, m.updated_at) == (News, 5, ["A"], None),
    ),
]


@pytest.mark.parametrize(("message", "is_right"), KINDS, ids=[m["T"] for m, _ in KINDS])
def test_every_kind_of_data_is_read(message: dict[str, Any], is_right: Any) -> None:
    """As Alpaca's pages show it, with what may be absent absent."""
    decoder = MarketDecoder()
    (found,) = decoder.decode(json.dumps([message | {"t": AT}]))
    assert is_right(found)
    assert decoder.malformed == 0


@pytest.mark.parametrize(
    ("t", "seconds"),
    [
        (b"\xd6\xff" + (1767625200).to_bytes(4, "big"), 1767625200.0),
        (b"\xd7\xff" + (500_000_000 << 34 | 1767625200).to_bytes(8, "big"), 1767625200.5),
        (b"\xc7\x0c\xff" + (500_000_000).to_bytes(4, "big") + b"\xff" * 8, -0.5),
    ],
    ids=["32 bits", "64 bits", "96 bits"],
)
def test_options_are_read_with_every_form_of_a_time(t: bytes, seconds: float) -> None:
    """MessagePack's extension -1 in its three lengths; one condition is a list of one."""
    frame = b"\x91\x86\xa1T\xa1t\xa1S\xb3AAPL251219C00150000\xa1p\xcb@\x04\0\0\0\0\0\0\xa1s\x03"
    decoder = MarketDecoder(msgpack=True)
    (trade,) = decoder.decode(frame + b"\xa1c\xa1a\xa1t" + t)
    assert isinstance(trade, OptionTrade)
    assert (trade.S, trade.p, trade.s, trade.c, trade.i) == (
        *("AAPL251219C00150000", 2.5, 3, ["a"], None),
    )
    assert trade.t.timestamp() == seconds


@pytest.mark.parametrize("price", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_no_price(price: float) -> None:
    """MessagePack can say it, and JSON could not pass it on."""
    decoder = MarketDecoder(msgpack=True)
    trade = {"T": "t", "S": "AAPL251219C00150000", "p": price, "t": AT}
    assert decoder.decode(msgspec.msgpack.encode([trade])) == []
    assert decoder.malformed == 1


def test_a_subscription_names_the_symbols_of_each_kind() -> None:
    """In one message, in either codec."""
    topics = [("trades", "A"), ("quotes", "A"), ("trades", "B")]
    said = {"action": "subscribe", "trades": ["A", "B"], "quotes": ["A"]}
    assert json.loads(subscribe_message("subscribe", topics)) == said
    packed = subscribe_message("subscribe", topics, msgpack=True)
    assert msgspec.msgpack.decode(packed) == said
    packed = auth_message("k", "s", msgpack=True)
    assert msgspec.msgpack.decode(packed) == {"action": "auth", "key": "k", "secret": "s"}


@pytest.mark.parametrize(
    "bad",
    [
        b'{"T":"zz","S":"A"}',
        b'{"T":"t","S":"A"}',
        b'{"T":"t","S":"A","p":"ten","t":"2026-01-05T15:00:00Z"}',
        b'{"T":"t","S":null,"p":1,"t":"2026-01-05T15:00:00Z"}',
        b'{"T":"t","S":"A","p":1,"t":"yesterday"}',
        b'{"T":"t","S":"A","p":1,"t":"2026-01-05T15:00:00"}',
        b'{"T":"t","S":"A","p":1,"s":99999999999999999999,"t":"2026-01-05T15:00:00Z","i":[]}',
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


AT_15 = datetime(2026, 1, 5, 15, tzinfo=UTC)


@pytest.mark.parametrize("c", ["a", ["a"], 7])
def test_an_option_print_survives_whatever_its_condition_is(c: object) -> None:
    """As one condition, or a list of them; what is neither is left out, and counted."""
    trade = {"T": "t", "S": "AAPL251219C00150000", "p": 1.5, "t": AT_15, "s": 3, "c": c}
    decoder = MarketDecoder(msgpack=True)
    (found,) = decoder.decode(msgspec.msgpack.encode([trade]))
    assert isinstance(found, OptionTrade)
    assert (found.p, found.t, found.s) == (1.5, AT_15, 3)
    assert found.c == (None if c == 7 else ["a"])
    assert decoder.malformed == (c == 7)


def test_a_print_is_not_lost_with_its_id() -> None:
    """One that fits no 64 bits is left out; without a price, or of a bad symbol, it is none."""
    trade = {"T": "t", "S": "AAPL", "p": 1.5, "t": "2026-01-05T15:00:00Z", "i": 2**63}
    bad = [trade | {"p": None}, trade | {"S": ""}, trade | {"t": "soon"}, {"T": "t", "i": 2**63}]
    found = MarketDecoder().decode(msgspec.json.encode([trade, *bad]))
    assert found == [Trade("AAPL", 1.5, AT_15)]


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_a_time_that_is_an_integer_is_understood(unit: int) -> None:
    """Seconds, or a thousandth, a millionth, a billionth of them."""
    trade = {"T": "t", "S": "A", "p": 1.5, "t": int(AT_15.timestamp()) * unit}
    (found,) = MarketDecoder(msgpack=True).decode(msgspec.msgpack.encode([trade]))
    assert found == OptionTrade("A", 1.5, AT_15)


def test_json_is_understood_where_messagepack_is_spoken() -> None:
    """412, that only MessagePack is, comes in a binary frame perhaps, and in JSON perhaps."""
    decoder = MarketDecoder(msgpack=True)
    frame = b'[{"T":"error","code":412,"msg":"option messages are only available in MsgPack"}]'
    assert [type(m) for m in decoder.decode(frame)] == [Refusal]
    assert decoder.malformed == 0


@pytest.mark.parametrize("end", ["1]", ""])
def test_a_frame_of_junk_is_given_up_soon(end: str) -> None:
    """A megabyte of what is no message takes no time from the loop, whole or broken off."""
    frame = '[{"T":"success","msg":"connected"},' + "1," * 500_000 + end
    cost = []
    for _ in range(3):
        decoder = MarketDecoder()
        began = process_time()
        assert decoder.decode(frame) == [Success("connected")]
        cost.append(process_time() - began)
    assert min(cost) < 0.25
    assert decoder.malformed == (500_001 if end else 1_001)


def test_a_change_of_a_book_that_is_lost_is_named() -> None:
    """By its symbol; of a frame that breaks off nobody knows whose it was."""
    decoder = MarketDecoder()
    decoder.decode('[{"T":"o","S":"BTC/USD","b":7},{"T":"q","S":"ETH/USD","bp":[]}]')
    assert decoder.spoiled == {"BTC/USD"}
    decoder.decode('[{"T":"o","S":"BT')
    assert decoder.spoiled == {"BTC/USD", "*"}
