"""The simulator's heartbeat: synthetic prices, bars, and the work of the exchange.

Owns the one loop that follows the wall clock. Invariant: a stalled loop skips what it missed;
it never catches up in a burst longer than a second. Replays have their own clock.
"""

import asyncio
import time
from collections.abc import Collection, Sequence

from alpaca_broker.simulator.exchange import Exchange
from alpaca_broker.simulator.market import Batches, Market, Record
from alpaca_broker.simulator.market_stream import MarketHub
from alpaca_broker.simulator.subscriptions import STAR
from alpaca_broker.simulator.synthetic import TEST_SYMBOL, UNIVERSE, SyntheticMarket

_BEAT_S = 0.01


class Pulse:
    """Moves the synthetic markets and the exchange on; the test feed always has one."""

    def __init__(
        self,
        synthetic: SyntheticMarket,
        market: Market,
        hub: MarketHub,
        exchange: Exchange,
        batch: int,
        *,
        with_stocks: bool,
    ) -> None:
        self._synthetic = synthetic
        self._market = market
        self._test_market = Market(lambda symbol, trades: None)
        self._hub = hub
        self._exchange = exchange
        self._batch = batch
        self._with_stocks = with_stocks

    async def run(self) -> None:
        """Beat until cancelled."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(_BEAT_S)
            now = time.monotonic()
            passed_s, last = now - last, now
            if self._with_stocks:
                wanted = self._wanted(UNIVERSE, test=False) | set(self._exchange.open_symbols())
                self._advance(self._market, wanted - {TEST_SYMBOL}, passed_s, test=False)
            wanted = self._wanted((TEST_SYMBOL,), test=True) & {TEST_SYMBOL}
            self._advance(self._test_market, wanted, passed_s, test=True)
            self._exchange.work()

    def _wanted(self, everything: Collection[str], *, test: bool) -> set[str]:
        topics = self._hub.subscribed(test=test)
        named = {symbol for _, symbol in topics if symbol != STAR}
        return named.union(everything) if any(s == STAR for _, s in topics) else named

    def _advance(self, market: Market, symbols: set[str], passed_s: float, *, test: bool) -> None:
        now_ns = time.time_ns()
        # Sorted, so that the order of messages does not depend on the hash seed.
        events = self._synthetic.advance(sorted(symbols), now_ns, passed_s)
        market.absorb(Batches(events))
        self._publish(events, test=test)
        self._publish(market.close_minutes(now_ns), test=test)

    def _publish(self, records: Sequence[Record], *, test: bool) -> None:
        for first in range(0, len(records), self._batch):
            self._hub.publish(records[first : first + self._batch], test=test)
