"""One market-data feed: its link, its session, what was missed, and what is said of it.

Decodes each frame once and hands each message to its lane; all else (topics, pings, reconnects,
last prices) happens beside that way. A feed that is opened on demand is `idle` while nobody wants
anything of it. Knows no other feed, so that its trouble is nobody else's. Runs in the price
producer's loop, in which `want` and `missed_since` are called, too.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Collection
from itertools import islice

import aiohttp

from alpaca_broker.alpaca.link import Link, http_session, open_link
from alpaca_broker.bus.publisher import Publisher
from alpaca_broker.core.answers import FeedView
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.feeds import NOTHING, Topic, Wanted, shown
from alpaca_broker.core.health import takes_canary
from alpaca_broker.core.messages import FeedStatus, Gap
from alpaca_broker.core.session import Session
from alpaca_broker.core.topics import Topics
from alpaca_broker.core.verdicts import NOT_IN_THE_PLAN
from alpaca_broker.core.wire import Control
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable
from alpaca_broker.market.book_repair import BookRepair
from alpaca_broker.market.continuity import Continuity
from alpaca_broker.market.frames import Frames, Say
from alpaca_broker.market.lanes import Lanes
from alpaca_broker.market.need import Need
from alpaca_broker.market.questions import Questions
from alpaca_broker.market.readiness import Readiness
from alpaca_broker.market.upstream import Upstream
from alpaca_broker.supervision import LinkState, Supervisor
from alpaca_broker.telemetry import fields

log = logging.getLogger(__name__)

GREETING_WITHIN_S = 10.0  # Alpaca's own limit for the authentication
TICK_S = 0.05
MOST_REFUSED = 100  # symbols named in the status; how many there are is told besides


class MarketFeed:
    """One feed's way from Alpaca to the lanes."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        channels: Channels,
        linger_s: float,
        changed: Callable[[], None],
        on_view: Callable[[FeedView], None],
        on_gap: Callable[[Gap], None],
    ) -> None:
        self._upstream, self._channels = upstream, channels
        feed = self.feed = upstream.feed
        self.name = feed.name
        self._need = Need(always=not feed.on_demand, linger_s=linger_s)
        self._state = LinkState(changed)
        if feed.on_demand:
            self._state.state = "idle"
        self.keys_are_good: Callable[[], bool] = lambda: False  # as another feed has found
        self._supervisor = Supervisor(
            *(f"{feed.name} feed", self._state),
            advice=self._advice,
            keys_are_good=lambda: self.keys_are_good(),
        )
        self._session = Session()
        self._continuity = Continuity(upstream, changed=self._state.changed, on_gap=on_gap)
        self._lanes: Lanes | None = None
        self.wanted: Wanted = NOTHING
        self._canary = upstream.canary
        self._readiness = Readiness(feed, on_view)
        self._wishes = asyncio.Event()
        self._epoch = 0
        self._book_repair = BookRepair()
        self._frames = Frames(feed, self._continuity, self._book_repair)

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
            symbols=len(self.symbols),
            last_message=self._continuity.whole_at,
            error=error,
            refused={shown(t): code for t, code in islice(refused.items(), MOST_REFUSED)},
            refused_total=len(refused),
            skipped=self._lanes.skipped if self._lanes else 0,
            turned_away=self._lanes.turned_away if self._lanes else 0,
        )

    @property
    def was_live(self) -> bool:
        """Whether Alpaca has ever let us in, that is, whether the keys are good."""
        return self._state.ever_live

    def unread_s(self, now: float) -> float:
        """How old what has arrived from Alpaca lies unread."""
        return self._frames.unread_s(now)

    def release(self, most: int) -> bool:
        """Redis has caught up: publish so many of what was kept; whether there is still more."""
        lanes = self._in_use
        if lanes.release(most):
            return True
        if left_out := lanes.others.left_out:
            lanes.others.left_out = 0
            self.lost(f"Redis was behind: {left_out} messages were left out")
        return False

    def _advice(self, refusal: UpstreamRefused) -> str:
        """What to check where Alpaca refuses the link for good."""
        if refusal.code == NOT_IN_THE_PLAN and not refusal.http:
            return self.feed.not_in_the_plan
        return self._upstream.keys.advice

    def _trouble(self) -> str | None:
        """What keeps prices from Redis, though the link is live."""
        if (lanes := self._lanes) is not None:
            if lanes.publisher.error is not None:
                return f"prices do not reach Redis: {lanes.publisher.error}"
            if refusal := lanes.publisher.refusal():
                return f"Redis refuses prices: {refusal}"
        if self._frames.waits_for_room:
            return "Redis is behind: reading from Alpaca waits"
        return self._continuity.trouble

    @property
    def messages(self) -> int:
        """How many prices were published. May be read from any thread."""
        return self._lanes.prices.messages if self._lanes else 0

    @property
    def topics(self) -> Topics:
        """What Alpaca has confirmed to send. May be read from any thread."""
        return self._session.acked

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols of those topics."""
        return self._session.acked.symbols

    def want(self, wanted: Wanted) -> None:
        """Replace what shall be subscribed; whoever comes first goes first under a limit."""
        self.wanted = wanted
        self._wishes.set()
        self._need.set(bool(wanted.topics))
        self._follow()

    def _topics(self) -> Wanted:
        """What to ask Alpaca for: what bots want, and the canary where there is a place for it."""
        wanted, canary = self.wanted, self._canary
        if canary is None or not takes_canary(wanted.sets, canary, self._session.parked):
            return wanted
        return wanted.plus(canary)

    def _follow(self) -> None:
        """Recover the trades that bots asked for, and the minute bars that they hear."""
        trades = self.wanted.extras["backfill"]
        self._continuity.follow(trades, self.wanted.sets["bars"])

    def missed_since(self, at: float | None) -> None:
        """A broker before us received until `at` (epoch seconds): what follows is a gap."""
        self._continuity.missed_since(at)

    def use(self, publisher: Publisher) -> None:
        """Publish this way; called before each `run`."""
        lanes = self._lanes = Lanes(self.name, self._channels, publisher, self._is_wanted)
        self._continuity.use(publisher, lanes.prices, lanes.others)
        self._follow()

    @property
    def _in_use(self) -> Lanes:
        assert self._lanes is not None, "`use` comes first"
        return self._lanes

    def again(self) -> None:
        """Redis may have forgotten what it was told."""
        self._in_use.again()

    def show_books(self, symbols: frozenset[str]) -> None:
        """Somebody begins to listen to these order books: tell them whole."""
        if self._lanes is not None:
            self._lanes.others.show_books(symbols)

    async def run(self, epoch: int) -> None:
        """Keep the feed alive until cancelled, speaking under this epoch."""
        lanes, self._epoch = self._in_use, epoch
        lanes.begin(epoch)
        if self._state.state == "refused":
            self._state.set("idle")  # that was in an epoch that was lost: ask anew
        try:
            async with http_session() as http, self._continuity.recovering(http):
                while True:
                    if not self._need.is_there:
                        self._continuity.begin_anew()  # what nobody wanted was not missed
                        await self._need.begins()
                    await self._stay_connected(http, lanes)
                    if self._state.state == "refused":
                        self._show(live=False)
                        await self._need.ends()  # the others go on; who asks later asks anew
                        self._state.set("idle")
                        self._show(live=False)
        finally:
            lanes.prices.snapshots.clear()

    async def _stay_connected(self, http: aiohttp.ClientSession, lanes: Lanes) -> None:
        """Until Alpaca refuses for good, or nobody has wanted anything for a while."""
        link = asyncio.create_task(self._supervisor.run(lambda: self._converse(http, lanes)))
        idle = asyncio.create_task(self._need.ends())
        ticking = asyncio.create_task(self._tick(lanes))
        try:
            await asyncio.wait((link, idle), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (link, idle, ticking):
                task.cancel()
            await asyncio.gather(link, idle, ticking, return_exceptions=True)
        if link.cancelled():
            self._continuity.begin_anew()  # also where somebody wants something again by now
            log.info("%s feed: nobody wants anything of it, so it is closed", self.name)
        elif (error := link.exception()) is not None:
            raise error

    async def _converse(self, http: aiohttp.ClientSession, lanes: Lanes) -> None:
        """One link, from opening to its end."""
        topics, upstream = self._topics(), self._upstream
        session = self._session = Session(topics.topics, topics.sets)
        opening = open_link(http, upstream.url, msgpack=self.feed.is_msgpack)
        try:
            async with opening as link, asyncio.TaskGroup() as tasks:
                talk = Questions(link, upstream.url, upstream.keys, msgpack=self.feed.is_msgpack)
                self._frames.begin(link, lanes)

                async def say(message: Control) -> None:
                    await talk.say(session.receive(message))
                    self._answered(talk, session, lanes)

                await self._greet(link, session, say)
                self._state.set("live")
                log.info("%s feed is live", self.name, extra=fields(feed=self.name))
                tasks.create_task(self._keep_in_step(talk, session), name="wishes")
                made_ready = self._readiness.run(upstream.rest(http), lanes.prices, self._is_ready)
                tasks.create_task(made_ready, name="last prices")
                mended = self._book_repair.run(session, talk, self._book_is_wrong)
                tasks.create_task(mended, name="books")
                tasks.create_task(talk.watch(self._listens), name="answers")
                watch = self._continuity.watch(
                    *(http, lanes.prices, self._listens),
                    traded=lambda: self._readiness.traded,
                    is_subscribed=lambda: bool(session.acked),
                )
                tasks.create_task(watch, name="watch")
                tasks.create_task(link.stay_heard(self._listens), name="pings")
                await self._frames.read(say, talk.excuse)
        finally:
            self._frames.end()
            self.release(sys.maxsize)  # it was heard before the gap that begins here
            # What a dead link had acknowledged is no longer true, nor are its prices current.
            if session.acked:
                self._continuity.breaks(session.acked.symbols, sys.exc_info()[1])
            self._session = Session(self.wanted.topics, self.wanted.sets)
            self._readiness.over()
            lanes.link_ended()
            self._show(live=False)

    async def _greet(self, link: Link, session: Session, say: Say) -> None:
        try:
            async with asyncio.timeout(GREETING_WITHIN_S):
                while not session.is_live:
                    await self._frames.hear(await link.receive(), say)
        except TimeoutError as error:
            why = f"{session.state.value} for too long"
            raise UpstreamUnavailable(self._upstream.url, why) from error

    def _is_wanted(self, topic: Topic) -> bool:
        """Whether a bot wishes it; of use where Alpaca sends more than was asked for."""
        return topic in self.wanted.extras or topic in self._session.desires

    def _listens(self) -> bool:
        return not self._frames.waits_for_room

    async def _keep_in_step(self, talk: Questions, session: Session) -> None:
        while True:
            await self._wishes.wait()
            self._wishes.clear()
            topics = self._topics()
            await talk.say(session.want(topics.topics, topics.sets))

    def _answered(self, talk: Questions, session: Session, lanes: Lanes) -> None:
        lanes.confirmed(session.acked)
        self._readiness.confirmed(session.acked, settled=session.settled)
        if session.settled:
            talk.answered()
            self._state.changed()
            if self._canary in session.desires and self._canary not in self._topics().sets:
                self._wishes.set()  # it took the place of somebody who is wanted

    def _is_ready(self, confirmed: Topics) -> None:
        self._show(live=True)
        self._continuity.mends(confirmed, self._epoch)

    async def _tick(self, lanes: Lanes) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            lanes.tick()

    def _book_is_wrong(self, symbols: Collection[str]) -> None:
        self._in_use.others.books.forget(symbols)
        why = "a change of the order book was not understood: it is asked for anew"
        self._continuity.lost(why, symbols, self._epoch)

    def _show(self, *, live: bool) -> None:
        refused_for = self._state.error if self._state.state == "refused" else None
        self._readiness.show(self._in_use.prices, self._session.parked, live=live, gone=refused_for)

    def lost(self, reason: str) -> None:
        """What was read did not reach Redis: it is not sent again, and a gap says so."""
        self._continuity.lost(reason, self.symbols, self._epoch)
