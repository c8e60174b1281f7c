"""Frames of trades taken as a whole: the same to the byte as message by message, or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alpaca_broker.core.channels import Channels
from alpaca_broker.core.market_data import Trade
from alpaca_broker.core.wire import MarketDecoder
from alpaca_broker.market.price_lanes import PriceLanes
from alpaca_broker.market.trade_frames import COMPILED, PURE_PYTHON

compiled = pytest.mark.skipif(not COMPILED, reason="no C compiler was there at install time")
NOW = 1767625200.5
SYMBOLS = ("XYZ", "AAPL", "BTC/USD", "BRK.B")
USUAL = (
    '{"T":"t","S":"XYZ","i":52983525029461,"x":"V","p":10.25,"s":100,"c":["@","I"],"z":"C",'
    '"t":"2026-01-05T15:00:00.123456789Z"}'
)


class Redis:
    """What a publisher would write, in order."""

    behind = False

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.connected = True

    def publish(self, head: bytes, payload: bytes) -> None:
        self.commands.append(b"%b$%d\r\n%b\r\n" % (head, len(payload), payload))

    def send_all(self, commands: list[bytes]) -> None:
        self.commands += commands


def lanes(*known: str) -> tuple[PriceLanes, Redis]:
    """Lanes that have seen each of these symbols once, under epoch 3."""
    redis = Redis()
    made: Any = PriceLanes("iex", Channels(), redis)  # type: ignore[arg-type]
    made.epoch = 3
    for symbol in known:
        (trade,) = MarketDecoder().decode(f"[{USUAL.replace('XYZ', symbol)}]")
        made.publish(trade, NOW - 1)
    redis.commands.clear()
    made.snapshots.latest.clear()
    made.snapshots.dirty.clear()
    return made, redis


def one_by_one(made: PriceLanes, frame: bytes | str) -> int:
    """Publish each trade of a frame; how many messages it holds that are none, or are broken."""
    decoder = MarketDecoder()
    messages = decoder.decode(frame)
    for message in messages:
        if type(message) is Trade:
            made.publish(message, NOW)
    return decoder.malformed + sum(type(message) is not Trade for message in messages)


def outcome(made: PriceLanes, redis: Redis) -> tuple[object, ...]:
    """Everything that publishing changes."""
    seqs = {symbol: lane.seq for symbol, lane in made._lanes.items()}
    snapshots = made.snapshots
    return (
        *(redis.commands, seqs, made.messages),
        *(dict(snapshots.latest), list(snapshots.dirty), snapshots.noted),
    )


def assert_same_or_declined(frame: bytes | str) -> bool:
    """Take a frame both ways; whether it was taken as a whole."""
    (whole, its), (single, theirs) = lanes(*SYMBOLS), lanes(*SYMBOLS)
    before = outcome(whole, its)
    if not whole.take(frame, NOW):
        assert outcome(whole, its) == before, "declined, but something was done"
        return False
    assert one_by_one(single, frame) == 0, "taken, though Python finds something else in it"
    assert outcome(whole, its) == outcome(single, theirs)
    return True


@compiled
@pytest.mark.parametrize(
    "part",
    [
        USUAL,
        USUAL.replace('"c":["@","I"],', ""),
        USUAL.replace('"c":["@","I"]', '"c":null').replace('"x":"V"', '"x":null'),
        USUAL.replace('"c":["@","I"]', '"c":[]'),
        USUAL.replace("10.25", "10"),
        USUAL.replace("10.25", "10.50"),
        USUAL.replace("10.25", "0.0001"),
        USUAL.replace("10.25", "0"),
        USUAL.replace("10.25", "61234.123456789"),
        USUAL.replace('"s":100', '"s":0.000000000001'.replace("000000000001", "5")),
        USUAL.replace('"s":100', '"s":5.0'),
        USUAL.replace('"s":100,', ""),
        USUAL.replace("00.123456789Z", "00Z"),
        USUAL.replace("00.123456789Z", "00.5Z"),
        USUAL.replace("00.123456789Z", "59.9999999Z"),
        USUAL.replace("2026-01-05", "2028-02-29"),
        USUAL.replace('"z":"C"', '"z":"C","tks":"A","n":1.5,"b":true,"e":null'),
        '{"S":"AAPL","t":"2026-12-31T23:59:59.000000500Z","p":1.5,"T":"t"}',
        '{"T":"t","S":"BTC/USD","p":98123.4,"s":0.00123,"t":"2026-01-05T15:00:00.1Z","i":7,"tks":"B"}',
        USUAL.replace("52983525029461", "3447222699101865076"),  # as of crypto
        USUAL.replace("52983525029461", "9223372036854775807"),
    ],
)
def test_what_alpaca_sends_is_taken_as_a_whole(part: str) -> None:
    """As text and as bytes, alone and among others; no value that Alpaca documents is slow."""
    for frame in (f"[{part}]", f"[{part},{USUAL},{part}]"):
        assert assert_same_or_declined(frame)
        assert assert_same_or_declined(frame.encode())


@compiled
@pytest.mark.parametrize(
    "frame",
    [
        *("", "[]", "[", "{", "null", f"[{USUAL}", f"[{USUAL}]]", f"[{USUAL},]", f"[{USUAL}] "),
        f"[{USUAL},{USUAL.replace('XYZ', 'NEW')}]",  # no lane yet
        f"[{USUAL.replace(chr(34) + 't' + chr(34) + ',', chr(34) + 'q' + chr(34) + ',', 1)}]",
        *(f"[{USUAL.replace('10.25', price)}]" for price in ("-1", "1e5", "01", ".5", "1.", "NaN")),
        f"[{USUAL.replace('10.25', '0.00001')}]",
        f"[{USUAL.replace('10.25', '1234567890.123456')}]",
        f"[{USUAL.replace('52983525029461', '9223372036854775808')}]",
        f"[{USUAL.replace('52983525029461', '1.5')}]",
        "[" + USUAL.replace("XYZ", "X\\u0059Z") + "]",
        f"[{USUAL.replace('XYZ', 'Ü')}]",
        f"[{USUAL.replace('XYZ', '')}]",
        f"[{USUAL.replace('XYZ', 'X' * 65)}]",
        f"[{USUAL.replace('01-05', '02-30')}]",
        f"[{USUAL.replace('15:00:00', '15:00:60')}]",
        f"[{USUAL.replace('789Z', '789+01:00')}]",
        f"[{USUAL.replace('T15', ' 15')}]",
        f"[{USUAL[:-1]},{chr(34)}p{chr(34)}:11}}]",  # the price twice
        f"[{USUAL[:-1]},{chr(34)}more{chr(34)}:{{}}}}]",
        f"[{USUAL.replace(',', ', ')}]",
    ],
)
def test_whatever_is_unusual_is_left_to_the_decoder(frame: str) -> None:
    """A frame is taken whole or not at all; where Python reads the same in it, nothing is lost."""
    assert not assert_same_or_declined(frame)
    assert not assert_same_or_declined(frame.encode())


numbers = st.one_of(
    st.integers(0, 10**19).map(str),
    st.floats(0, 1e17).map(repr),
    st.decimals(0, 10**6, places=9).map(lambda d: format(d, "f")),
    st.from_regex(r"-?[0-9]{1,4}(\.[0-9]{1,6})?(e[+-]?[0-9])?", fullmatch=True),
)
times = st.one_of(
    st.datetimes().map(lambda t: t.isoformat() + "Z"),
    st.from_regex(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{0,10})?Z"
                  , fullmatch=True),
)  # fmt: skip
texts = st.one_of(st.sampled_from((*SYMBOLS, "@", "", "t", "q")), st.text(max_size=5))
quoted = texts.map(lambda text: '"' + text + '"')
values = st.one_of(
    *(numbers, times.map(lambda t: f'"{t}"'), quoted, st.just("null"), st.just("true")),
    st.lists(quoted, max_size=3).map(lambda strings: "[" + ",".join(strings) + "]"),
)


@st.composite
def trades(draw: st.DrawFn) -> str:
    """Mostly a plausible trade, in any order of keys, at times with something odd in it."""
    fields = {
        "T": '"t"',
        "S": f'"{draw(st.sampled_from(SYMBOLS))}"',
        "p": draw(numbers),
        "t": f'"{draw(times)}"',
    }
    for name, kind in (("s", numbers), ("i", numbers), ("x", quoted), ("c", values), ("z", values)):
        if draw(st.booleans()):
            fields[name] = draw(kind)
    pairs = [f'"{name}":{value}' for name, value in fields.items()]
    return "{" + ",".join(draw(st.permutations(pairs))) + "}"


@compiled
@settings(max_examples=250, deadline=None)
@given(st.lists(trades(), min_size=1, max_size=4), st.integers(0, 2000), st.binary(max_size=2))
@example([USUAL], 2000, b"")
def test_no_frame_is_understood_in_two_ways(parts: list[str], at: int, spoiling: bytes) -> None:
    """Whatever comes, spoiled in one place or not: the same as message by message, or declined."""
    frame = f"[{','.join(parts)}]".encode("utf-8", "surrogatepass")
    assert_same_or_declined(frame)
    assert_same_or_declined(frame[:at] + spoiling + frame[at + len(spoiling) :])


@compiled
@settings(max_examples=100, deadline=None)
@given(st.lists(trades(), min_size=1, max_size=8))
@example([USUAL, USUAL.replace("XYZ", "AAPL"), USUAL.replace("10.25", "11.5")])
def test_what_is_kept_while_redis_is_behind_is_the_same_too(parts: list[str]) -> None:
    """The newest of each symbol, in the same order, standing for as many."""
    frame = f"[{','.join(parts)}]"
    (whole, its), (single, theirs) = lanes(*SYMBOLS), lanes(*SYMBOLS)
    its.behind = theirs.behind = True
    if not whole.take(frame, NOW):
        assert not whole.kept.waiting
        return
    assert one_by_one(single, frame) == 0
    assert (whole.kept.skipped, len(whole.kept)) == (single.kept.skipped, len(single.kept))
    its.behind = theirs.behind = False
    whole.kept.release(100)
    single.kept.release(100)
    assert outcome(whole, its) == outcome(single, theirs)


@pytest.mark.skipif(
    shutil.which("cc") is None or not Path(sysconfig.get_paths()["include"], "Python.h").exists(),
    reason="no C compiler is here, or none of Python's headers",
)
def test_a_compiler_that_is_there_is_used() -> None:
    """Else all of the above would be skipped, and nobody would know."""
    assert COMPILED


def test_without_a_compiler_every_frame_is_left_to_the_decoder() -> None:
    """The same switch serves users: ALPACA_BROKER_PURE_PYTHON."""
    text = (
        "from alpaca_broker.market import trade_frames as t;"
        "print(t.COMPILED, t.publish(b'', {}, {}, {}, b'', b''), t.keep(b'', {}, 0.0),"
        "t.Lane(b'head').seq)"
    )
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=os.environ | {PURE_PYTHON: "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == ["False", "None", "None", "0"]
