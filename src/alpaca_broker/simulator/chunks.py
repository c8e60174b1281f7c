"""The frames of a replay: which rows go together, and their bytes made ahead of time.

Owns the cut of the rows into chunks. Invariant: the same rows are always cut the same way: at most
a batch, never across a minute, so that bars come in between. It sends nothing.
"""

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import Collection, Sequence

from alpaca_broker.simulator.codec import Codec
from alpaca_broker.simulator.market import MINUTE_NS, Batches, Quote, Trade

AHEAD_ROWS = 1_000_000  # some 150 MB; what lies beyond is encoded when its turn comes
_YIELD_EVERY = 100


class Chunks:
    """Rows in time order, cut into frames."""

    def __init__(self, rows: Sequence[Trade | Quote], batch: int) -> None:
        self.rows = rows
        self.times = array("q", (row.ns for row in rows))
        self._batch = batch
        self._frames: dict[int, dict[Codec, bytes]] = {}
        self._batches: dict[int, Batches] = {}
        self._prepared: set[Codec] = set()

    def end(self, first: int, limit: int) -> int:
        """Where the chunk ends that begins with row `first`, at most at row `limit`."""
        minute = self.times[first] // MINUTE_NS
        last = min(first + self._batch, limit)
        if self.times[last - 1] // MINUTE_NS != minute:
            last = bisect_left(self.times, (minute + 1) * MINUTE_NS, first, last)
        return last

    async def prepare(self, first: int, codecs: Collection[Codec]) -> bool:
        """Encode what comes next in these codecs; False if that was done before.

        A replay at full speed is there to push as hard as it can; the work is done before it
        begins, while its client waits for the first row.
        """
        missing = set(codecs) - self._prepared
        for codec in missing:
            self._prepared.add(codec)
            limit = min(len(self.rows), first + AHEAD_ROWS)
            at, done = first, 0
            while at < limit:
                last = self.end(at, len(self.rows))
                chunk = self.rows[at:last]
                self._frames.setdefault(at, {})[codec] = codec.encode_records(chunk)
                if at not in self._batches:
                    self._batches[at] = Batches(chunk)
                at, done = last, done + 1
                if done % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
        return bool(missing)

    def take(self, first: int, last: int) -> tuple[Batches, dict[Codec, bytes]]:
        """A chunk by symbol, and its frames as far as they were prepared; forgets both."""
        batches = self._batches.pop(first, None) or Batches(self.rows[first:last])
        return batches, self._frames.pop(first, {})
