"""Market data, from Alpaca's stream to the publisher, without a stop in between.

Owns one feed's link, its session and the `seq` of each price channel. Decode the frame once, look
the channel up, encode, append; all else (symbols, pings, reconnects) happens beside that way.
Runs in one loop; `want` and `lead` are called in that loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import monotonic, time

import aiohttp
import msgspec

from alpaca_broker.alpaca.link import Link, open_link
from alpaca_broker.bus.publisher import Publisher, publish_head
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.messages import FeedStatus, PriceUpdate
from alpaca_broker.core.session import Action, Add, Drop, SendAuth, Session
from alpaca_broker.core.wire import (
    MarketDecoder,
    Refusal,
    Subscription,
    Success,
    Trade,
    auth_message,
    subscribe_message,
)
from alpaca_broker.errors import UpstreamUnavailable
from alpaca_broker.settings import KeyPair
from alpaca_broker.supervision import LinkState, Supervisor
from alpaca_broker.telemetry import Seldom, fields

log = logging.getLogger(__name__)

GREETING_WITHIN_S = 10.0  # Alpaca's own limit for the authentication
ANSWER_WITHIN_S = 15.0  # for a subscription
PING_AFTER_S = 10.0  # Alpaca wants to hear something every 20 s (its staff, forum 17678)
SILENT_FOR_S = 25.0
LOOK_EVERY_S = 1.0
DRAIN_WITHIN_S = 1.0
MOST_LANES = 200_000


class Lane:
    """One price channel: the prepared command and the last `seq`."""

    __slots__ = ("head", "seq")

    def __init__(self, channel: str) -> None:
        self.head = publish_head(channel)
        self.seq = 0


class PriceProducer:
    """One feed's way from Alpaca to Redis."""

    def __init__(
        self,
        *,
        feed: str,
        url: str,
        keys: KeyPair,
        channels: Channels,
        publisher: Callable[[], Publisher],
        changed: Callable[[], None],
    ) -> None:
        self._feed, self._url, self._keys = feed, url, keys
        self._channels = channels
        self._make_publisher = publisher
        self._state = LinkState(changed)
        self._supervisor = Supervisor(f"{feed} feed", self._state)
        self._decoder = MarketDecoder()
        self._encode = msgspec.json.Encoder().encode
        self._lanes: dict[str, Lane] = {}
        self._epoch = 0
        self._session = Session()
        self._publisher: Publisher | None = None
        self._wanted: tuple[str, ...] = ()
        self._wishes = asyncio.Event()
        self._leading = asyncio.Event()
        self._asked_at: float | None = None
        self._waits_for_room = False
        self._complaints = Seldom(1.0)
        self._last_frame: float | None = None
        self.messages = 0

    @property
    def status(self) -> FeedStatus:
        """What the heartbeat says of this feed. May be read from any thread."""
        return FeedStatus(
            state=self._state.state,
            since=round(self._state.since, 3),
            symbols=len(self._session.acked),
            last_message=self._last_frame,
            error=self._state.error,
            refused=self._session.parked,
        )

    @property
    def symbols(self) -> frozenset[str]:
        """What Alpaca has confirmed to send. May be read from any thread."""
        return self._session.acked

    def want(self, symbols: Iterable[str]) -> None:
        """Replace what shall be subscribed; whoever comes first goes first under a limit."""
        self._wanted = tuple(symbols)
        self._wishes.set()

    def lead(self, epoch: int) -> None:
        """Speak under this epoch from now on; until then nothing is opened."""
        self._epoch = epoch
        self._leading.set()

    async def run(self) -> None:
        """Keep the feed alive until cancelled; then close it and flush what is left."""
        publisher = self._publisher = self._make_publisher()
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(publisher.run(), name="publisher")
            try:
                await self._leading.wait()
                async with aiohttp.ClientSession() as http:
                    await self._supervisor.run(lambda: self._converse(http))
                await asyncio.Event().wait()  # refused for good: what is published stays flushed
            finally:
                if left := await publisher.drain(DRAIN_WITHIN_S):
                    log.warning("%d prices were not delivered before the end", left)
                writing.cancel()

    async def _converse(self, http: aiohttp.ClientSession) -> None:
        """One link, from opening to its end."""
        session = self._session = Session(self._wanted)
        self._asked_at = None
        try:
            async with open_link(http, self._url) as link, asyncio.TaskGroup() as tasks:
                await self._greet(link, session)
                self._state.set("live")
                log.info("%s feed is live", self._feed, extra=fields(feed=self._feed))
                tasks.create_task(self._keep_in_step(link, session), name="wishes")
                tasks.create_task(self._watch(link), name="watch")
                await self._read(link, session)
        finally:
            # What a dead link had acknowledged is no longer true.
            self._session = Session(self._wanted)

    async def _greet(self, link: Link, session: Session) -> None:
        try:
            async with asyncio.timeout(GREETING_WITHIN_S):
                while not session.is_live:
                    await self._hear(await link.receive(), link, session)
        except TimeoutError as error:
            raise UpstreamUnavailable(self._url, f"{session.state.value} for too long") from error

    async def _read(self, link: Link, session: Session) -> None:
        publisher = self._publisher
        assert publisher is not None
        while True:
            frame = await link.receive()
            await self._hear(frame, link, session)
            if not publisher.has_room:
                await self._wait_for_room(link, publisher)

    async def _hear(self, frame: bytes | str, link: Link, session: Session) -> None:
        """Publish a frame's trades; answer its control messages."""
        now = self._last_frame = round(time(), 6)
        malformed = self._decoder.malformed
        for message in self._decoder.decode(frame):
            if type(message) is Trade:
                self._publish(message, now)
            elif isinstance(message, Success | Refusal | Subscription):
                await self._say(link, session.receive(message))
                self._answered(session)
        if self._decoder.malformed != malformed and self._complaints.may_say():
            log.warning(
                "a market-data message was not understood%s: %s",
                self._complaints.more(),
                self._decoder.sample,
            )

    def _publish(self, trade: Trade, received_at: float) -> None:
        lane = self._lanes.get(trade.S) or self._new_lane(trade.S)
        lane.seq += 1
        self.messages += 1
        self._publisher.publish(  # type: ignore[union-attr]
            lane.head,
            self._encode(
                PriceUpdate(
                    trade.S,
                    trade.p,
                    trade.t.timestamp(),
                    trade.s,
                    trade.x,
                    trade.c,
                    trade.i,
                    self._feed,
                    received_at,
                    lane.seq,
                    self._epoch,
                )
            ),
        )

    def _new_lane(self, symbol: str) -> Lane:
        if len(self._lanes) >= MOST_LANES:
            # Alpaca knows some ten thousand symbols; this is something else, and must not grow.
            raise UpstreamUnavailable(self._url, f"more than {MOST_LANES} different symbols")
        lane = self._lanes[symbol] = Lane(self._channels.price(symbol))
        return lane

    async def _wait_for_room(self, link: Link, publisher: Publisher) -> None:
        """Leave Alpaca's data unread until Redis has caught up: nothing is lost on our side."""
        log.warning("Redis is behind: reading from Alpaca waits (PRICES_WHEN_BEHIND=wait)")
        began, self._waits_for_room = monotonic(), True
        try:
            await publisher.room()
        finally:
            self._waits_for_room = False
        link.heard_at = monotonic()
        log.info("reading from Alpaca goes on after %.1f s", monotonic() - began)

    async def _keep_in_step(self, link: Link, session: Session) -> None:
        while True:
            await self._wishes.wait()
            self._wishes.clear()
            await self._say(link, session.want(self._wanted))

    async def _say(self, link: Link, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case SendAuth():
                    await link.send(auth_message(self._keys.key_id, self._keys.secret))
                case Add(symbols):
                    self._asked_at = monotonic()
                    await link.send(subscribe_message("subscribe", list(symbols)))
                case Drop(symbols):
                    self._asked_at = monotonic()
                    await link.send(subscribe_message("unsubscribe", list(symbols)))

    def _answered(self, session: Session) -> None:
        if session.settled:
            self._asked_at = None
            self._state.changed()

    async def _watch(self, link: Link) -> None:
        """Ping a silent link, and hang up where nothing comes back.

        Raises:
            UpstreamUnavailable: no sign of life, or no answer to a subscription.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = monotonic()
            silent_for = now - link.heard_at
            if silent_for >= PING_AFTER_S:
                await link.ping()
            if self._waits_for_room:
                continue  # we are the ones who do not listen
            if silent_for >= SILENT_FOR_S:
                raise UpstreamUnavailable(self._url, f"no sign of life for {silent_for:.0f} s")
            if self._asked_at is not None and now - self._asked_at >= ANSWER_WITHIN_S:
                raise UpstreamUnavailable(self._url, "a subscription was not answered")
