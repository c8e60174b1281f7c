"""The market-data WebSockets: every open session, and who of them gets which message.

Owns the sessions and the connection slots. Invariant: a message reaches exactly the sessions that
subscribed to it, each group of equal subscriptions from one encoding. It makes no messages, and
what one feed's clients do is nothing to the clients of another.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aiohttp import WSMsgType, web

from alpaca_broker.simulator.access import Access, Slots
from alpaca_broker.simulator.audience import Audience
from alpaca_broker.simulator.codec import Codec
from alpaca_broker.simulator.connection import Connection, Connections
from alpaca_broker.simulator.feeds import Feed
from alpaca_broker.simulator.market import Record
from alpaca_broker.simulator.market_session import MarketSession, State, Topic
from alpaca_broker.simulator.options import SimulatorOptions
from alpaca_broker.simulator.outbox import Link, Outbox
from alpaca_broker.simulator.stats import Stats
from alpaca_broker.simulator.subscriptions import (
    CHANNEL_OF,
    STAR,
    Refused,
    Subscriptions,
    topic,
)
from alpaca_broker.simulator.switches import Switches

log = logging.getLogger(__name__)

_SLOW_GRACE_S = 0.5  # 407 may never arrive before the cut [D WSS]
_POLICY_CLOSE_CODE = 1008  # which code Alpaca uses is not documented
Added = Callable[[MarketSession, frozenset[Topic]], None]
Left = Callable[[str, frozenset[Topic]], None]


class MarketHub:
    """All market-data sessions. Use it from one event loop only."""

    def __init__(
        self, options: SimulatorOptions, access: Access, stats: Stats, switches: Switches
    ) -> None:
        self.connections = Connections()
        self._options = options
        self._access = access
        self._stats = stats
        self._switches = switches
        self._slots = Slots()
        self._sessions: dict[MarketSession, Connection] = {}
        self._audience = Audience(self._sessions)
        self._news = asyncio.Event()
        self.on_added: Added = lambda session, added: None
        self.on_left: Left = lambda venue, topics: None

    async def handle(self, request: web.Request, feed: Feed) -> web.StreamResponse:
        """Serve one WebSocket of a feed from its upgrade to its end."""
        codec = Codec.of(request.headers.get("Content-Type"), packed=feed.packed_only)
        offered, owner = self._access.header_owner(request.headers)
        status = self._options.variants.bad_header_status
        if status is not None and offered and owner is None:
            return web.Response(status=status)
        connection = await Connection.accept(request)
        opcode = WSMsgType.TEXT if codec is Codec.JSON else WSMsgType.BINARY
        outbox = Outbox(connection.socket, opcode, self._options.send_limit_bytes, self._stats)
        wishes = Subscriptions(feed, self._options.symbol_limit, self._options.option_quote_limit)
        session = MarketSession(
            *(feed, codec, outbox, self, self._stats, wishes), self._options.variants
        )
        self._stats.market_connections += 1
        with self.connections.holding(connection):
            self._sessions[session] = connection
            self._stats.market_open += 1
            try:
                async with asyncio.TaskGroup() as tasks:
                    writer = tasks.create_task(outbox.run(), name=f"market writer {feed.name}")
                    await self._converse(session, connection, request.headers)
                    writer.cancel()
            finally:
                self._stats.market_open -= 1
                self._leave(session, connection)
        return connection.socket

    async def _converse(
        self, session: MarketSession, connection: Connection, headers: Mapping[str, str]
    ) -> None:
        over = self._greet(session, headers)
        try:
            async with asyncio.timeout(self._options.auth_timeout_s) as limit:
                if session.state is State.LIVE:
                    limit.reschedule(None)
                if not over:
                    await self._listen(session, connection, limit)
        except TimeoutError:
            session.refuse(404)
            over = True
        if over or session.over:
            await session.outbox.flushed()
            await connection.close(_POLICY_CLOSE_CODE)
        if connection.close_code is not None:
            self._stats.close_codes.append(connection.close_code)

    def _greet(self, session: MarketSession, headers: Mapping[str, str]) -> bool:
        """Say the first words; whether they were the last ones."""
        offered, owner = self._access.header_owner(headers)
        if not offered or self._options.variants.header_welcome:
            session.welcome()
        refusals = self._switches.slam["market"]
        if session.feed.packed_only and session.codec is Codec.JSON:
            refusals = [412]
        if refusals:
            session.refuse(refusals[-1])
            return True
        if offered:
            try:
                session.authenticate(owner)
            except Refused as refusal:
                session.refuse(refusal.code)
        return session.over

    async def _listen(
        self, session: MarketSession, connection: Connection, limit: asyncio.Timeout
    ) -> None:
        async for frame in connection.frames():
            session.receive(frame)
            if session.outbox.overrun:
                connection.abort()
            if session.state is State.LIVE:
                limit.reschedule(None)
            if session.over:
                return

    def owner(self, key: object, secret: object) -> str | None:
        """The owner behind a key pair, None if it is wrong."""
        return self._access.owner(key, secret)

    def admit(self, session: MarketSession, owner: str) -> int | None:
        """Take the slot of the feed: 409 outside the plan, 406 while another session has it."""
        if errors := self._switches.auth_error["market"]:
            return errors[-1]
        if session.feed.name in self._options.refused_feeds:
            return 409
        if not self._slots.take(session.feed.name, owner, session, time.monotonic()):
            return 406
        others = [s for s in self._audience.live() if (s.feed, s.owner) == (session.feed, owner)]
        self._stats.market_peak = max(self._stats.market_peak, len(others) + 1)
        return None

    def changed(self, session: MarketSession, added: frozenset[Topic] = frozenset()) -> None:
        """Regroup the sessions before the next message."""
        self._audience.forget(session.feed.venue)
        self._news.set()
        if added:
            self.on_added(session, added)

    async def news(self) -> None:
        """Wait until a subscription changed or a session left since the last call."""
        await self._news.wait()
        self._news.clear()

    def subscribed(self, venue: str) -> frozenset[Topic]:
        """Everything any live session of the venue's feeds asked for; the same object again
        while nothing changed."""
        return self._audience.subscribed(venue)

    def codecs(self, venue: str, universe: frozenset[Topic]) -> set[Codec]:
        """The codecs of the venue's sessions that subscribed to all of these topics."""
        return {group.codec for group in self._audience.groups(venue) if group.covers(universe)}

    def publish(
        self,
        venue: str,
        records: Sequence[Record],
        *,
        universe: frozenset[Topic] = frozenset(),
        ready: Mapping[Codec, bytes] = MappingProxyType({}),
    ) -> None:
        """Hand records to every session that subscribed to them, as one frame each.

        Args:
            venue: Where it happened; all feeds of a venue say the same.
            records: What happened, in order.
            universe: All topics the records can have, if known: sessions that subscribed to all
                of them need no look at each record.
            ready: The frames with all records, as far as somebody made them before.
        """
        whole = dict(ready)
        for group in self._audience.groups(venue):
            if universe and group.covers(universe):
                if (frame := whole.get(group.codec)) is None:
                    frame = whole[group.codec] = group.codec.encode_records(records)
                self._send(group.sessions, frame, len(records))
            elif chosen := [record for record in records if group.wants(topic(record))]:
                frame = group.codec.encode_records(chosen)
                self._send(group.sessions, frame, len(chosen))

    def emit(self, feed: str, message: Mapping[str, Any]) -> int:
        """Hand one ready-made message to the sessions of a feed; how many wanted it.

        A message of an unknown type goes to every authenticated session of the feed.
        """
        return self._deliver((s for s in self._audience.live() if s.feed.name == feed), message)

    def tell(self, venue: str, message: Mapping[str, Any]) -> int:
        """Like `emit`, for all feeds of a venue."""
        return self._deliver((s for s in self._audience.live() if s.feed.venue == venue), message)

    def hand(self, session: MarketSession, message: Mapping[str, Any]) -> None:
        """Hand one ready-made message to one session, after all its other data."""
        self._send([session], session.codec.encode_message(message), 1)

    def _deliver(self, sessions: Iterable[MarketSession], message: Mapping[str, Any]) -> int:
        channel = CHANNEL_OF.get(str(message.get("T")))
        symbols = message.get("symbols", ()) if channel == "news" else (message.get("S"),)
        names = [str(symbol) for symbol in symbols] or [STAR]
        wanted = [
            session
            for session in sessions
            if channel is None or any(session.subscriptions.wants(channel, n) for n in names)
        ]
        frames: dict[Codec, bytes] = {}
        for session in wanted:
            if (frame := frames.get(session.codec)) is None:
                frame = frames[session.codec] = session.codec.encode_message(message)
            self._send([session], frame, 1)
        return len(wanted)

    def emit_raw(self, feed: str, frame: bytes) -> int:
        """Hand bytes as they are to every authenticated session of a feed; how many there were."""
        sessions = [session for session in self._audience.live() if session.feed.name == feed]
        self._queue(sessions, frame, 1)
        return len(sessions)

    def mute(self, muted: bool, feed: str | None = None) -> None:
        """Make the connections open now, or those of a feed, say nothing, or speak again."""
        for session in self._sessions:
            if feed in (None, session.feed.name):
                session.outbox.muted = muted

    def cut(self, feed: str) -> int:
        """Drop the connections of a feed without a close frame; how many there were."""
        dropped = [c for session, c in self._sessions.items() if session.feed.name == feed]
        for connection in dropped:
            connection.abort()
        return len(dropped)

    def links(self) -> list[Link]:
        """What is open now."""
        return [
            Link("market", connection, s.outbox, s.codec, s.state is State.LIVE)
            for s, connection in self._sessions.items()
        ]

    async def room(self) -> None:
        """Wait until no client is crowded: how a replay keeps from dropping anything."""
        for session in [s for s in self._sessions if s.outbox.crowded]:
            await session.outbox.room()

    def _send(self, sessions: Sequence[MarketSession], frame: bytes, messages: int) -> None:
        if sessions and self._options.variants.type_last:
            frame = self._options.variants.shape(frame, sessions[0].codec)
        self._queue(sessions, frame, messages)

    def _queue(self, sessions: Sequence[MarketSession], frame: bytes, messages: int) -> None:
        for session in sessions:
            if session.state is State.LIVE and not session.outbox.data(frame, messages):
                self._expel(session)

    def _expel(self, session: MarketSession) -> None:
        session.state = State.ENDED
        session.refuse(407)
        self._stats.slow_clients += 1
        self._sessions[session].abort_after(_SLOW_GRACE_S)
        self.changed(session)

    def _leave(self, session: MarketSession, connection: Connection) -> None:
        session.state = State.ENDED
        session.outbox.close()
        self._sessions.pop(session, None)
        self.on_left(session.feed.venue, session.subscriptions.topics())
        if session.owner is not None:
            linger_s = 0.0 if connection.clean else self._options.linger_s
            until = time.monotonic() + linger_s
            self._slots.release(session.feed.name, session.owner, session, until)
        self.changed(session)
