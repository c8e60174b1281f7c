"""The ceiling: the same PUBLISH commands, prepared, pipelined by a bare loop.

Owns the loop. It reads the same frames as the broker, throws them away, and writes as many prepared
commands as messages were in them: what is left of a broker when nothing is decoded or encoded. In
`blast` it publishes so many and reads nothing.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from bench.children.lines import answer, leave
from bench.frames import commands, symbols

WINDOW = 20_000  # commands without an answer, as many as the broker allows itself
READ_BYTES = 256 * 1024


class Ceiling:
    """One connection to Redis, and one to the feeder while a run lasts."""

    def __init__(self, url: str, port: int) -> None:
        self._url = url
        self._redis = socket.create_connection(("127.0.0.1", port))
        self._redis.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._feed: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._owed = 0

    def connect(self) -> dict[str, Any]:
        """Be a client of the feeder."""
        self._feed = _client_of(self._url)
        return {}

    def go(self, names: int, total_bytes: int, messages: int) -> dict[str, Any]:
        """Publish a message for each that comes, until `halt`."""
        made = commands(symbols(names), max(20_000, names), epoch=1, ns=time.time_ns())
        run = threading.Thread(target=self._run, args=(made, messages / total_bytes))
        self._thread = run
        run.start()
        return {}

    def halt(self) -> dict[str, Any]:
        """Hang up, and end."""
        if self._feed is not None:
            self._feed.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join()
        return {}

    def blast(self, names: int, count: int, prefix: str, epoch: int, first: int) -> dict[str, Any]:
        """Publish `count` messages of symbols from the `first` on, as fast as Redis takes them."""
        chosen = symbols(first + names)[first:]
        made = commands(chosen, count, prefix=prefix, epoch=epoch, ns=time.time_ns())
        began = time.monotonic()
        for place in range(0, count, 500):
            piece = made[place : place + 500]
            self._send(memoryview(b"".join(piece)), len(piece))
        self._hear(0)
        return {"seconds": time.monotonic() - began}

    def _run(self, made: list[bytes], per_byte: float) -> None:
        assert self._feed is not None
        whole, offsets = memoryview(b"".join(made)), [0]
        for one in made:
            offsets.append(offsets[-1] + len(one))
        total, place, due = len(made), 0, 0.0
        into = bytearray(READ_BYTES)
        while got := _read(self._feed, into):
            due += got * per_byte
            while due >= 1:
                until = min(total, place + int(due))
                self._send(whole[offsets[place] : offsets[until]], until - place)
                due -= until - place
                place = until % total
        self._hear(0)

    def _send(self, data: memoryview, count: int) -> None:
        self._redis.sendall(data)
        self._owed += count
        self._hear(WINDOW)

    def _hear(self, most: int) -> None:
        """Read answers until so few are owed."""
        while self._owed > most:
            self._owed -= self._redis.recv(READ_BYTES).count(b"\r\n")
        self._redis.setblocking(False)
        try:
            while self._owed:
                self._owed -= self._redis.recv(READ_BYTES).count(b"\r\n")
        except BlockingIOError:
            pass
        finally:
            self._redis.setblocking(True)


def _read(feed: socket.socket, into: bytearray) -> int:
    try:
        return feed.recv_into(into)
    except OSError:
        return 0


def _client_of(url: str) -> socket.socket:
    """An authenticated connection to a feeder, with as much of WebSocket as that takes."""
    place = urlsplit(url)
    feed = socket.create_connection((place.hostname or "", place.port or 0))
    lines = (
        *("GET /v2/sip HTTP/1.1", f"Host: {place.netloc}", "Upgrade: websocket"),
        *("Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        *("Sec-WebSocket-Version: 13", "", ""),
    )
    feed.sendall("\r\n".join(lines).encode())
    _until(feed, b"connected")
    words = json.dumps({"action": "auth", "key": "demo", "secret": "demo-secret"}).encode()
    feed.sendall(bytes([0x81, 0x80 | len(words), 0, 0, 0, 0]) + words)  # masked with zeros
    _until(feed, b"authenticated")
    return feed


def _until(feed: socket.socket, word: bytes) -> None:
    heard = b""
    while word not in heard:
        heard += feed.recv(4096) or sys.exit("the feeder hung up")


def main() -> None:
    """`ceiling.py URL REDIS_PORT`."""
    ceiling = Ceiling(sys.argv[1], int(sys.argv[2]))
    answer(connect=ceiling.connect, go=ceiling.go, halt=ceiling.halt, blast=ceiling.blast)
    leave()


if __name__ == "__main__":
    main()
