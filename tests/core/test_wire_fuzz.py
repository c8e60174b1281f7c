"""Frames through the decoder, more under --soak: broken, strange, huge, in the wrong tongue."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from alpaca_broker.core.market_data import OptionTrade, Trade
from alpaca_broker.core.wire import MarketDecoder

FRAMES, SOAK_FRAMES = 10_000, 50_000  # of each codec
HUGE = "x" * 1_000_000
OPTION = "AAPL251219C00150000"
AT = datetime(2026, 1, 5, 15, 0, 0, 123_456, tzinfo=UTC)


def good(number: int, *, msgpack: bool) -> dict[str, Any]:
    """A trade that is told from all others by its size."""
    trade: dict[str, Any] = {"T": "t", "S": OPTION if msgpack else "XYZ", "p": 10.25, "s": number}
    trade |= {"c": "a"} if msgpack else {"c": ["@"], "i": 1}
    return trade | {"x": "V", "t": AT if msgpack else AT.isoformat()}


def strange(chance: random.Random, *, msgpack: bool) -> Any:
    """What is no message, or a malformed one; every one of them is to be counted."""
    message = good(0, msgpack=msgpack)
    match chance.randrange(8):
        case 0:
            return chance.choice([None, 7, -1.5, "text", [], [None], {}, True, ""])
        case 1:
            return message | {"T": chance.choice(["zz", "", "i", None, 5, "T", ["t"]])}
        case 2:  # what must be there is not
            del message[chance.choice(["T", "S", "p", "t"])]
            return message
        case 3:
            field = chance.choice(["S", "p", "t"])
            return message | {field: chance.choice([None, [], {}, True, {"a": [1]}])}
        case 4:
            return message | {"p": chance.choice(["ten", "", "1.5", [1.5]])}
        case 5:
            return message | {"t": chance.choice(["yesterday", "", "2026-01-05T15:00:00", 5])}
        case 6:
            return message | {"S": chance.choice(["", "A" * 65, 5])}
        case _:
            return message | {"s": chance.choice(["many", [1], {}, True])}


Frame = tuple[bytes | str, list[int], int | None]  # what must be read of it, and what is counted


def frame(chance: random.Random, number: int, *, msgpack: bool) -> Frame:
    """A frame, the sizes of the trades in it that must be read, and how often it counts."""
    encode: Callable[[Any], bytes] = msgspec.msgpack.encode if msgpack else msgspec.json.encode
    sizes = [number * 10 + n if chance.random() < 0.6 else 0 for n in range(chance.randint(1, 5))]
    parts = [
        good(size, msgpack=msgpack) if size else strange(chance, msgpack=msgpack) for size in sizes
    ]
    kind = chance.random()
    if kind < 0.0003:
        parts.append({"T": "n", "headline": HUGE})
        sizes.append(0)
    data = encode(parts)
    if kind < 0.7:
        return _as_it_comes(chance, data, msgpack), [s for s in sizes if s], sizes.count(0)
    if kind < 0.85:  # it breaks off
        place = chance.randrange(len(data))
        whole, at = [], 1 + (len(parts) > 15)
        for part, size in zip(parts, sizes, strict=True):
            at += len(encode(part)) + (not msgpack)
            if at - (not msgpack) <= place and size:
                whole.append(size)
        return data[:place], whole, None
    if kind < 0.95:  # one byte is another
        place = chance.randrange(len(data))
        return data[:place] + chance.randbytes(1) + data[place + 1 :], [], None
    if kind < 0.98:
        return chance.randbytes(chance.randrange(200)), [], None
    return _of_another_codec(parts, msgpack), [], None


def _as_it_comes(chance: random.Random, data: bytes, msgpack: bool) -> bytes | str:
    return data if msgpack or chance.random() < 0.3 else data.decode()


def _of_another_codec(parts: list[Any], msgpack: bool) -> bytes:
    return json.dumps(parts, default=str).encode() if msgpack else msgspec.msgpack.encode(parts)


@pytest.mark.soak
@pytest.mark.parametrize("msgpack", [False, True], ids=["json", "msgpack"])
def test_no_frame_raises_or_costs_a_neighbour(msgpack: bool, soak: bool) -> None:
    """What is whole is read, in order; what is not is counted, each once; with a short sample."""
    frames = SOAK_FRAMES if soak else FRAMES
    chance, decoder = random.Random(2), MarketDecoder(msgpack=msgpack)
    kind = OptionTrade if msgpack else Trade
    for number in range(1, frames + 1):
        data, sizes, bad = frame(chance, number, msgpack=msgpack)
        before = decoder.malformed
        found = [m.s for m in decoder.decode(data) if type(m) is kind]
        if bad is None:
            assert found[: len(sizes)] == sizes, data
        else:
            assert found == sizes, data
            assert decoder.malformed - before == bad, data
    assert decoder.malformed > frames * 0.5
    assert len(decoder.sample or "") <= 300


def test_what_comes_as_text_is_json_even_where_messagepack_is_spoken() -> None:
    """An error, say; in a binary frame, too, where it can be nothing else."""
    decoder = MarketDecoder(msgpack=True)
    text = '[{"T":"error","code":412,"msg":"option messages are only available in MsgPack format"}]'
    (refusal,) = decoder.decode(text)
    assert getattr(refusal, "code", None) == 412
    assert decoder.malformed == 0
    assert decoder.decode(text.encode()) == [refusal]
    assert decoder.malformed == 0
    assert decoder.decode(b"{}") == []
    assert decoder.malformed == 1
