"""The last price of each subscribed symbol, in the hash `price:last`.

Owns what is dirty and when it is written: within 100 ms in calm, within a second under load, by way
of the publisher, so that a snapshot never overtakes its price. After a gap all is deleted, until
a newer price or REST says what is true: it never shows an old price as if it were current.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from alpaca_broker.bus.pipe import command
from alpaca_broker.bus.publisher import Publisher

CALM_AFTER_S = 0.1
AT_LATEST_S = 0.9
PRICES_PER_WRITE = 10  # under load a write must stand for that many prices, or wait
FIELDS_AT_ONCE = 500
FIELDS_PER_S = 12_000  # a field costs as much as the price itself: beyond, it waits for a newer one


class _Time(Struct):
    timestamp: float


_time = msgspec.json.Decoder(_Time)


class Snapshots:
    """Notes prices, and writes those that changed. Time is an argument."""

    def __init__(self, publisher: Publisher, key: str) -> None:
        self._publisher, self._key = publisher, key.encode()
        self._current: frozenset[str] | None = None  # whose prices are so; None: everyone's
        self._written_at = float("-inf")
        self.latest: dict[str, bytes] = {}
        self.dirty: dict[str, None] = {}  # symbols whose latest price is not yet written
        self.noted = 0  # prices since the last write
        self.writes = 0

    def note(self, symbol: str, payload: bytes) -> None:
        """A price was published."""
        self.latest[symbol] = payload
        self.dirty[symbol] = None
        self.noted += 1

    def times(self) -> dict[str, float]:
        """When each symbol last traded, as far as it is known."""
        decode = _time.decode
        return {symbol: decode(payload).timestamp for symbol, payload in self.latest.items()}

    def tick(self, now: float) -> None:
        """Write what changed, where it is time."""
        if self._current is not None and (strays := self.dirty.keys() - self._current):
            self.forget(strays)  # one came late: nothing follows that would keep it current
        if not self.dirty or not self._publisher.connected:
            return
        waited = now - self._written_at
        writes = 1 + len(self.dirty) // FIELDS_AT_ONCE
        calm = waited >= CALM_AFTER_S and (
            self.noted >= PRICES_PER_WRITE * writes or self.noted <= PRICES_PER_WRITE
        )
        calm = calm and len(self.dirty) <= FIELDS_PER_S * waited
        if calm or waited >= AT_LATEST_S:
            self.write(now)

    def write(self, now: float) -> None:
        """Write what changed."""
        symbols = list(self.dirty)
        self.dirty.clear()
        self.noted = 0
        self._written_at = now
        for first in range(0, len(symbols), FIELDS_AT_ONCE):
            words = [b"HSET", self._key]
            for symbol in symbols[first : first + FIELDS_AT_ONCE]:
                words += (symbol.encode(), self.latest[symbol])
            self._publisher.send(command(*words))
            self.writes += 1

    def forget(self, symbols: Iterable[str]) -> None:
        """These symbols left Alpaca: their prices are no longer current."""
        known = [s for s in symbols if self.latest.pop(s, None) is not None]
        for symbol in known:
            self.dirty.pop(symbol, None)
        for first in range(0, len(known), FIELDS_AT_ONCE):
            names = (s.encode() for s in known[first : first + FIELDS_AT_ONCE])
            self._publisher.send(command(b"HDEL", self._key, *names))

    def keep_only(self, symbols: frozenset[str] | None) -> None:
        """From now on only these symbols come, or all; of others no price is current."""
        self._current = symbols
        if symbols is not None:
            self.forget(self.latest.keys() - symbols)

    def clear(self) -> None:
        """A gap begins: nothing that was is current."""
        self.forget(list(self.latest))

    def again(self) -> None:
        """Redis may have forgotten: write everything once more."""
        self.dirty = dict.fromkeys(self.latest)
