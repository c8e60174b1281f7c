"""One connection to Redis, read straight from the socket.

Owns the socket and the parser. redis-py makes the connection, for it knows TLS, logins and Unix
sockets; what then comes is read in large pieces, which is several times faster than its own way.
Never blocks after `open`. Retries nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import hiredis
from redis import Redis

READ_BYTES = 64 * 1024  # larger pieces are slower: what comes of one no longer fits the cache


class LinkEnded(OSError):
    """The connection is no more; `by_peer` where Redis ended it."""

    def __init__(self, reason: str, *, by_peer: bool) -> None:
        self.by_peer = by_peer
        super().__init__(reason)


class Link:
    """One open connection."""

    def __init__(self, redis: Redis) -> None:
        """Connect and log in.

        Raises:
            redis.RedisError, OSError: it was not possible.
        """
        connection: Any = redis.connection_pool.make_connection()
        self._connection = connection
        connection.connect()
        try:
            connection.send_command("INFO", "server")
            self.run_id = _run_id(connection)
            # redis-py has no public way to the socket that it has connected.
            self._socket = connection._get_socket()
            self._socket.setblocking(False)
        except BaseException:
            connection.disconnect()
            raise
        # Neither has it a buffer of its own, nor does Python code stand between us and it.
        self.is_plain = type(self._socket) is socket.socket
        self._buffer = bytearray(READ_BYTES)
        self._unsent = bytearray()
        self.has_more = False  # there is, or may be, more to read at once
        self._reader = hiredis.Reader()
        self.gets: Callable[[], Any] = self._reader.gets

    def fileno(self) -> int:
        """The socket, for a selector."""
        number: int = self._socket.fileno()
        return number

    @property
    def wants_to_write(self) -> bool:
        """Whether something could not be sent yet."""
        return bool(self._unsent)

    def send(self, *words: str | int) -> None:
        """Send a command, or as much of it as goes.

        Raises:
            LinkEnded: the connection is no more.
        """
        self._unsent += hiredis.pack_command(words)  # type: ignore[arg-type]
        self.write()

    def write(self) -> None:
        """Send what could not be sent yet.

        Raises:
            LinkEnded: the connection is no more.
        """
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except (BlockingIOError, TimeoutError):
            pass  # also TLS' way to say: later
        except OSError as error:
            if _is_later(error):
                return
            raise LinkEnded(str(error), by_peer=True) from error

    def read(self) -> bool:
        """Read a piece; `gets` then returns what is whole. False where there was nothing.

        Raises:
            LinkEnded: the connection is no more.
        """
        try:
            size = self._socket.recv_into(self._buffer)
        except OSError as error:
            if self.is_plain and is_of_handler(error):
                raise
            if isinstance(error, BlockingIOError | TimeoutError) or _is_later(error):
                return False
            raise LinkEnded(str(error), by_peer=True) from error
        if size == 0:
            raise LinkEnded("Redis closed the connection", by_peer=True)
        self._reader.feed(self._buffer, 0, size)  # type: ignore[arg-type]
        # TLS may hold more than the selector knows of.
        self.has_more = size == READ_BYTES or (not self.is_plain and self._socket.pending() > 0)
        return True

    def close(self) -> None:
        """Close it; may be called again."""
        self._connection.disconnect()


def is_of_handler(error: OSError) -> bool:
    """Whether it is not the socket's: raised by a signal's handler, in a bot's thread.

    To be asked where a socket was called directly: what Python code raised comes from further in.
    """
    trace = error.__traceback__
    return trace is not None and trace.tb_next is not None


def _run_id(connection: Any) -> str:
    """Which run of the server this is; empty where a bot may not know."""
    from redis import ResponseError

    try:
        text = connection.read_response()
    except ResponseError:
        return ""
    lines = (line for line in bytes(text).split(b"\r\n") if line.startswith(b"run_id:"))
    return next(lines, b":").partition(b":")[2].decode()


def _is_later(error: OSError) -> bool:
    return type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")
