"""What Alpaca has confirmed on one feed, and what of that bots are told.

Owns the step between both: the last price of what is new is looked up before a bot is told that it
has it. Runs in the feed's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic

from alpaca_broker.alpaca.rest import DataRest
from alpaca_broker.core.answers import FeedView
from alpaca_broker.core.feeds import EVERY, Feed, Topic
from alpaca_broker.core.topics import NO_TOPICS, Topics
from alpaca_broker.market.last_prices import LastPrices
from alpaca_broker.market.price_lanes import PriceLanes


class Readiness:
    """One feed's."""

    def __init__(self, feed: Feed, on_view: Callable[[FeedView], None]) -> None:
        self._feed, self._on_view = feed.name, on_view
        self._last_prices = LastPrices(feed)
        self._confirmed = self._ready = NO_TOPICS
        self._settled = asyncio.Event()

    @property
    def traded(self) -> frozenset[str]:
        """Whose trades Alpaca has confirmed."""
        return self._confirmed["trades"]

    def confirmed(self, topics: Topics, *, settled: bool) -> None:
        """Alpaca has answered; `settled` says that nothing is left to be asked."""
        before, self._confirmed = self._confirmed, topics
        if topics is not before and (left := before.without(topics)):
            self._ready = self._ready.without(left)  # when it comes again, it is new
        if settled:
            self._settled.set()

    def over(self) -> None:
        """The link ended: what it had confirmed is no longer true."""
        self._confirmed = self._ready = NO_TOPICS
        self._settled.clear()

    async def run(
        self, rest: DataRest, lanes: PriceLanes, is_ready: Callable[[Topics], None]
    ) -> None:
        """Whenever Alpaca has answered all: look up last prices, then say what is ready."""
        while True:
            await self._settled.wait()
            self._settled.clear()
            confirmed = self._confirmed
            new = sorted(confirmed["trades"] - self._ready["trades"] - {EVERY})
            await self._last_prices.look_up(rest, new, lanes)
            lanes.snapshots.tick(monotonic())
            if confirmed is self._confirmed:  # else more has changed meanwhile
                self._ready = confirmed
                is_ready(confirmed)

    def show(
        self, lanes: PriceLanes, refused: Mapping[Topic, int], *, live: bool, gone: str | None
    ) -> None:
        """Tell what is decided."""
        last = lanes.snapshots.latest.get
        self._on_view(FeedView(self._feed, live, self._ready, refused, last, gone))
