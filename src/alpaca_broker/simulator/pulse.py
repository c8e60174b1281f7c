"""The simulator's heartbeat: synthetic prices, bars, books, news, and the work of the exchange.

Owns the one loop that follows the wall clock. Invariant: a stalled loop skips what it missed;
it never catches up in a burst longer than a second. Replays have their own clock.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alpaca_broker.simulator.coins import is_pair
from alpaca_broker.simulator.exchange import Exchange
from alpaca_broker.simulator.feeds import Kind
from alpaca_broker.simulator.market import MINUTE_NS, Batches, Record
from alpaca_broker.simulator.market_stream import MarketHub
from alpaca_broker.simulator.newsroom import Newsroom
from alpaca_broker.simulator.venue import Venue
from alpaca_broker.simulator.venues import CRYPTO_VENUE

_BEAT_S = 0.01
_HALF_MINUTE_NS = MINUTE_NS // 2


class Pulse:
    """Moves every venue and the exchange on.

    Args:
        venues: The markets by name.
        newsroom: Writes what the news venue tells.
        hub: Where messages go.
        exchange: Has work to do at each beat.
        clock: Nanoseconds since 1970, as the simulator pretends.
        batch: Most messages in one frame.
        share: How busy a venue is now, from 0 (closed) to 1.
        bands: LULD messages for these symbols; called every half minute.
        tell: Takes a ready-made message for a venue.
    """

    def __init__(
        self,
        venues: Mapping[str, Venue],
        newsroom: Newsroom,
        hub: MarketHub,
        exchange: Exchange,
        clock: Callable[[], int],
        batch: int,
        *,
        share: Callable[[Venue], float],
        bands: Callable[[Sequence[str]], list[dict[str, Any]]],
        tell: Callable[[str, dict[str, Any]], object],
    ) -> None:
        self._venues = venues
        self._newsroom = newsroom
        self._hub = hub
        self._exchange = exchange
        self._clock = clock
        self._batch = batch
        self._share = share
        self._bands = bands
        self._tell = tell
        self._half_minute = 0

    async def run(self) -> None:
        """Beat until cancelled."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(_BEAT_S)
            now_s = time.monotonic()
            passed_s, last = now_s - last, now_s
            now_ns = self._clock()
            for venue in self._venues.values():
                self._advance(venue, now_s, now_ns, passed_s)
            if (half_minute := now_ns // _HALF_MINUTE_NS) != self._half_minute:
                self._half_minute = half_minute
                self._every_half_minute()
            self._exchange.work()

    def _advance(self, venue: Venue, now_s: float, now_ns: int, passed_s: float) -> None:
        alive: Sequence[str] = venue.alive(self._hub.subscribed(venue.name), now_s)
        if venue.name == "news":
            for article in self._newsroom.advance(now_ns, passed_s) if alive else ():
                self._tell(venue.name, article)
        if venue.synthetic is None:
            return
        if more := self._bidden(venue).difference(alive):
            alive = sorted(more.union(alive))
        events = venue.synthetic.advance(alive, now_ns, passed_s * self._share(venue))
        venue.market.absorb(Batches(events))
        self._publish(venue, events)
        self._publish(venue, venue.market.close_minutes(now_ns))
        for update in venue.book_updates() if events else ():
            self._tell(venue.name, update)

    def _bidden(self, venue: Venue) -> set[str]:
        """The symbols of a venue that orders are waiting for."""
        if venue.name not in ("stocks", CRYPTO_VENUE):
            return set()
        coins = venue.kind is Kind.CRYPTO
        return {symbol for symbol in self._exchange.open_symbols() if is_pair(symbol) == coins}

    def _every_half_minute(self) -> None:
        for venue in self._venues.values():
            self._publish(venue, venue.market.updated_bars())
        stocks = self._venues["stocks"]
        if stocks.synthetic is not None and self._share(stocks):
            named = stocks.named(self._hub.subscribed(stocks.name), "lulds")
            for band in self._bands(sorted(named)):
                self._tell(stocks.name, band)

    def _publish(self, venue: Venue, records: Sequence[Record]) -> None:
        for first in range(0, len(records), self._batch):
            self._hub.publish(venue.name, records[first : first + self._batch])
