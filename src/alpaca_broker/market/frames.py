"""The frames of one link: read, decoded once, each message handed to its lane.

Owns the reading, and where it waits for Redis (`PRICES_WHEN_BEHIND=wait`). A frame of nothing but
trades goes through as a whole; any other is decoded. One bad message costs itself and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import monotonic, time
from typing import Any

from alpaca_broker.alpaca.link import Link
from alpaca_broker.bus.publisher import Publisher
from alpaca_broker.core.feeds import Feed
from alpaca_broker.core.market_data import OptionTrade, Trade
from alpaca_broker.core.wire import CONTROL, Control, MarketDecoder
from alpaca_broker.market.book_repair import BookRepair
from alpaca_broker.market.continuity import Continuity
from alpaca_broker.market.lanes import Lanes
from alpaca_broker.market.pace import Unread
from alpaca_broker.telemetry import Seldom

log = logging.getLogger(__name__)

Say = Callable[[Control], Awaitable[None]]  # take a control message, and answer it


class Frames:
    """One feed's, of one link after the other."""

    def __init__(self, feed: Feed, continuity: Continuity, book_repair: BookRepair) -> None:
        self._whole = not feed.is_msgpack  # whether frames can be taken as a whole
        self._continuity, self._book_repair = continuity, book_repair
        self._decoder = MarketDecoder(msgpack=feed.is_msgpack)
        self._complaints, self._waits = Seldom(1.0), Seldom(10.0)
        self._link: Link | None = None
        self._lanes: Lanes | None = None
        self._unread = Unread(monotonic())
        self.waits_for_room = False

    def begin(self, link: Link, lanes: Lanes) -> None:
        """From now on frames come over this link, and go to these lanes."""
        self._link, self._lanes, self._unread = link, lanes, Unread(monotonic())

    def end(self) -> None:
        """The link has ended."""
        self._link = None

    def unread_s(self, now: float) -> float:
        """How old what has arrived lies unread."""
        link = self._link
        return 0.0 if link is None else self._unread.seconds(now, link.read, link.unread)

    async def read(self, say: Say, excuse: Callable[[], None]) -> None:
        """Read frames until the link ends; `excuse` is told where that had to wait.

        Raises:
            UpstreamUnavailable: the link has ended.
            UpstreamRefused, RemoteProtocolError: what `say` makes of a control message.
        """
        assert self._link is not None, "`begin` comes first"
        assert self._lanes is not None
        link, lanes = self._link, self._lanes
        publisher, prices = lanes.publisher, lanes.prices
        while True:
            frame = await link.receive()
            now = round(time(), 6)
            whole = self._whole and not self._continuity.reads_trades
            if whole and prices.take(frame, now):
                self._continuity.heard_trades(now)
            else:
                await self.hear(frame, say)
            if not publisher.has_room:
                await self._wait_for_room(publisher)
                excuse()

    async def hear(self, frame: bytes | str, say: Say) -> None:
        """Publish a frame's data; answer its control messages."""
        assert self._lanes is not None, "`begin` comes first"
        prices, others = self._lanes.prices, self._lanes.others
        now = round(time(), 6)
        malformed = self._decoder.malformed
        messages: list[Any] = self._decoder.decode(frame)  # `type` decides, unseen by mypy
        for message in messages:
            kind = type(message)
            if kind is Trade or kind is OptionTrade:
                prices.publish(message, now)
            elif kind in CONTROL:
                await say(message)
            else:
                others.publish(message, now)
        self._continuity.heard(messages, now)
        if self._decoder.malformed != malformed and self._complaints.may_say():
            log.warning(
                "a market-data message was not understood%s: %s",
                self._complaints.more(),
                self._decoder.sample,
            )
        if self._decoder.spoiled:
            self._book_repair.spoil(self._decoder.spoiled)
            self._decoder.spoiled.clear()

    async def _wait_for_room(self, publisher: Publisher) -> None:
        """Leave Alpaca's data unread until Redis has caught up, for as long as Alpaca bears it."""
        may_say = self._waits.may_say()
        if may_say:
            log.warning("Redis is behind: reading from Alpaca waits (PRICES_WHEN_BEHIND=wait)")
        began, self.waits_for_room = monotonic(), True
        try:
            await publisher.room()
        finally:
            self.waits_for_room = False
        if may_say:
            more = self._waits.more()
            log.info("reading from Alpaca goes on after %.1f s%s", monotonic() - began, more)
