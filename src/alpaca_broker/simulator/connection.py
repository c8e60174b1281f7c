"""One accepted WebSocket, as the simulator needs it: frames in, closing, cutting.

Owns the socket's life. Invariant: whoever holds a `Connection` in `Connections.holding` is listed
there for exactly that long. It does not know what frames mean.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Literal

from aiohttp import WSMsgType, web

MESSAGE_LIMIT_BYTES = 1024 * 1024  # above: close 1009 [T CS #422]
_CLOSE_S = 0.5

Socket = web.WebSocketResponse[Literal[False]]


class Connection:
    """A WebSocket after its upgrade."""

    def __init__(self, socket: Socket, transport: asyncio.Transport) -> None:
        self.socket = socket
        self.close_code: int | None = None
        self.clean = False
        self._transport = transport
        self._abort_timer: asyncio.TimerHandle | None = None

    @classmethod
    async def accept(cls, request: web.Request) -> "Connection":
        """Do the upgrade; permessage-deflate if it is offered [D WSS]."""
        socket: Socket = web.WebSocketResponse(
            timeout=_CLOSE_S,
            max_msg_size=MESSAGE_LIMIT_BYTES,
            compress=True,
            decode_text=False,
        )
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("client left during the upgrade")
        return cls(socket, transport)

    async def frames(self) -> AsyncIterator[bytes]:
        """Client messages until the connection ends, however it ends."""
        while True:
            message = await self.socket.receive()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                data = message.data
                yield data if isinstance(data, bytes) else data.encode()
            elif message.type is WSMsgType.CLOSE:
                self.close_code, self.clean = message.data, True
                return
            else:  # closing (ours), closed or broken
                self.clean = message.type is WSMsgType.CLOSING
                return

    async def close(self, code: int) -> None:
        """Say goodbye in order, or cut if the client does not answer in time."""
        try:
            async with asyncio.timeout(2 * _CLOSE_S):
                await self.socket.close(code=code)
        except TimeoutError:
            self.abort()

    def write(self, wire: bytes) -> None:
        """Send bytes that are WebSocket frames already: how a benchmark spares its own time."""
        if not self._transport.is_closing():
            self._transport.write(wire)

    @property
    def unsent(self) -> int:
        """Bytes that the system has not taken yet."""
        return self._transport.get_write_buffer_size()

    def freeze(self) -> None:
        """Read nothing more, not even a ping or the client's leaving; TCP itself stays up."""
        if self._transport.is_reading():
            self._transport.pause_reading()

    def abort(self) -> None:
        """Cut without a close frame."""
        self._transport.abort()

    def abort_after(self, seconds: float) -> None:
        """Cut in a while, unless the connection ends before."""
        loop = asyncio.get_running_loop()
        self._abort_timer = loop.call_later(seconds, self.abort)

    def forget_timer(self) -> None:
        """Drop a pending `abort_after`."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()


class Connections:
    """The open connections of one kind."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()

    @contextmanager
    def holding(self, connection: Connection) -> Iterator[None]:
        """List a connection while it is served."""
        self._open.add(connection)
        try:
            yield
        finally:
            connection.forget_timer()
            self._open.discard(connection)

    def cut(self) -> int:
        """Drop all without a close frame; how many there were."""
        dropped = list(self._open)
        for connection in dropped:
            connection.abort()
        return len(dropped)

    async def close(self, code: int) -> None:
        """Close all in order."""
        async with asyncio.TaskGroup() as tasks:
            for connection in list(self._open):
                tasks.create_task(connection.close(code), name="close a websocket")
