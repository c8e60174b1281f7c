"""One market-data feed: its link, its session, what was missed, and what is said of it.

Decodes each frame once and hands each trade to its lane; all else (symbols, pings, reconnects, last
prices) happens beside that way. Knows no other feed, so that its trouble is nobody else's. Runs in
the price producer's loop, in which `want`, `lead` and `missed_since` are called, too.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from time import monotonic, time

import aiohttp

from alpaca_broker.alpaca.hours import MarketHours
from alpaca_broker.alpaca.link import Link, http_session, open_link
from alpaca_broker.alpaca.rest import DataRest
from alpaca_broker.bus.publisher import Publisher
from alpaca_broker.continuity import Continuity
from alpaca_broker.core.accounts import KeyPair
from alpaca_broker.core.answers import FeedView
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.messages import FeedStatus, Gap
from alpaca_broker.core.session import Action, Add, Drop, SendAuth, Session
from alpaca_broker.core.verdicts import NOT_IN_THE_PLAN
from alpaca_broker.core.wire import (
    MarketDecoder,
    Refusal,
    Subscription,
    Success,
    Trade,
    auth_message,
    subscribe_message,
)
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable
from alpaca_broker.price_lanes import PriceLanes
from alpaca_broker.supervision import LinkState, Supervisor
from alpaca_broker.telemetry import Seldom, fields

log = logging.getLogger(__name__)

GREETING_WITHIN_S = 10.0  # Alpaca's own limit for the authentication
ANSWER_WITHIN_S = 15.0  # for a subscription
LOOK_EVERY_S = 1.0
TICK_S = 0.05
MOST_REFUSED = 100  # symbols named in the status; how many there are is told besides
LOOK_UP_AT_ONCE = 500  # symbols in one REST call
LOOK_UP_WITHIN_S = 2.0
LOOK_UPS_PER_MINUTE = 40  # of the 200 REST calls that an account has


class MarketFeed:
    """One feed's way from Alpaca to the lanes."""

    def __init__(
        self,
        *,
        feed: str,
        url: str,
        data_url: str,
        keys: KeyPair,
        channels: Channels,
        hours: MarketHours,
        backfill_trades: int,
        changed: Callable[[], None],
        on_view: Callable[[FeedView], None],
        on_gap: Callable[[Gap], None],
    ) -> None:
        self.name, self._url, self._data_url, self._keys = feed, url, data_url, keys
        self._channels = channels
        self._on_view = on_view
        self._state = LinkState(changed)
        self._supervisor = Supervisor(f"{feed} feed", self._state, advice=self._advice)
        self._decoder = MarketDecoder()
        self._session = Session()
        self._continuity = Continuity(
            *(feed, url, data_url, keys, hours),
            backfill_trades=backfill_trades,
            changed=self._state.changed,
            on_gap=on_gap,
        )
        self._publisher: Publisher | None = None
        self._lanes: PriceLanes | None = None
        self._wanted: tuple[str, ...] = ()
        self._ready: frozenset[str] = frozenset()
        self._wishes, self._settled = asyncio.Event(), asyncio.Event()
        self._epoch = 0
        self._asked_at: float | None = None
        self._waits_for_room = False
        self._complaints, self._waits = Seldom(1.0), Seldom(10.0)
        self._look_ups: list[float] = []

    @property
    def status(self) -> FeedStatus:
        """What the heartbeat says of this feed. May be read from any thread."""
        state, error = self._state.state, self._state.error
        if state == "live" and (trouble := self._trouble()):
            state, error = "stale", trouble
        refused = self._session.parked
        return FeedStatus(
            state=state,
            since=round(self._state.since, 3),
            symbols=len(self._session.acked),
            last_message=self._continuity.last_frame,
            error=error,
            refused=dict(islice(refused.items(), MOST_REFUSED)),
            refused_total=len(refused),
        )

    def _advice(self, refusal: UpstreamRefused) -> str:
        """What to check where Alpaca refuses the link for good."""
        if refusal.code == NOT_IN_THE_PLAN and not refusal.http:
            return (
                f"ALPACA_FEED is {self.name}, which is not in the plan of these keys; iex is free"
            )
        return self._keys.advice

    def _trouble(self) -> str | None:
        """What keeps prices from Redis, though the link is live."""
        publisher = self._publisher
        if publisher is not None and publisher.error is not None:
            return f"prices do not reach Redis: {publisher.error}"
        if publisher is not None and (refusal := publisher.refusal()):
            return f"Redis refuses prices: {refusal}"
        if self._waits_for_room:
            return "Redis is behind: reading from Alpaca waits"
        return self._continuity.trouble

    @property
    def messages(self) -> int:
        """How many prices were published. May be read from any thread."""
        return self._lanes.messages if self._lanes else 0

    @property
    def symbols(self) -> frozenset[str]:
        """What Alpaca has confirmed to send. May be read from any thread."""
        return self._session.acked

    def want(self, symbols: Iterable[str]) -> None:
        """Replace what shall be subscribed; whoever comes first goes first under a limit."""
        self._wanted = tuple(symbols)
        self._wishes.set()

    def missed_since(self, at: float | None) -> None:
        """A broker before us received until `at` (epoch seconds): what follows is a gap."""
        self._continuity.missed_since(at)

    def use(self, publisher: Publisher) -> None:
        """Publish this way; called before each `run`."""
        self._publisher = publisher
        self._lanes = PriceLanes(self.name, self._channels, publisher)
        self._continuity.use(publisher, self._lanes)

    def again(self) -> None:
        """Redis may have forgotten the last prices: write them once more."""
        if self._lanes is not None:
            self._lanes.snapshots.again()

    async def run(self, epoch: int) -> None:
        """Keep the feed alive until cancelled, speaking under this epoch."""
        lanes = self._lanes
        assert lanes is not None, "`use` comes first"
        self._epoch = lanes.epoch = epoch
        ticking = asyncio.create_task(self._tick(lanes), name="snapshots")
        try:
            async with http_session() as http, self._continuity.recovering(http):
                await self._supervisor.run(lambda: self._converse(http, lanes))
            await asyncio.Event().wait()  # refused for good: the others go on
        finally:
            ticking.cancel()
            lanes.snapshots.clear()

    async def _converse(self, http: aiohttp.ClientSession, lanes: PriceLanes) -> None:
        """One link, from opening to its end."""
        session = self._session = Session(self._wanted)
        self._asked_at = None
        try:
            async with open_link(http, self._url) as link, asyncio.TaskGroup() as tasks:
                await self._greet(link, session, lanes)
                self._state.set("live")
                log.info("%s feed is live", self.name, extra=fields(feed=self.name))
                tasks.create_task(self._keep_in_step(link, session), name="wishes")
                tasks.create_task(self._make_ready(http, session, lanes), name="last prices")
                tasks.create_task(self._watch(), name="answers")
                watch = self._continuity.watch(
                    http, lanes, listens=self._listens, traded=lambda: session.acked
                )
                tasks.create_task(watch, name="watch")
                tasks.create_task(link.stay_heard(self._listens), name="pings")
                await self._read(link, session, lanes)
        finally:
            # What a dead link had acknowledged is no longer true, nor are its prices current.
            if session.acked:
                self._continuity.breaks(session.acked, sys.exc_info()[1])
            self._session = Session(self._wanted)
            self._ready = frozenset()
            lanes.snapshots.clear()
            self._show(live=False)

    async def _greet(self, link: Link, session: Session, lanes: PriceLanes) -> None:
        try:
            async with asyncio.timeout(GREETING_WITHIN_S):
                while not session.is_live:
                    await self._hear(await link.receive(), link, session, lanes)
        except TimeoutError as error:
            raise UpstreamUnavailable(self._url, f"{session.state.value} for too long") from error

    async def _read(self, link: Link, session: Session, lanes: PriceLanes) -> None:
        publisher = self._publisher
        assert publisher is not None
        while True:
            frame = await link.receive()
            await self._hear(frame, link, session, lanes)
            if not publisher.has_room:
                await self._wait_for_room(publisher)

    async def _hear(
        self, frame: bytes | str, link: Link, session: Session, lanes: PriceLanes
    ) -> None:
        """Publish a frame's trades; answer its control messages."""
        now = round(time(), 6)
        malformed = self._decoder.malformed
        messages = self._decoder.decode(frame)
        for message in messages:
            if type(message) is Trade:
                lanes.publish(message, now)
            elif isinstance(message, Success | Refusal | Subscription):
                await self._say(link, session.receive(message))
                self._answered(session)
        self._continuity.heard(messages, now)
        if self._decoder.malformed != malformed and self._complaints.may_say():
            log.warning(
                "a market-data message was not understood%s: %s",
                self._complaints.more(),
                self._decoder.sample,
            )

    async def _wait_for_room(self, publisher: Publisher) -> None:
        """Leave Alpaca's data unread until Redis has caught up, for as long as Alpaca bears it."""
        may_say = self._waits.may_say()
        if may_say:
            log.warning("Redis is behind: reading from Alpaca waits (PRICES_WHEN_BEHIND=wait)")
        began, self._waits_for_room = monotonic(), True
        try:
            await publisher.room()
        finally:
            self._waits_for_room = False
        if self._asked_at is not None:
            self._asked_at = monotonic()  # the answer may be in what we have not read yet
        if may_say:
            more = self._waits.more()
            log.info("reading from Alpaca goes on after %.1f s%s", monotonic() - began, more)

    def _listens(self) -> bool:
        return not self._waits_for_room

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
            self._settled.set()

    async def _make_ready(
        self, http: aiohttp.ClientSession, session: Session, lanes: PriceLanes
    ) -> None:
        """Whenever Alpaca has answered all: look up last prices, then tell what is ready."""
        rest = DataRest(http, self._data_url, self._keys)
        while True:
            await self._settled.wait()
            self._settled.clear()
            confirmed = session.acked
            lanes.snapshots.forget(self._ready - confirmed)
            await self._look_up(rest, sorted(confirmed - self._ready - {"*"}), lanes)
            lanes.snapshots.tick(monotonic())
            self._ready = confirmed
            self._show(live=True)
            self._continuity.mends(confirmed, self._epoch)

    async def _look_up(self, rest: DataRest, symbols: list[str], lanes: PriceLanes) -> None:
        """Ask REST for the last trades; where it does not tell, the first print will."""
        for first in range(0, len(symbols), LOOK_UP_AT_ONCE):
            now = monotonic()
            self._look_ups = [at for at in self._look_ups if now - at < 60]
            if len(self._look_ups) >= LOOK_UPS_PER_MINUTE or self.name == "test":
                return
            self._look_ups.append(now)
            part = symbols[first : first + LOOK_UP_AT_ONCE]
            try:
                async with asyncio.timeout(LOOK_UP_WITHIN_S):
                    found = await rest.latest_trades(part, self.name)
            except (UpstreamRefused, UpstreamUnavailable, TimeoutError) as error:
                log.info("no last prices from REST: %s", error or "no answer in time")
                return
            received_at = round(time(), 6)
            for symbol in part:
                if symbol in found:
                    lanes.look_up(symbol, found[symbol], received_at)

    async def _tick(self, lanes: PriceLanes) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            lanes.snapshots.tick(monotonic())

    def _show(self, *, live: bool) -> None:
        lanes = self._lanes
        assert lanes is not None
        refused = dict(self._session.parked)
        self._on_view(FeedView(live, self._ready, refused, lanes.snapshots.latest.get))

    def lost(self, reason: str) -> None:
        """What was read did not reach Redis: it is not sent again, and a gap says so."""
        self._continuity.lost(reason, self._session.acked, self._epoch)

    async def _watch(self) -> None:
        """Hang up where a subscription is not answered.

        Raises:
            UpstreamUnavailable: it was not.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._waits_for_room:
                continue  # we are the ones who do not listen
            now = monotonic()
            if self._asked_at is not None and now - self._asked_at >= ANSWER_WITHIN_S:
                raise UpstreamUnavailable(self._url, "a subscription was not answered")
