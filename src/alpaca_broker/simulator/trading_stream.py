"""The trading WebSocket: authorization, listening, and the delivery of trade updates.

Owns the open trading sessions. Invariant: an event reaches every session of its account that
listens at that moment, in order, and nobody later: there is no replay [D WST].
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import WSMsgType, web

from alpaca_broker.simulator.access import Access
from alpaca_broker.simulator.accounts import Account
from alpaca_broker.simulator.codec import Codec
from alpaca_broker.simulator.connection import Connection, Connections
from alpaca_broker.simulator.exchange import Exchange
from alpaca_broker.simulator.options import SimulatorOptions
from alpaca_broker.simulator.outbox import Link, Outbox
from alpaca_broker.simulator.stats import Stats
from alpaca_broker.simulator.switches import Switches
from alpaca_broker.simulator.tampering import Tampering

log = logging.getLogger(__name__)

_STREAM = "trade_updates"
_POLICY_CLOSE_CODE = 1008  # which code Alpaca uses is not documented
_INTERNAL_CLOSE_CODE = 1011
_SLOW_GRACE_S = 0.5


class _Over(Exception):
    """The session ends as soon as what was said has been sent."""


class TradingSession:
    """One client's conversation on `/stream`."""

    def __init__(
        self,
        codec: Codec,
        outbox: Outbox,
        access: Access,
        exchange: Exchange,
        switches: Switches,
    ) -> None:
        self.codec = codec
        self.outbox = outbox
        self.account: Account | None = None
        self.listening = False
        self._access = access
        self._exchange = exchange
        self._switches = switches

    def receive(self, frame: bytes) -> None:
        """Answer one client message. Raises `_Over` if that was the last one."""
        try:
            request = self.codec.decode(frame)
        except ValueError:
            request = None
        match request:
            case {"action": "authenticate", "data": {"oauth_token": token}}:  # [D OLD oauth]
                self._authorize(self._access.token_owner(token))
            case {"action": "authenticate", "data": {"key_id": key, "secret_key": secret}}:
                self._authorize(self._access.owner(key, secret))
            case {"action": "auth" | "authenticate", "key": key, "secret": secret}:  # [D WST]
                self._authorize(self._access.owner(key, secret))
            case {"action": "auth" | "authenticate"}:
                self._authorize(None)
            case {"action": "listen", "data": {"streams": list(streams)}}:
                self._listen(streams)
            case _:
                self._say({"action": "error", "data": {"error_message": "invalid syntax"}})

    def admit(self, owner: str) -> None:
        """Join the account of an owner whose credentials were right."""
        self.account = self._exchange.account(owner)
        # Paper sends its JSON in binary frames [D WST]; for live keys it is text here [I].
        if self.account.live and self.codec is Codec.JSON:
            self.outbox.opcode = WSMsgType.TEXT

    def fail(self) -> None:
        """Say that the session cannot go on [D WST]."""
        self._say({"action": "error", "data": {"error_message": "internal server error"}})

    def _authorize(self, owner: str | None) -> None:
        if owner is None or self._switches.auth_error["trading"]:
            message = "access key verification failed"  # [T alpaca-ts #24]
            self._authorization("unauthorized", "authenticate", message=message)
            raise _Over
        self.admit(owner)
        self._authorization("authorized", "authenticate")

    def _listen(self, streams: list[object]) -> None:
        if self.account is None:
            self._authorization("unauthorized", "listen")
            return
        # Replaces the set; streams that do not exist are silently left out [D OLD, WST].
        self.listening = _STREAM in streams
        available = [_STREAM] if self.listening else []
        self._say({"stream": "listening", "data": {"streams": available}})

    def _authorization(self, status: str, action: str, **more: str) -> None:
        data = {"status": status, "action": action, **more}
        self._say({"stream": "authorization", "data": data})

    def _say(self, message: Mapping[str, Any]) -> None:
        self.outbox.control(self.codec.encode(message))


class TradingHub:
    """All trading sessions. Use it from one event loop only."""

    def __init__(
        self,
        options: SimulatorOptions,
        access: Access,
        exchange: Exchange,
        stats: Stats,
        switches: Switches,
    ) -> None:
        self.connections = Connections()
        self.tampering = Tampering(self._hand_out)
        self._options = options
        self._access = access
        self._exchange = exchange
        self._stats = stats
        self._switches = switches
        self._sessions: dict[TradingSession, Connection] = {}
        self._ghosts: list[tuple[str, float]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one trading WebSocket from its upgrade to its end."""
        if self._full(request):
            # Reported for reconnecting while a stale connection is still there [T alpaca-py #740].
            raise web.HTTPTooManyRequests
        codec = Codec.of(request.headers.get("Content-Type"))
        connection = await Connection.accept(request)
        outbox = Outbox(
            connection.socket, WSMsgType.BINARY, self._options.send_limit_bytes, self._stats
        )
        session = TradingSession(codec, outbox, self._access, self._exchange, self._switches)
        self._stats.trading_connections += 1
        with self.connections.holding(connection):
            self._sessions[session] = connection
            self._stats.trading_open += 1
            try:
                async with asyncio.TaskGroup() as tasks:
                    writer = tasks.create_task(outbox.run(), name="trading writer")
                    await self._converse(session, connection, request.headers)
                    writer.cancel()
            finally:
                self._stats.trading_open -= 1
                self._leave(session, connection)
                outbox.close()
        return connection.socket

    def deliver(self, account: Account, update: dict[str, Any]) -> None:
        """Send an event to the sessions of its account that listen now, unless it is tampered."""
        self.tampering.pass_on(account, update)

    def _hand_out(self, account: Account, update: Mapping[str, Any]) -> None:
        message = {"stream": _STREAM, "data": update}
        frames: dict[Codec, bytes] = {}
        for session, connection in self._sessions.items():
            if not session.listening or session.account is not account:
                continue
            if (frame := frames.get(session.codec)) is None:
                frame = frames[session.codec] = session.codec.encode(message)
            if not session.outbox.data(frame, 1):
                self._expel(session, connection)

    def mute(self, muted: bool) -> None:
        """Make the connections open now say nothing, or speak again."""
        for session in self._sessions:
            session.outbox.muted = muted

    def send_raw(self, frame: bytes) -> int:
        """Hand bytes as they are to every listening session; how many there were."""
        sessions = [session for session in self._sessions if session.listening]
        for session in sessions:
            session.outbox.data(frame, 1)
        return len(sessions)

    def links(self) -> list[Link]:
        """What is open now."""
        return [
            Link("trading", connection, s.outbox, s.codec, s.listening, s.account)
            for s, connection in self._sessions.items()
        ]

    def _count(self, session: TradingSession) -> None:
        self._stats.trading_sessions += 1
        at_once = sum(other.account is session.account for other in self._sessions)
        self._stats.trading_peak = max(self._stats.trading_peak, at_once)

    async def _converse(
        self, session: TradingSession, connection: Connection, headers: Mapping[str, str]
    ) -> None:
        _, owner = self._access.header_owner(headers)
        if owner is not None and not self._switches.auth_error["trading"]:
            session.admit(owner)
            self._count(session)
        try:
            if self._switches.slam["trading"]:
                session.fail()
                raise _Over
            async with asyncio.timeout(self._options.auth_timeout_s) as limit:
                async for frame in connection.frames():
                    known = session.account is not None
                    session.receive(frame)
                    if session.outbox.overrun:
                        connection.abort()
                    if session.account is not None:
                        limit.reschedule(None)
                        if not known:
                            self._count(session)
        except (TimeoutError, _Over):
            await session.outbox.flushed()
            await connection.close(_POLICY_CLOSE_CODE)
        except Exception:
            log.exception("answering a client message failed")
            session.fail()
            await session.outbox.flushed()
            await connection.close(_INTERNAL_CLOSE_CODE)
        if connection.close_code is not None:
            self._stats.close_codes.append(connection.close_code)

    def _full(self, request: web.Request) -> bool:
        limit = self._options.trading_connection_limit
        if limit is None:
            return False
        # Keys come by message only later, so without headers every connection counts.
        _, owner = self._access.header_owner(request.headers)
        taken = sum(
            owner is None or session.account is None or session.account.owner == owner
            for session in self._sessions
        )
        now = time.monotonic()
        self._ghosts = [ghost for ghost in self._ghosts if ghost[1] > now]
        ghosts = sum(owner is None or ghost == owner for ghost, _ in self._ghosts)
        return taken + ghosts >= limit

    def _leave(self, session: TradingSession, connection: Connection) -> None:
        del self._sessions[session]
        linger_s = self._options.linger_s
        if self._options.trading_connection_limit is None or connection.clean or not linger_s:
            return
        if session.account is not None:
            self._ghosts.append((session.account.owner, time.monotonic() + linger_s))

    def _expel(self, session: TradingSession, connection: Connection) -> None:
        session.listening = False
        self._stats.slow_clients += 1
        session.fail()
        connection.abort_after(_SLOW_GRACE_S)
