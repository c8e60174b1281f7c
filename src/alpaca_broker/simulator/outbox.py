"""What waits for one WebSocket client: control frames first, data in order.

Owns the two lanes and the task that empties them. Invariant: frames of one lane keep their
order, and the data lane never holds more than its bound: whoever fills it either waits for
`room()` or is told that the client is too slow. It knows nothing of what frames mean.
"""

import asyncio
import contextlib
from collections import deque
from typing import NamedTuple

from aiohttp import WSMsgType

from alpaca_broker.simulator.accounts import Account
from alpaca_broker.simulator.codec import Codec
from alpaca_broker.simulator.connection import Connection, Socket
from alpaca_broker.simulator.stats import Stats

HIGH_BYTES = 256 * 1024  # a replay waits above this, so that it never runs far ahead of a client
_FLUSH_S = 0.5


class Outbox:
    """The way out to one client. `run()` must be running for anything to leave."""

    def __init__(self, socket: Socket, opcode: WSMsgType, limit_bytes: int, stats: Stats) -> None:
        self._socket = socket
        self.opcode = opcode
        self._limit_bytes = limit_bytes
        self._high_bytes = min(HIGH_BYTES, limit_bytes // 2)
        self._stats = stats
        self._control: deque[bytes] = deque()
        self._data: deque[tuple[bytes, int]] = deque()
        self._control_bytes = 0
        self._data_bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.closed = False
        self.muted = False
        self.withholding = False  # answers leave, data does not
        self.to_truncate = 0  # so many data frames leave without their second half
        self.overrun = False

    def control(self, frame: bytes) -> bool:
        """Send before all waiting data; False if the client asks without reading answers."""
        if self.closed:
            return True  # nobody is left to be slow
        if self._control and self._control_bytes + len(frame) > self._limit_bytes:
            self.overrun = True
            return False
        self._control.append(frame)
        self._control_bytes += len(frame)
        self._wake()
        return True

    def data(self, frame: bytes, messages: int) -> bool:
        """Send after all other data; False, and nothing is queued, if the bound is reached."""
        if self.closed:
            return True  # nobody is left to be slow
        if self._data_bytes + len(frame) > self._limit_bytes and self._data:
            return False
        self._data.append((frame, messages))
        self._data_bytes += len(frame)
        if self._data_bytes > self._high_bytes:
            self._room.clear()
        self._wake()
        return True

    @property
    def crowded(self) -> bool:
        """Whether a sender that can wait should do so."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Wait until the client has taken enough, or is gone."""
        await self._room.wait()

    async def flushed(self) -> None:
        """Wait a moment for everything to be handed to the connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self._idle.wait()

    async def run(self) -> None:
        """Empty the lanes until cancelled or the connection breaks."""
        try:
            while True:
                self._filled.clear()
                while self._control or self._data:
                    await self._send_next()
                self._idle.set()
                await self._filled.wait()
        except ConnectionError:
            return  # the reader of this socket sees the same and ends the session
        finally:
            self.close()

    def close(self) -> None:
        """Forget what waits and let every waiter go; may be called again."""
        self.closed = True
        self._control.clear()
        self._data.clear()
        self._control_bytes = self._data_bytes = 0
        self._room.set()
        self._idle.set()

    async def _send_next(self) -> None:
        if self._control:
            frame, messages = self._control.popleft(), 1
            self._control_bytes -= len(frame)
            silent = self.muted
        else:
            frame, messages = self._data.popleft()
            self._data_bytes -= len(frame)
            if self.to_truncate:
                self.to_truncate -= 1
                frame = frame[: len(frame) // 2]
            silent = self.muted or self.withholding
        if not silent:
            await self._socket.send_frame(frame, self.opcode)
            self._stats.frames_sent += 1
            self._stats.messages_sent += messages
        if self._data_bytes <= self._high_bytes // 2 and not self._room.is_set():
            self._room.set()

    def _wake(self) -> None:
        self._idle.clear()
        self._filled.set()


class Link(NamedTuple):
    """An open WebSocket as whoever plays tricks on it sees it."""

    stream: str
    connection: Connection
    outbox: Outbox
    codec: Codec
    live: bool
    account: Account | None = None
