"""A wire between a client and a server that takes its time, or is cut where a word goes over it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

_Due = asyncio.Queue[tuple[float, bytes]]


class Wire:
    """Leads to a port of this machine; `port` is its near end."""

    def __init__(self, to: int, *, delay_s: float = 0.0, cut_at: bytes | None = None) -> None:
        self._to, self.delay_s, self._cut_at = to, delay_s, cut_at
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: list[asyncio.StreamWriter] = []
        self.cuts = 0
        self.port = 0

    async def _serve(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            far, on = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:  # nobody is there, or nobody any more
            back.transport.abort()
            return
        self._ends += (back, on)
        self._start(self._carry(near, on, back))
        self._start(self._carry(far, back, on))

    def _start(self, carrying: object) -> None:
        task = asyncio.get_running_loop().create_task(carrying)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
    ) -> None:
        """One direction: what was read is written `delay_s` later, in order, however much."""
        due: _Due = asyncio.Queue()
        self._start(self._write(due, writer))
        try:
            while data := await reader.read(65_536):
                if self._cut_at is not None and self._cut_at in data:
                    self.cuts += 1
                    other.transport.abort()
                    break
                due.put_nowait((asyncio.get_running_loop().time() + self.delay_s, data))
        except OSError:
            pass  # this end was reset: the other one ends, too
        due.put_nowait((0.0, b""))

    async def _write(self, due: _Due, writer: asyncio.StreamWriter) -> None:
        while True:
            at, data = await due.get()
            if not data:
                writer.transport.abort()
                return
            await asyncio.sleep(at - asyncio.get_running_loop().time())
            writer.write(data)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*(end.wait_closed() for end in self._ends), return_exceptions=True)


@contextmanager
def wire_in_a_thread(to: int, *, delay_s: float) -> Iterator[int]:
    """A wire in a loop of its own, for a broker that has loops of its own; yields its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="wire")
    thread.start()
    wire = Wire(to, delay_s=delay_s)
    asyncio.run_coroutine_threadsafe(wire.__aenter__(), loop).result(30)
    try:
        yield wire.port
    finally:
        asyncio.run_coroutine_threadsafe(wire.__aexit__(None, None, None), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
