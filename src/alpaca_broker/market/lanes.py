"""All that one feed publishes: its prices, and everything else.

Owns what both have in common: they begin with an epoch, wait for Redis, and end with a link; and
nothing is kept as current of what Alpaca does not send. Runs in the price producer's loop.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from alpaca_broker.bus.publisher import Publisher
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.feeds import EVERY, Topic
from alpaca_broker.core.topics import NO_TOPICS, Topics
from alpaca_broker.market.conflation import Conflation
from alpaca_broker.market.market_lanes import MarketLanes
from alpaca_broker.market.price_lanes import PriceLanes


class Lanes:
    """One feed's, of one publisher."""

    def __init__(
        self,
        feed: str,
        channels: Channels,
        publisher: Publisher,
        is_wanted: Callable[[Topic], bool],
    ) -> None:
        self.publisher = publisher
        self.prices = PriceLanes(feed, channels, publisher)
        self.others = MarketLanes(feed, channels, publisher, is_wanted)
        # What waits for Redis, where something newer replaces it: prices and quotes.
        self._kept: tuple[Conflation[Any], ...] = (self.prices.kept, self.others.kept)

    @property
    def skipped(self) -> int:
        """How many messages newer ones have replaced."""
        return sum(kept.skipped for kept in self._kept)

    @property
    def turned_away(self) -> int:
        """How many messages came of symbols for which there was no place any more."""
        return self.prices.turned_away + self.others.turned_away

    def begin(self, epoch: int) -> None:
        """Speak under this epoch."""
        self.prices.epoch = self.others.epoch = epoch

    def release(self, most: int) -> bool:
        """Publish so many of what was kept; whether there is still more."""
        for kept in self._kept:
            kept.release(most)
        return any(self._kept)

    def confirmed(self, topics: Topics) -> None:
        """Only of these does anything come from now on."""
        traded = topics["trades"]
        self.prices.snapshots.keep_only(None if EVERY in traded else traded)
        self.others.keep_books(topics["orderbooks"])

    def tick(self) -> None:
        """Write what is due: last prices, and whole books."""
        now = monotonic()
        self.prices.snapshots.tick(now)
        self.others.tick(now)

    def again(self) -> None:
        """Redis may have forgotten the last prices, and bots may have missed changes of books."""
        self.prices.snapshots.again()
        self.others.show_books({EVERY})

    def link_ended(self) -> None:
        """Nothing that was is current."""
        self.confirmed(NO_TOPICS)
