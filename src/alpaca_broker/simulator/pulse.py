"""The simulator's heartbeat: synthetic prices, bars, books, news, and the work of the exchange.

Owns the one loop that follows the wall clock. Invariant: a stalled loop skips what it missed;
it never catches up in a burst longer than a second. Replays have their own clock.
"""

import asyncio
import time
from collections.abc import Sequence

from alpaca_broker.simulator.exchange import Exchange
from alpaca_broker.simulator.incidents import Incidents
from alpaca_broker.simulator.instruments import instrument_of
from alpaca_broker.simulator.market import MINUTE_NS, Batches, Record
from alpaca_broker.simulator.market_data import MarketData
from alpaca_broker.simulator.market_stream import MarketHub
from alpaca_broker.simulator.options import SimulatorOptions
from alpaca_broker.simulator.trading_hours import TradingHours
from alpaca_broker.simulator.venue import Venue

_BEAT_S = 0.01
_HALF_MINUTE_NS = MINUTE_NS // 2


class Pulse:
    """Moves every venue and the exchange on.

    Args:
        data: The venues, and what is said on them besides trades, quotes and bars.
        hub: Where those go.
        exchange: Has work to do at each beat.
        options: Batch size and incidents.
        hours: What time it is, and how busy the stock market.
    """

    def __init__(
        self,
        data: MarketData,
        hub: MarketHub,
        exchange: Exchange,
        options: SimulatorOptions,
        hours: TradingHours,
    ) -> None:
        self._data = data
        self._hub = hub
        self._exchange = exchange
        self._batch = options.batch
        self._incidents = Incidents(options.seed, options.incidents_per_min)
        self._hours = hours
        self._half_minute = 0

    async def run(self) -> None:
        """Beat until cancelled."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(_BEAT_S)
            now_s = time.monotonic()
            passed_s, last = now_s - last, now_s
            now_ns = self._hours.now_ns()
            for venue in self._data.venues.values():
                self._advance(venue, now_s, now_ns, passed_s)
            if (half_minute := now_ns // _HALF_MINUTE_NS) != self._half_minute:
                self._half_minute = half_minute
                self._every_half_minute()
            self._exchange.work()

    def _advance(self, venue: Venue, now_s: float, now_ns: int, passed_s: float) -> None:
        alive = venue.alive(self._hub.subscribed(venue.name), now_s)
        if venue.name == "news":
            for article in self._data.newsroom.advance(now_ns, passed_s) if alive else ():
                self._data.emit(venue.name, article)
        if venue.synthetic is None:
            return
        share_s, stocks = passed_s * self._share(venue), venue.name == "stocks"
        # Orders wait for prices that nobody else asked for.
        ordered = self._exchange.open_symbols()
        trading = venue.trading(alive, [s for s in ordered if instrument_of(s).venue == venue.name])
        events = venue.synthetic.advance(trading, now_ns, share_s)
        venue.market.absorb(Batches(events))
        self._publish(venue, events)
        self._publish(venue, venue.market.close_minutes(now_ns))
        for update in venue.book_updates() if events else ():
            self._data.emit(venue.name, update)
        for kind, symbol in self._incidents.advance(alive, share_s) if stocks else ():
            self._data.happen(kind, symbol)

    def _every_half_minute(self) -> None:
        for venue in self._data.venues.values():
            self._publish(venue, venue.market.updated_bars())
        stocks = self._data.venues["stocks"]
        if stocks.synthetic is not None and self._share(stocks):
            named = stocks.named(self._hub.subscribed(stocks.name), "lulds")
            for band in self._data.bands(sorted(named)):
                self._data.emit(stocks.name, band)

    def _share(self, venue: Venue) -> float:
        return self._hours.share() if venue.name == "stocks" else 1.0

    def _publish(self, venue: Venue, records: Sequence[Record]) -> None:
        for first in range(0, len(records), self._batch):
            self._hub.publish(venue.name, records[first : first + self._batch])
