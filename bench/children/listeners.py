"""Subscribers that cost next to nothing: they read and throw away.

Owns the connections. They stand for bots where Redis' work is what counts, not theirs.
"""

from __future__ import annotations

import selectors
import socket
import sys
import threading
from typing import Any

import hiredis

from alpaca_broker.bus.pipe import command
from bench.children.lines import answer, leave
from bench.frames import symbols

READ_BYTES = 256 * 1024


class Listeners:
    """As many connections as asked for."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ready = selectors.DefaultSelector()
        self._open: list[socket.socket] = []
        self.bytes = 0
        threading.Thread(target=self._read, name="read", daemon=True).start()

    def hear(
        self, connections: int, names: int, prefix: str = "", each: int | None = None
    ) -> dict[str, Any]:
        """Have so many connections: each on all channels, or on `each` of them in turn."""
        self.leave()
        channels = [f"{prefix}price:{name}".encode() for name in symbols(names)]
        for number in range(connections):
            first = number * (each or 0) % names
            wanted = channels[first : first + each] if each else channels
            link = socket.create_connection(("127.0.0.1", self._port))
            link.sendall(command(b"SUBSCRIBE", *wanted))
            reader, heard = hiredis.Reader(), 0
            while heard < len(wanted):
                reader.feed(link.recv(READ_BYTES))
                while reader.gets() is not False:
                    heard += 1
            link.setblocking(False)
            self._open.append(link)
            self._ready.register(link, selectors.EVENT_READ)
        return {}

    def leave(self) -> None:
        """Close all connections."""
        for link in self._open:
            self._ready.unregister(link)
            link.close()
        self._open = []

    def _read(self) -> None:
        into = bytearray(READ_BYTES)
        while True:
            for key, _ in self._ready.select(0.2):
                try:
                    self.bytes += key.fileobj.recv_into(into)  # type: ignore[union-attr]
                except (BlockingIOError, OSError, AttributeError):
                    pass


def main() -> None:
    """`listeners.py REDIS_PORT`."""
    listeners = Listeners(int(sys.argv[1]))
    answer(hear=listeners.hear)
    leave()


if __name__ == "__main__":
    main()
