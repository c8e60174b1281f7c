"""The hot path into Redis: PUBLISH commands, pipelined, over one connection of our own.

Owns the connection, the commands that wait and those that are not yet acknowledged. Market data is
published at most once: what was written and not acknowledged when a connection ends is counted as
lost, never sent again; what was not yet written waits for the next connection. Commands go out in
one write per turn of the loop. `room` is how a bounded buffer makes the reader of Alpaca wait.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable
from time import monotonic
from typing import cast

import hiredis

from alpaca_broker.bus.fence import Fence, always_open
from alpaca_broker.core.backoff import Patience
from alpaca_broker.core.lease import Link, link_of
from alpaca_broker.errors import BusError
from alpaca_broker.settings import RedisTarget
from alpaca_broker.telemetry import Seldom

log = logging.getLogger(__name__)

BEHIND_AT = 5_000  # messages that wait: where prices conflate, they do so from here on
WINDOW = 20_000  # commands that Redis may owe us an answer for
CONNECT_WITHIN_S = 3.0
SILENT_FOR_S = 15.0  # with commands unanswered: the connection is given up
REFUSED_LATELY_S = 5.0
LOOK_EVERY_S = 1.0
IDLE_FOR_S = 5.0  # without any: a PING, so that a dead connection is found before it is needed


def command(*words: bytes) -> bytes:
    """A Redis command in RESP."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


def publish_head(channel: str) -> bytes:
    """The part of a PUBLISH that is the same for every message of a channel."""
    name = channel.encode()
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n" % (len(name), name)


class Publisher:
    """Publishes for one loop. `publish` never waits; `room` does."""

    def __init__(
        self,
        target: RedisTarget,
        *,
        bound: int,
        conflates: bool = False,
        fence: Fence | None = None,
        name: str = "alpaca-broker:prices",
    ) -> None:
        self._target, self._name = target, name
        self._fence = fence or always_open()
        self._bound, self._conflates = bound, conflates
        self._behind_at = min(bound, BEHIND_AT)
        self.behind = False  # Redis does not keep up: of prices only the newest are wanted
        self._waiting: list[bytes] = []
        self._in_flight = 0
        self._pipe: _Pipe | None = None
        self._scheduled = False
        self._roomy, self._empty = asyncio.Event(), asyncio.Event()
        self._roomy.set()
        self._empty.set()
        self._pinged = False  # a ping is among those in flight
        self._refused_at, self._refusal = float("-inf"), ""
        self._complaints = Seldom(10.0)
        self.acknowledged = 0  # commands that Redis carried out
        self.rejected = 0  # commands that Redis refused
        self.lost = 0  # commands that were written and never acknowledged
        self.error: str | None = None
        self.on_connected: Callable[[], None] = lambda: None
        self.on_lost: Callable[[int], None] = lambda commands: None
        self.on_behind: Callable[[], None] = lambda: None
        # Redis has caught up: hand over what was kept; answers whether there is still more.
        self.on_caught_up: Callable[[int], bool] = lambda most: False

    @property
    def connected(self) -> bool:
        """Whether commands reach Redis now."""
        return self._pipe is not None

    @property
    def waiting(self) -> int:
        """Messages that are not yet written."""
        return len(self._waiting)

    @property
    def settled(self) -> int:
        """Commands whose fate is known: carried out, refused or lost."""
        return self.acknowledged + self.rejected + self.lost

    @property
    def taken(self) -> int:
        """Commands so far; once as many are `settled`, each of these is."""
        return self.settled + self._in_flight - self._pinged + len(self._waiting)

    def publish(self, head: bytes, payload: bytes) -> None:
        """Take one message for the channel of `publish_head`."""
        self.send(b"%b$%d\r\n%b\r\n" % (head, len(payload), payload))

    def send(self, command: bytes) -> None:
        """Take any other command in RESP; it goes out in the same order."""
        self._waiting.append(command)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    @property
    def has_room(self) -> bool:
        """Whether more may be read, as always where prices conflate; `room` waits until it may."""
        if self._conflates or len(self._waiting) < self._bound:
            return True
        self._roomy.clear()
        return False

    @property
    def is_full(self) -> bool:
        """Whether the buffer has reached its bound."""
        return len(self._waiting) >= self._bound

    async def room(self) -> None:
        """Wait until the full buffer is half empty."""
        await self._roomy.wait()

    async def drain(self, within_s: float) -> int:
        """Wait until everything is acknowledged; returns how many messages were not in time."""
        self._empty.clear()
        self._check_empty()
        try:
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        except TimeoutError:
            pass
        return len(self._waiting) + self._in_flight - self._pinged

    def refusal(self) -> str | None:
        """Redis' words, where it refused a command within the last seconds."""
        return self._refusal if monotonic() - self._refused_at < REFUSED_LATELY_S else None

    async def run(self) -> None:
        """Stay connected until cancelled."""
        patience = Patience(random.uniform, first=0.1, ceiling=2.0, settled=5.0)
        while True:
            began = monotonic()
            try:
                await self._serve()
            except BusError as error:
                if self.error is None and self._waiting:
                    log.warning("prices wait: %s", error)
                self.error = str(error)
            await asyncio.sleep(patience.after(monotonic() - began))

    async def _serve(self) -> None:
        """One connection, from opening to its end. Always raises BusError."""
        pipe = await _open(self._target)
        try:
            await self._be_admitted(pipe, await pipe.say_hello(self._target, self._name))
            self._pipe, pipe.on_replies = pipe, self._replied
            pipe.on_room = self._flush
            if self.error is not None:
                log.info("prices flow again: Redis at %s is back", self._target.where)
                self.error = None
            self.on_connected()
            self._flush()
            while True:
                await pipe.ended_within(LOOK_EVERY_S)
                self._flush()  # what waited for the lease
                silent_for = monotonic() - pipe.heard_at
                if self._in_flight and silent_for >= SILENT_FOR_S:
                    raise BusError(self._target.where, f"no answer for {SILENT_FOR_S:.0f} s")
                if not self._in_flight and silent_for >= IDLE_FOR_S and pipe.writable:
                    self._pinged = True
                    self._write(command(b"PING"), 1)
        finally:
            lost, self._in_flight, self._pipe = self._in_flight - self._pinged, 0, None
            self._pinged = False
            self._fence.leave(pipe)
            pipe.abort()
            if lost:
                self.lost += lost
                self.on_lost(lost)

    async def _be_admitted(self, pipe: _Pipe, link: Link) -> None:
        """Nothing is written before the lease names this connection."""
        place = self._fence.enter(pipe, link, lambda: pipe.is_open)
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await self._fence.admit(place)
        except TimeoutError as error:
            raise BusError(self._target.where, "the lease cannot be renewed") from error

    def _flush(self) -> None:
        self._scheduled = False
        self._write_out()
        if self._conflates:
            self._judge()

    def _judge(self) -> None:
        """See whether Redis keeps up; what was kept meanwhile goes out piece by piece."""
        waiting = len(self._waiting)
        if not self.behind:
            if waiting >= self._behind_at:
                self.behind = True
                self.on_behind()
        elif waiting <= self._behind_at // 2:
            self.behind = self.on_caught_up(self._behind_at // 2)

    def _write_out(self) -> None:
        pipe, waiting = self._pipe, self._waiting
        if pipe is None or not pipe.writable or not waiting or not self._fence.is_open:
            return
        room = WINDOW - self._in_flight
        if room <= 0:
            return
        if len(waiting) <= room:
            self._waiting = []
            self._write(b"".join(waiting), len(waiting))
        else:
            self._write(b"".join(waiting[:room]), room)
            del waiting[:room]
        if not self._roomy.is_set() and len(self._waiting) <= self._bound // 2:
            self._roomy.set()

    def _write(self, data: bytes, commands: int) -> None:
        assert self._pipe is not None
        if not self._in_flight:
            self._pipe.heard_at = monotonic()  # silence counts from the question
        self._in_flight += commands
        self._pipe.write(data)

    def _replied(self, replies: int, errors: list[hiredis.ReplyError]) -> None:
        self._in_flight -= replies
        # A ping goes out alone, so its answer is the first to come.
        self.acknowledged += replies - len(errors) - self._pinged
        self._pinged = False
        self.rejected += len(errors)
        if errors:
            self._refused_at, self._refusal = monotonic(), str(errors[0])
        if errors and self._complaints.may_say():
            log.error(
                "Redis refuses messages: %s%s. Check the user's ACL rules and the server's memory.",
                errors[0],
                self._complaints.more(),
            )
        if self._waiting:
            self._flush()
        else:
            self._check_empty()

    def _check_empty(self) -> None:
        if not self._waiting and not self._in_flight:
            self._empty.set()


class _Pipe(asyncio.Protocol):
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


async def _open(target: RedisTarget) -> _Pipe:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_WITHIN_S):
            if target.unix_path is not None:
                _, pipe = await loop.create_unix_connection(
                    lambda: _Pipe(target.where), target.unix_path
                )
                return pipe
            context = ssl.create_default_context(cafile=target.tls_ca) if target.tls else None
            _, pipe = await loop.create_connection(
                lambda: _Pipe(target.where), target.host, target.port, ssl=context
            )
            return pipe
    except TimeoutError as error:
        raise BusError(target.where, "no answer in time") from error
    except OSError as error:
        raise BusError(target.where, f"cannot be reached ({error.strerror or error})") from error
    except UnicodeError as error:
        raise BusError(target.where, f"REDIS_HOST is no host name ({error})") from error
