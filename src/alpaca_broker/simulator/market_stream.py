"""The market-data WebSockets: every open session, and who of them gets which message.

Owns the sessions and the connection slots. Invariant: a message reaches exactly the sessions that
subscribed to it, each group of equal subscriptions from one encoding. It makes no messages.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aiohttp import WSMsgType, web

from alpaca_broker.simulator.access import Access, Slots
from alpaca_broker.simulator.codec import Codec
from alpaca_broker.simulator.connection import Connection, Connections
from alpaca_broker.simulator.market import Record
from alpaca_broker.simulator.market_session import MarketSession, State
from alpaca_broker.simulator.options import SimulatorOptions
from alpaca_broker.simulator.outbox import Outbox
from alpaca_broker.simulator.stats import Stats
from alpaca_broker.simulator.subscriptions import CHANNEL_OF, STAR, Refused, topic

log = logging.getLogger(__name__)

Topic = tuple[str, str]
_SLOW_GRACE_S = 0.5  # 407 may never arrive before the cut [D WSS]
_AUTH_TIMEOUT_CLOSE_CODE = 1008  # which code Alpaca uses is not documented


class _Group:
    """Sessions with one codec and equal subscriptions."""

    def __init__(self, codec: Codec, topics: frozenset[Topic]) -> None:
        self.codec = codec
        self.topics = topics
        self.sessions: list[MarketSession] = []
        self._stars = frozenset(channel for channel, symbol in topics if symbol == STAR)
        self._covered: frozenset[Topic] | None = None

    def wants(self, wanted: Topic) -> bool:
        return wanted in self.topics or wanted[0] in self._stars

    def covers(self, universe: frozenset[Topic]) -> bool:
        if self._covered is not universe:  # the same object again in every chunk of a replay
            if not all(map(self.wants, universe)):
                return False
            self._covered = universe
        return True


class MarketHub:
    """All market-data sessions. Use it from one event loop only."""

    def __init__(self, options: SimulatorOptions, access: Access, stats: Stats) -> None:
        self.connections = Connections()
        self._options = options
        self._access = access
        self._stats = stats
        self._slots = Slots()
        self._sessions: dict[MarketSession, Connection] = {}
        self._groups: dict[bool, list[_Group]] = {}
        self._news = asyncio.Event()

    async def handle(self, request: web.Request, feed: str) -> web.StreamResponse:
        """Serve one WebSocket of a feed from its upgrade to its end."""
        codec = Codec.of(request.headers.get("Content-Type"))
        connection = await Connection.accept(request)
        opcode = WSMsgType.TEXT if codec is Codec.JSON else WSMsgType.BINARY
        outbox = Outbox(connection.socket, opcode, self._options.send_limit_bytes, self._stats)
        session = MarketSession(feed, codec, outbox, self, self._stats, self._options.symbol_limit)
        self._stats.market_connections += 1
        with self.connections.holding(connection):
            self._sessions[session] = connection
            self._stats.market_open += 1
            try:
                async with asyncio.TaskGroup() as tasks:
                    writer = tasks.create_task(outbox.run(), name=f"market writer {feed}")
                    await self._converse(session, connection, request.headers)
                    writer.cancel()
            finally:
                self._stats.market_open -= 1
                self._leave(session, connection)
        return connection.socket

    async def _converse(
        self, session: MarketSession, connection: Connection, headers: Mapping[str, str]
    ) -> None:
        session.welcome()
        offered, owner = self._access.header_owner(headers)
        if offered:
            try:
                session.authenticate(owner)
            except Refused as refusal:
                session.refuse(refusal.code)
        try:
            async with asyncio.timeout(self._options.auth_timeout_s) as limit:
                if session.state is State.LIVE:
                    limit.reschedule(None)
                async for frame in connection.frames():
                    session.receive(frame)
                    if session.outbox.overrun:
                        connection.abort()
                    if session.state is State.LIVE:
                        limit.reschedule(None)
        except TimeoutError:
            session.refuse(404)
            await session.outbox.flushed()
            await connection.close(_AUTH_TIMEOUT_CLOSE_CODE)
        if connection.close_code is not None:
            self._stats.close_codes.append(connection.close_code)

    def owner(self, key: object, secret: object) -> str | None:
        """The owner behind a key pair, None if it is wrong."""
        return self._access.owner(key, secret)

    def admit(self, session: MarketSession, owner: str) -> int | None:
        """Take the slot of the feed: 409 outside the plan, 406 while another session has it."""
        if session.feed in self._options.refused_feeds:
            return 409
        if not self._slots.take(session.feed, owner, session, time.monotonic()):
            return 406
        others = [s for s in self._live() if (s.feed, s.owner) == (session.feed, owner)]
        self._stats.market_peak = max(self._stats.market_peak, len(others) + 1)
        return None

    def changed(self, session: MarketSession) -> None:
        """Regroup the sessions before the next message."""
        self._groups.clear()
        self._news.set()

    async def news(self) -> None:
        """Wait until a subscription changed or a session left since the last call."""
        await self._news.wait()
        self._news.clear()

    def subscribed(self, *, test: bool) -> frozenset[Topic]:
        """Everything any live session of the stock feeds (or of the test feed) asked for."""
        return frozenset().union(*(group.topics for group in self._grouped(test)))

    def codecs(self, universe: frozenset[Topic]) -> set[Codec]:
        """The codecs of the stock sessions that subscribed to all of these topics."""
        return {group.codec for group in self._grouped(False) if group.covers(universe)}

    def publish(
        self,
        records: Sequence[Record],
        *,
        test: bool = False,
        universe: frozenset[Topic] = frozenset(),
        ready: Mapping[Codec, bytes] = MappingProxyType({}),
    ) -> None:
        """Hand records to every session that subscribed to them, as one frame each.

        Args:
            records: What happened, in order.
            test: For the test feed instead of all other stock feeds.
            universe: All topics the records can have, if known: sessions that subscribed to all
                of them need no look at each record.
            ready: The frames with all records, as far as somebody made them before.
        """
        whole = dict(ready)
        for group in self._grouped(test):
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
        channel = CHANNEL_OF.get(str(message.get("T")))
        frames = {codec: codec.encode_message(message) for codec in Codec}
        sessions = [
            session
            for session in self._live()
            if session.feed == feed
            and (channel is None or session.subscriptions.wants(channel, str(message.get("S"))))
        ]
        for session in sessions:
            self._send([session], frames[session.codec], 1)
        return len(sessions)

    def emit_raw(self, feed: str, frame: bytes) -> int:
        """Hand bytes as they are to every authenticated session of a feed; how many there were."""
        sessions = [session for session in self._live() if session.feed == feed]
        self._send(sessions, frame, 1)
        return len(sessions)

    def mute(self, muted: bool) -> None:
        """Make the connections open now say nothing, or speak again."""
        for session in self._sessions:
            session.outbox.muted = muted

    async def room(self) -> None:
        """Wait until no client is crowded: how a replay keeps from dropping anything."""
        for session in [s for s in self._sessions if s.outbox.crowded]:
            await session.outbox.room()

    def _live(self) -> Iterable[MarketSession]:
        return (session for session in self._sessions if session.state is State.LIVE)

    def _grouped(self, test: bool) -> Collection[_Group]:
        if (groups := self._groups.get(test)) is None:
            found: dict[tuple[Codec, frozenset[Topic]], _Group] = {}
            for session in self._live():
                topics = session.subscriptions.topics()
                if (session.feed == "test") is test and topics:
                    group = found.setdefault((session.codec, topics), _Group(session.codec, topics))
                    group.sessions.append(session)
            groups = self._groups[test] = list(found.values())
        return groups

    def _send(self, sessions: Sequence[MarketSession], frame: bytes, messages: int) -> None:
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
        if session.owner is not None:
            linger_s = 0.0 if connection.clean else self._options.linger_s
            until = time.monotonic() + linger_s
            self._slots.release(session.feed, session.owner, session, until)
        self.changed(session)
