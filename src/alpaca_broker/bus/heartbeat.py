"""The broker's sign of life on `broker:status`, and the epoch under which it speaks.

Owns the epoch: it is taken once no other broker's heartbeat is there, and it never falls. While
another broker is alive this one stands by and says who leads. It is also the one that tells people
when Redis goes away and comes back.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import cast

import msgspec
from msgspec import Struct
from redis.asyncio import Redis

from alpaca_broker.bus.journal import Superseded
from alpaca_broker.bus.redis_client import RedisError, advice, deadline
from alpaca_broker.core.backoff import Patience
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.messages import Gap, Status, encode
from alpaca_broker.settings import RedisTarget
from alpaca_broker.telemetry import Seldom, fields

log = logging.getLogger(__name__)

EVERY_S = 1.0
EXPIRES_S = 5
KEPT_GAPS = 1_000

# max(stored + 1, Redis' clock in ms): it rises even where Redis has lost what was stored.
TAKE_EPOCH = """
local clock = redis.call('TIME')
local epoch = clock[1] * 1000 + math.floor(clock[2] / 1000)
local stored = tonumber(redis.call('GET', KEYS[1]) or '') or 0
if stored >= epoch then epoch = stored + 1 end
redis.call('SET', KEYS[1], string.format('%d', epoch))
return string.format('%d', epoch)
"""


# One beat, unless somebody leads under a higher epoch: then nothing is written, and that epoch is
# the answer. It is said before it is kept: a full disk or memory forbids writing, not saying; why
# nothing was kept is then the answer.
# KEYS epoch, status, received, gaps
# ARGV our epoch, status, expiry in s, kept gaps, how many were heard, (name, heard at)…, gap…
BEAT = """
local stored = tonumber(redis.call('GET', KEYS[1]) or '') or 0
if stored > tonumber(ARGV[1]) then return string.format('%d', stored) end
redis.call('PUBLISH', KEYS[2], ARGV[2])
local kept = redis.pcall('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
if kept.err then return kept.err end
local names = tonumber(ARGV[5])
for i = 1, names do redis.call('HSET', KEYS[3], ARGV[4 + 2 * i], ARGV[5 + 2 * i]) end
for i = 6 + 2 * names, #ARGV do
  redis.call('XADD', KEYS[4], 'MAXLEN', '=', ARGV[4], '*', 'data', ARGV[i])
  redis.call('PUBLISH', KEYS[2], ARGV[i])
end
return ''
"""

# The last words: said, and the place left, only while it is ours.
LEAVE = """
local stored = tonumber(redis.call('GET', KEYS[1]) or '') or 0
if stored > tonumber(ARGV[1]) then return end
redis.call('PUBLISH', KEYS[2], ARGV[2])
redis.call('DEL', KEYS[2])
"""


class _Holder(Struct):
    leader: str = ""


class Heartbeat:
    """Beats every second and at every change, until cancelled."""

    def __init__(
        self,
        client: Redis,
        channels: Channels,
        target: RedisTarget,
        *,
        leader: str,
        compose: Callable[[], Status],
        on_lead: Callable[[int, dict[str, float]], Awaitable[None]],
    ) -> None:
        self._client, self._channels, self._target = client, channels, target
        self._leader, self._compose, self._on_lead = leader, compose, on_lead
        self._gaps: deque[bytes] = deque(maxlen=KEPT_GAPS)  # not yet told
        self._beat_script = client.register_script(BEAT)
        self._changed = asyncio.Event()
        self._down_since: float | None = None
        self._standing_by = Seldom(10.0)
        self._still_down, self._unkept = Seldom(60.0), Seldom(60.0)
        self.epoch = 0

    @property
    def redis_is_up(self) -> bool:
        """Whether the last beat arrived."""
        return self.epoch > 0 and self._down_since is None

    def beat_now(self) -> None:
        """Something changed: do not wait for the next second."""
        self._changed.set()

    def announce(self, gap: Gap) -> None:
        """Tell that something was missed: now, and in `broker:gaps` for bots that were away."""
        names = ", ".join(gap.symbols[:10]) or "none"
        lasted = gap.ended - gap.began
        log.log(
            logging.INFO if gap.recovered else logging.WARNING,
            "gap of %.1f s: %s (symbols: %s)",
            *(lasted, gap.reason, names),
            extra=fields(feed=gap.feed or None, account_id=gap.account_id or None),
        )
        self._gaps.append(encode(gap))
        self.beat_now()

    async def run(self) -> None:
        """Lead and beat until cancelled.

        Raises:
            Superseded: another broker has taken a higher epoch.
        """
        patience = Patience(random.uniform, first=0.2, ceiling=3.0, settled=5.0)
        while True:
            began = monotonic()
            try:
                if not self.epoch:
                    await self._lead()
                while True:
                    await self._beat()
                    self._is_up()
                    await self._pause()
            except (RedisError, OSError) as error:
                self._is_down(error)
            await asyncio.sleep(patience.after(monotonic() - began))

    async def last_words(self) -> None:
        """Say that the broker is down and make room for the next one; the caller has a deadline.

        Raises:
            redis.RedisError: nobody heard it; the key expires by itself.
        """
        if not self.redis_is_up:
            return
        leave = self._client.register_script(LEAVE)
        keys = [self._channels.epoch, self._channels.status]
        await leave(keys=keys, args=[self.epoch, encode(self._compose())])

    async def _lead(self) -> None:
        while holder := await self._other_leader():
            self._is_up()
            if self._standing_by.may_say():
                log.warning("standing by: %s leads", holder)
            await asyncio.sleep(EVERY_S)
        take = self._client.register_script(TAKE_EPOCH)
        async with deadline():
            epoch = int(await take(keys=[self._channels.epoch]))
        async with deadline():
            received = await cast(
                Awaitable[dict[bytes, bytes]], self._client.hgetall(self._channels.received)
            )
        await self._on_lead(epoch, _times(received))
        self.epoch = epoch

    async def _other_leader(self) -> str | None:
        async with deadline():
            status = await self._client.get(self._channels.status)
        if status is None:
            return None
        try:
            holder = msgspec.json.decode(status, type=_Holder).leader
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None  # nobody of ours wrote that
        return holder if holder != self._leader else None

    async def _beat(self) -> None:
        self._changed.clear()
        status = self._compose()
        payload = encode(status)
        gaps = list(self._gaps)
        received = _received(status)
        channels = self._channels
        keys = [channels.epoch, channels.status, channels.received, channels.gaps]
        heard = [word for pair in received.items() for word in pair]
        counts = [EXPIRES_S, KEPT_GAPS, len(received)]
        async with deadline():
            answer = await self._beat_script(
                keys=keys, args=[self.epoch, payload, *counts, *heard, *gaps]
            )
        if answer.isdigit():
            epoch, self.epoch = int(answer), 0  # we lead no more, and say nothing more
            raise Superseded(epoch)
        if answer:
            if self._unkept.may_say():
                text = answer.decode("utf-8", "replace")
                log.error("Redis at %s takes nothing in: %s", self._target.where, text)
            return  # gaps wait, for they are to be kept
        for gap in gaps:
            if self._gaps and self._gaps[0] is gap:
                self._gaps.popleft()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(EVERY_S):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _is_down(self, error: Exception) -> None:
        if self._down_since is None:
            self._down_since = monotonic()
            self._still_down.may_say()
            log.error("%s. Trying again until it answers.", advice(error, self._target))
        elif self._still_down.may_say():
            lasted = monotonic() - self._down_since
            log.error("still: %s (for %.0f s)", advice(error, self._target), lasted)

    def _is_up(self) -> None:
        if self._down_since is not None:
            lasted = monotonic() - self._down_since
            self._down_since = None
            log.info("Redis at %s is back after %.1f s", self._target.where, lasted)


def _received(status: Status) -> dict[str, float]:
    """Until when each feed was heard and each account is known: a gap begins there if we die."""
    heard = {name: feed.last_message for name, feed in status.feeds.items() if feed.state == "live"}
    heard |= {name: account.reconciled for name, account in status.accounts.items()}
    return {name: at for name, at in heard.items() if at is not None}


def _times(received: dict[bytes, bytes]) -> dict[str, float]:
    """Times that were kept; what is none is left out."""
    times: dict[str, float] = {}
    for name, at in received.items():
        try:
            times[name.decode()] = float(at)
        except ValueError:  # UnicodeDecodeError is one, too
            continue
    return times
