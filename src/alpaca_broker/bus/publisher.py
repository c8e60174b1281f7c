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
from collections.abc import Callable
from time import monotonic

import hiredis

from alpaca_broker.bus.fence import Fence, always_open
from alpaca_broker.bus.pipe import CONNECT_WITHIN_S, Pipe, command, open_pipe
from alpaca_broker.core.backoff import Patience
from alpaca_broker.core.lease import Link
from alpaca_broker.errors import BusError
from alpaca_broker.settings import RedisTarget
from alpaca_broker.telemetry import Seldom

log = logging.getLogger(__name__)

BEHIND_AT = 5_000  # messages that wait: where prices conflate, they do so from here on
WINDOW = 20_000  # commands that Redis may owe us an answer for
SILENT_FOR_S = 15.0  # with commands unanswered: the connection is given up
REFUSED_LATELY_S = 5.0
LOOK_EVERY_S = 1.0
IDLE_FOR_S = 5.0  # without any: a PING, so that a dead connection is found before it is needed


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
        self.behind = False  # more comes than fits: of prices only the newest are wanted
        self._waiting: list[bytes] = []
        self._in_flight = 0
        self._pipe: Pipe | None = None
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
        self.on_behind: Callable[[], None] = lambda: None  # Redis is; somebody else says until when

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
            self._flush_soon()

    def send_all(self, commands: list[bytes]) -> None:
        """Take several of these."""
        self._waiting += commands
        if not self._scheduled:
            self._flush_soon()

    def _flush_soon(self) -> None:
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

    @property
    def keeps_up(self) -> bool:
        """Whether Redis has taken so much that what was kept may follow."""
        return len(self._waiting) <= self._behind_at // 2

    @property
    def conflates(self) -> bool:
        """Whether prices may be left out where more comes than fits."""
        return self._conflates

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
        pipe = await open_pipe(self._target)
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

    async def _be_admitted(self, pipe: Pipe, link: Link) -> None:
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
        if self._conflates and not self.behind and len(self._waiting) >= self._behind_at:
            self.behind = True
            self.on_behind()

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
