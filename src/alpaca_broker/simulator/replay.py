"""Tick files as a live market: when which row is sent.

Owns the position in the files. Invariant: every row is handed on exactly once, in order, and at
full speed only while one session is subscribed to everything there is. It never drops: it waits
for slow clients.
"""

import asyncio
import logging
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

from alpaca_broker.simulator.chunks import Chunks
from alpaca_broker.simulator.market import MINUTE_NS, Market, Quote, Trade
from alpaca_broker.simulator.market_stream import MarketHub
from alpaca_broker.simulator.subscriptions import topic

log = logging.getLogger(__name__)

_VENUE = "stocks"
_YIELD_EVERY = 32  # chunks sent in one go before everything else gets a turn


class Replay:
    """One pass over the rows. `run()` may be cancelled and started again; it goes on."""

    def __init__(
        self, rows: Sequence[Trade | Quote], market: Market, hub: MarketHub, batch: int
    ) -> None:
        self.finished = asyncio.Event()
        self.sent: Counter[str] = Counter()
        self.universe = frozenset(map(topic, rows))
        self._rows = rows
        self._chunks = Chunks(rows, batch)
        self._times = self._chunks.times
        self._market = market
        self._hub = hub
        self._next = 0
        self._spent_s = 0.0

    async def run(self, pace: float | None) -> None:
        """Send what is left: `pace` times as fast as it happened, or (None) as fast as taken."""
        if self.finished.is_set():
            return
        if pace is None:
            await self._run_at_full_speed()
        else:
            await self._run_paced(pace)
        self._hub.publish(_VENUE, self._market.close_minutes(self._times[-1] + MINUTE_NS))
        await self._hub.room()
        log.info("replay finished after %d rows", len(self._rows))
        self.finished.set()

    async def _run_at_full_speed(self) -> None:
        chunks = 0
        while self._next < len(self._rows):
            if not (codecs := self._hub.codecs(_VENUE, self.universe)):
                await self._hub.news()
                continue
            if await self._chunks.prepare(self._next, codecs):
                continue  # that took a while, and the client may have left
            self._send(len(self._rows))
            await self._hub.room()
            chunks += 1
            if chunks % _YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async def _run_paced(self, pace: float) -> None:
        while not self._hub.subscribed(_VENUE):
            await self._hub.news()
        # Time already spent counts when the replay goes on after a restart.
        started = time.monotonic() - self._spent_s
        first_ns = self._times[0]
        while self._next < len(self._rows):
            self._spent_s = time.monotonic() - started
            now_ns = first_ns + int(self._spent_s * pace * 1e9)
            due = bisect_right(self._times, now_ns, self._next)
            while self._next < due:
                self._send(due)
                await self._hub.room()
            self._hub.publish(_VENUE, self._market.close_minutes(now_ns))
            if self._next < len(self._rows):
                next_ns = min(self._times[self._next], self._market.next_minute_ns() or 2**63)
                await asyncio.sleep(max(0.001, (next_ns - now_ns) / 1e9 / pace))

    def _send(self, end: int) -> None:
        """Send one frame's worth of rows, of one minute only, and the bars due before them."""
        first = self._next
        minute_ns = self._times[first] // MINUTE_NS * MINUTE_NS
        if bars := self._market.close_minutes(minute_ns):
            self._hub.publish(_VENUE, bars)
        self._next = last = self._chunks.end(first, end)
        batches, ready = self._chunks.take(first, last)
        self._market.absorb(batches)
        self._hub.publish(_VENUE, self._rows[first:last], universe=self.universe, ready=ready)
        for symbol, trades in batches.trades.items():
            self.sent[symbol] += len(trades)
        self.sent.update(quote.symbol for quote in batches.quotes)
