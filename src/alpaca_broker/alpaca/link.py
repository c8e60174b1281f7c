"""One WebSocket to Alpaca.

Owns the socket from opening to closing, and the reading of transport errors as ours. It knows no
message and never reconnects. Pings are its own, not the library's: while we leave data unread on
purpose, an unread pong must not be taken for a dead link.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic

import aiohttp
from aiohttp import WSMsgType

from alpaca_broker import __version__
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable

OPEN_WITHIN_S = 10.0
CLOSE_WITHIN_S = 1.0
SEND_WITHIN_S = 10.0
LOOK_EVERY_S = 1.0
PING_AFTER_S = 10.0
SILENT_FOR_S = 25.0
# A news article can be larger than 1 MiB (Go SDK issue #203); a frame of trades is far smaller.
MOST_BYTES = 16 * 1024 * 1024

# What the library says of the socket's end; a close frame of the other side is none of these.
ENDS = frozenset({WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR})

HEADERS = {"User-Agent": f"alpaca-broker/{__version__}", "Content-Type": "application/json"}
MSGPACK = {"Content-Type": "application/msgpack"}


class Link:
    """An open WebSocket: frames in and out."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, url: str, *, binary: bool = False
    ) -> None:
        self._socket, self._url, self._binary = socket, url, binary
        self.heard_at = monotonic()  # the last frame of any kind, pongs too: whole until then
        self.read = 0  # characters or bytes of data so far

    async def receive(self) -> bytes | str:
        """The next data frame.

        Raises:
            UpstreamUnavailable: the connection ended.
        """
        while True:
            message = await self._socket.receive()
            kind = message.type
            if kind not in ENDS:
                self.heard_at = monotonic()
            if kind is WSMsgType.TEXT or kind is WSMsgType.BINARY:
                data: bytes | str = message.data
                self.read += len(data)
                return data
            if kind is WSMsgType.PING:
                await self._within(self._socket.pong(message.data))
            elif kind is not WSMsgType.PONG:
                raise UpstreamUnavailable(self._url, _why_ended(self._socket, message))

    @property
    def unread(self) -> int:
        """Bytes that have arrived and wait in the socket to be read."""
        where = self._socket.get_extra_info("socket")
        if where is None or where.fileno() < 0:
            return 0
        try:
            answer = fcntl.ioctl(where.fileno(), termios.FIONREAD, bytes(4))
        except OSError:  # it was closed this moment
            return 0
        return int.from_bytes(answer, sys.byteorder)

    async def send(self, data: bytes) -> None:
        """Send one frame.

        Raises:
            UpstreamUnavailable: the connection ended, or took nothing for ten seconds.
        """
        socket = self._socket
        await self._within(
            socket.send_bytes(data) if self._binary else socket.send_str(data.decode())
        )

    async def stay_heard(self, listening: Callable[[], bool]) -> None:
        """Ping while the link is silent, and hang up where nothing comes back; never returns.

        Alpaca wants to hear something every 20 s (its staff, forum 17678), also while we leave its
        data unread on purpose (`listening()` is false): then its silence is our doing.

        Raises:
            UpstreamUnavailable: no sign of life, or the connection ended.
        """
        waited, pinged_at = False, monotonic()
        excused_at = pinged_at
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = monotonic()
            if not listening():
                waited = True
            elif waited:
                excused_at, waited = now, False
            elif (silent_for := now - max(self.heard_at, excused_at)) >= SILENT_FOR_S:
                raise UpstreamUnavailable(self._url, f"no sign of life for {silent_for:.0f} s")
            if now - max(self.heard_at, pinged_at) >= PING_AFTER_S:
                pinged_at = now
                try:
                    await self._within(self._socket.ping())
                except UpstreamUnavailable:
                    if listening():
                        raise
                    # What has arrived is still to be read: the reader will find the end itself.

    async def _within(self, sending: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                await sending
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UpstreamUnavailable(self._url, reason(error)) from error


def http_session() -> aiohttp.ClientSession:
    """A session for Alpaca; it follows no redirect, which would carry the keys elsewhere."""

    async def refuse(_: object, __: object, redirect: aiohttp.TraceRequestRedirectParams) -> None:
        raise UpstreamRefused(redirect.response.status, f"{redirect.url}: a redirect", http=True)

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return aiohttp.ClientSession(trace_configs=[trace])


@asynccontextmanager
async def open_link(
    http: aiohttp.ClientSession, url: str, *, msgpack: bool = False
) -> AsyncIterator[Link]:
    """Open a WebSocket; on leaving, a close frame is sent and the socket is closed.

    Raises:
        UpstreamRefused: the upgrade was answered with an HTTP status.
        UpstreamUnavailable: nobody answered, or not in time.
    """
    try:
        async with asyncio.timeout(OPEN_WITHIN_S):
            socket = await http.ws_connect(
                url,
                headers=HEADERS | MSGPACK if msgpack else HEADERS,
                autoping=False,
                max_msg_size=MOST_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_WITHIN_S),
            )
    except aiohttp.WSServerHandshakeError as error:
        raise UpstreamRefused(error.status, f"{url}: the upgrade was refused", http=True) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise UpstreamUnavailable(url, reason(error)) from error
    try:
        yield Link(socket, url, binary=msgpack)
    finally:
        try:
            # The library's own limit starts again with every message that is still on its way.
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await socket.close()
        except TimeoutError:
            pass


def _why_ended(socket: aiohttp.ClientWebSocketResponse, message: aiohttp.WSMessage) -> str:
    if message.type is WSMsgType.ERROR:
        return reason(message.data)
    code = socket.close_code
    return f"closed by the other side (code {code})" if code else "the connection was cut"


def reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot be reached ({error.os_error.strerror or error.os_error})"
    return str(error) or type(error).__name__
