"""One raw connection to Redis: commands out, replies counted.

Owns the socket and the greeting; knows neither what is written nor why. Not redis-py's, for that
costs more than all the rest of a price's way: see docs/decisions/003-own-publisher.md.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from time import monotonic
from typing import cast

import hiredis

from alpaca_broker.core.lease import Link, link_of
from alpaca_broker.errors import BusError
from alpaca_broker.settings import RedisTarget

CONNECT_WITHIN_S = 3.0


def command(*words: bytes) -> bytes:
    """A Redis command in RESP."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


def publish_head(channel: str) -> bytes:
    """The part of a PUBLISH that is the same for every message of a channel."""
    name = channel.encode()
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n" % (len(name), name)


class Pipe(asyncio.Protocol):
    """One connection to Redis; replies are counted, not kept."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._greeting: list[object] | None = []
        self._greeted = asyncio.Event()
        self.paused = False
        self.heard_at = monotonic()
        self.on_replies: Callable[[int, list[hiredis.ReplyError]], None] = lambda n, errors: None
        self.on_room: Callable[[], None] = lambda: None

    async def say_hello(self, target: RedisTarget, name: str) -> Link:
        """Log in and give the connection its name; returns what Redis calls it.

        Raises:
            BusError: refused, or no answer in time.
        """
        questions = [command(b"CLIENT", b"SETNAME", name.encode())]
        if target.username or target.password:  # as redis-py does
            user, password = target.username or "default", target.password or ""
            questions.insert(0, command(b"AUTH", user.encode(), password.encode()))
        if target.db:
            questions.append(command(b"SELECT", b"%d" % target.db))  # for `price:last`
        for question in questions:
            reply = await self._ask(question)
            if isinstance(reply, hiredis.ReplyError):
                text = "check REDIS_USERNAME and REDIS_PASSWORD"
                raise BusError(self._where, f"{reply}: {text}")
        info = await self._ask(command(b"CLIENT", b"INFO"))
        self._greeting = None
        return link_of(info)  # where that is not permitted nobody can cut it, either

    async def _ask(self, question: bytes) -> object:
        self._greeted.clear()
        self.write(question)
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await self._greeted.wait()
        except TimeoutError as error:
            raise BusError(self._where, "no answer to the greeting") from error
        if self._lost.done():
            raise BusError(self._where, self._lost.result())
        assert self._greeting
        return self._greeting.pop()

    async def ended_within(self, seconds: float) -> None:
        """Return after `seconds`, or raise BusError as soon as the connection has ended."""
        done, _ = await asyncio.wait([self._lost], timeout=seconds)
        if done:
            raise BusError(self._where, self._lost.result())

    @property
    def is_open(self) -> bool:
        """Whether the socket is there and not closing."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def writable(self) -> bool:
        """Whether a write would go out: the socket is open and has room."""
        return not self.paused and self.is_open

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's

    def data_received(self, data: bytes) -> None:
        self.heard_at = monotonic()
        self._reader.feed(data)
        replies, errors = 0, []
        try:
            if self._greeting is not None:
                self._hear_greeting(self._greeting)
            while (reply := self._reader.gets()) is not False:
                replies += 1
                if isinstance(reply, hiredis.ReplyError):
                    errors.append(reply)
        except hiredis.ProtocolError as error:
            self._end(f"not a Redis server: {error}")
            return
        if replies:
            self.on_replies(replies, errors)

    def _hear_greeting(self, heard: list[object]) -> None:
        while (reply := self._reader.gets()) is not False:
            heard.append(reply)
            self._greeted.set()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.on_room()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(str(error) if error else "the connection was closed")

    def _end(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(reason)
        self._greeted.set()
        self.abort()


async def open_pipe(target: RedisTarget) -> Pipe:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_WITHIN_S):
            if target.unix_path is not None:
                _, pipe = await loop.create_unix_connection(
                    lambda: Pipe(target.where), target.unix_path
                )
                return pipe
            context = ssl.create_default_context(cafile=target.tls_ca) if target.tls else None
            _, pipe = await loop.create_connection(
                lambda: Pipe(target.where), target.host, target.port, ssl=context
            )
            return pipe
    except TimeoutError as error:
        raise BusError(target.where, "no answer in time") from error
    except OSError as error:
        raise BusError(target.where, f"cannot be reached ({error.strerror or error})") from error
    except UnicodeError as error:
        raise BusError(target.where, f"REDIS_HOST is no host name ({error})") from error
