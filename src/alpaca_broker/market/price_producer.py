"""All market data, in one loop of its own.

Owns the publisher and the feeds, and says under which epoch they speak. A feed's trouble never
touches another. `want`, `missed_since` and `lead` are called in its loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from time import monotonic

from alpaca_broker.alpaca.hours import MarketHours
from alpaca_broker.bus.pipe import command
from alpaca_broker.bus.publisher import Publisher
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.feeds import NOTHING, Topic, Wanted
from alpaca_broker.core.messages import FeedStatus
from alpaca_broker.market.market_feed import MarketFeed
from alpaca_broker.market.pace import Pace
from alpaca_broker.telemetry import Seldom
from alpaca_broker.tenure import Tenure

log = logging.getLogger(__name__)

DRAIN_WITHIN_S = 1.0
SHOWN_FOR_S = 2.0  # so that a heartbeat shows what was short


class PriceProducer:
    """Keeps every configured feed alive and published."""

    def __init__(
        self,
        feeds: tuple[MarketFeed, ...],
        *,
        channels: Channels,
        hours: MarketHours,
        publisher: Callable[[], Publisher],
    ) -> None:
        self.feeds = feeds
        for feed in feeds:
            feed.keys_are_good = lambda: any(feed.was_live for feed in self.feeds)
        self._hours = hours
        self._last = channels.last.encode()
        self._make_publisher = publisher
        self._publisher: Publisher | None = None
        self._tenure = Tenure()
        self._fell_behind_at = float("-inf")
        self._complaints = Seldom(10.0)

    @property
    def status(self) -> dict[str, FeedStatus]:
        """What the heartbeat says of each feed. May be read from any thread."""
        return {feed.name: feed.status for feed in self.feeds}

    @property
    def messages(self) -> int:
        """How many prices were published. May be read from any thread."""
        return sum(feed.messages for feed in self.feeds)

    @property
    def conflating(self) -> bool:
        """Whether newer prices replace older ones, now or a moment ago."""
        publisher = self._publisher
        if publisher is None:
            return False
        return publisher.behind or monotonic() - self._fell_behind_at < SHOWN_FOR_S

    @property
    def topics(self) -> frozenset[Topic]:
        """What Alpaca has confirmed to send. May be read from any thread."""
        return frozenset[Topic]().union(*(feed.topics for feed in self.feeds))

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols of those topics."""
        return frozenset[str]().union(*(feed.symbols for feed in self.feeds))

    def want(self, wanted: Mapping[str, Wanted]) -> None:
        """Replace what shall be subscribed, by the feeds' names."""
        for feed in self.feeds:
            if (new := wanted.get(feed.name, NOTHING)) != feed.wanted:
                feed.want(new)

    def show_books(self, symbols: frozenset[str]) -> None:
        """Somebody begins to listen to these order books."""
        for feed in self.feeds:
            feed.show_books(symbols)

    def missed_since(self, received: Mapping[str, float]) -> None:
        """A broker before us received each feed until then (epoch seconds)."""
        for feed in self.feeds:
            feed.missed_since(received.get(feed.name))

    def lead(self, epoch: int) -> None:
        """Speak under this epoch from now on; until then nothing is opened."""
        self._tenure.begin(epoch)

    def unlead(self) -> None:
        """Another broker leads: close the feeds, and drop what is not written."""
        self._tenure.end()

    async def run(self) -> None:
        """Keep all feeds alive while we lead, until cancelled."""
        await self._tenure.run(self._serve)

    async def _serve(self, epoch: int) -> None:
        """One epoch, with a publisher and lanes of its own; at an end in order all is flushed."""
        publisher = self._publisher = self._make_publisher()
        for feed in self.feeds:
            feed.use(publisher)
        publisher.on_connected = self._again
        publisher.on_lost = self._lost
        pace = Pace(publisher, self._unread_s, self._release, self._behind)
        publisher.on_behind = lambda: pace.begin("Redis is behind", monotonic())
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(publisher.run(), name="publisher")
            try:
                publisher.send(command(b"DEL", self._last))  # whatever is there is from before
                async with asyncio.TaskGroup() as feeding:
                    feeding.create_task(self._hours.run(), name="market hours")
                    if publisher.conflates:
                        feeding.create_task(pace.run(), name="pace")
                    for feed in self.feeds:
                        feeding.create_task(feed.run(epoch), name=f"{feed.name} feed")
            finally:
                is_ours = self._tenure.epoch == epoch
                if is_ours and (left := await publisher.drain(DRAIN_WITHIN_S)):
                    log.warning("%d prices were not delivered before the end", left)
                writing.cancel()

    def _behind(self, why: str) -> None:
        self._fell_behind_at = monotonic()
        if self._complaints.may_say():
            log.warning(
                "more comes than fits (%s): newer prices replace older ones that wait%s",
                *(why, self._complaints.more()),
            )

    def _unread_s(self, now: float) -> float:
        return max(feed.unread_s(now) for feed in self.feeds)

    def _release(self, most: int) -> bool:
        """Hand over what was kept, a piece of each feed; whether there is still more."""
        return any([feed.release(most) for feed in self.feeds])

    def _again(self) -> None:
        """Redis is back, and may not have what it was told: only what is current goes there."""
        if self._publisher is not None:
            self._publisher.send(command(b"DEL", self._last))
        for feed in self.feeds:
            feed.again()

    def _lost(self, commands: int) -> None:
        """Redis went away with messages in its hands: each feed may have lost some."""
        for feed in self.feeds:
            if feed.symbols:
                feed.lost(f"Redis did not acknowledge {commands} messages")
