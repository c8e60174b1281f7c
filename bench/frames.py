"""What is sent, made in advance: frames of trades, and the PUBLISH commands for the same trades.

Owns the synthetic trades and their wire forms. Pure: the same arguments are the same bytes. A frame
carries a placeholder of fixed width where the time goes, so that stamping is one `bytes.replace`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import product
from string import ascii_uppercase
from typing import Any

import msgspec

from alpaca_broker.bus.pipe import publish_head
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.messages import PriceUpdate

PACKED_PLACE = b"\xfe\xdc\xba\x98\x76\x54\x32\x10"
TEXT_PLACE = b"@@@@-@@-@@T@@:@@:@@.@@@@@@@@@Z"
LEAST_PER_CYCLE = 1_000  # so that few symbols do not mean that the same bytes come all the time
BLOCK_BYTES = 64 * 1024

_TEXT, _BINARY = 0x81, 0x82  # a final frame, unmasked


def symbols(count: int) -> list[str]:
    """`count` different symbols of four letters."""
    names = ("".join(letters) for letters in product(ascii_uppercase, repeat=4))
    return [name for name, _ in zip(names, range(count), strict=False)]


@dataclass(frozen=True)
class Cycle:
    """Frames that are sent over and over, WebSocket headers included."""

    frames: tuple[bytes, ...]
    batch: int
    place: bytes

    @property
    def messages(self) -> int:
        """Messages in one cycle."""
        return len(self.frames) * self.batch

    def stamped(self, index: int, ns: int) -> bytes:
        """One frame, its messages of this moment."""
        return self.frames[index].replace(self.place, stamp(ns, packed=self.place == PACKED_PLACE))

    def blocks(self, ns: int) -> list[bytes]:
        """The whole cycle in few pieces, all of one moment."""
        blocks, block = [], bytearray()
        for index in range(len(self.frames)):
            block += self.stamped(index, ns)
            if len(block) >= BLOCK_BYTES:
                blocks.append(bytes(block))
                block.clear()
        return [*blocks, bytes(block)] if block else blocks


def cycle(names: Sequence[str], batch: int, *, packed: bool) -> Cycle:
    """Every symbol in turn, `batch` messages in a frame, as JSON or MessagePack."""
    rounds = -(-max(LEAST_PER_CYCLE, len(names), batch) // batch)
    trades = _trades(names)
    encode = msgspec.msgpack.encode if packed else msgspec.json.encode
    place: Any = msgspec.msgpack.Ext(-1, PACKED_PLACE) if packed else TEXT_PLACE.decode()
    frames = tuple(
        _wire(encode([next(trades) | {"t": place} for _ in range(batch)]), packed=packed)
        for _ in range(rounds)
    )
    return Cycle(frames, batch, PACKED_PLACE if packed else TEXT_PLACE)


def stamp(ns: int, *, packed: bool) -> bytes:
    """A moment as Alpaca writes it, always of the same width."""
    seconds, nanos = divmod(ns, 10**9)
    if packed:
        return (nanos << 34 | seconds).to_bytes(8, "big")
    return b"%s.%09dZ" % (_second(seconds), nanos)


def commands(
    names: Sequence[str], count: int, *, prefix: str = "", epoch: int, ns: int
) -> list[bytes]:
    """`count` PUBLISH commands as the broker would write them, `seq` from 1 for each symbol."""
    channels, encode = Channels(prefix), msgspec.json.Encoder().encode
    heads = {name: publish_head(channels.price(name)) for name in names}
    trades, made, when = _trades(names), [], round(ns / 1e9, 6)
    for number in range(count):
        trade = next(trades)
        payload = encode(
            PriceUpdate(
                *(trade["S"], trade["p"], when, trade["s"], trade["x"], trade["c"], trade["i"]),
                *("sip", when, number // len(names) + 1, epoch),
            )
        )
        made.append(b"%b$%d\r\n%b\r\n" % (heads[trade["S"]], len(payload), payload))
    return made


def _trades(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Endless trades, each symbol in turn, with the fields that Alpaca sends."""
    number = 0
    while True:
        for name in names:
            number += 1
            yield {
                "T": "t",
                "S": name,
                "i": 52_983_525_000_000 + number,
                "x": "VDPQ"[number % 4],
                "p": (1_000_000 + number * 37 % 90_000) / 10_000,
                "s": 1 + number * 7 % 400,
                "c": ["@", "I"] if number % 3 else ["@"],
                "z": "C",
            }


def _wire(payload: bytes, *, packed: bool) -> bytes:
    head = bytes([_BINARY if packed else _TEXT])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return head + b"\x7e" + len(payload).to_bytes(2, "big") + payload
    return head + b"\x7f" + len(payload).to_bytes(8, "big") + payload


@lru_cache(maxsize=16)
def _second(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
