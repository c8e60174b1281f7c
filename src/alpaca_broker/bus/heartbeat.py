"""The broker's sign of life on `broker:status`: every second, and at every change.

Owns the gaps that are not yet told. Each beat is a script that writes nothing once another broker
has taken a higher epoch. Only a leader beats; its last words leave the leadership to the next one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from time import monotonic

from redis.asyncio import Redis

from alpaca_broker.bus.fence import EPOCH_IN, Fence
from alpaca_broker.bus.journal import Superseded
from alpaca_broker.bus.redis_client import RedisError, deadline
from alpaca_broker.core.backoff import Patience
from alpaca_broker.core.channels import Channels, heard_name
from alpaca_broker.core.messages import Gap, Status, encode
from alpaca_broker.settings import RedisTarget
from alpaca_broker.telemetry import Seldom, fields

log = logging.getLogger(__name__)

EVERY_S = 1.0
EXPIRES_S = 5
KEPT_GAPS = 1_000

# One beat, unless somebody leads under a higher epoch: then nothing is written, and that epoch is
# the answer. It is said before it is kept: a full disk or memory forbids writing, not saying; why
# nothing was kept is then the answer.
# KEYS epoch, status, received, gaps
# ARGV our epoch, status, expiry in s, kept gaps, how many were heard, (name, heard at)…, gap…
BEAT = f"""{EPOCH_IN}
local stored = epoch_in(KEYS[1])
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
# KEYS epoch, status, leader   ARGV our epoch, status, what the lease says from now on
LEAVE = f"""{EPOCH_IN}
local stored = epoch_in(KEYS[1])
if stored > tonumber(ARGV[1]) then return end
redis.call('PUBLISH', KEYS[2], ARGV[2])
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[3], ARGV[3])
"""


class Heartbeat:
    """Beats for one epoch after the other; `announce` and `beat_now` at any time."""

    def __init__(
        self,
        client: Redis,
        channels: Channels,
        target: RedisTarget,
        fence: Fence,
        compose: Callable[[], Status],
    ) -> None:
        self._target = target
        self._client, self._channels, self._fence = client, channels, fence
        self._compose = compose
        self._gaps: deque[bytes] = deque(maxlen=KEPT_GAPS)  # not yet told
        self._beat_script = client.register_script(BEAT)
        self._changed = asyncio.Event()
        self._unkept = Seldom(60.0)

    def beat_now(self) -> None:
        """Something changed: do not wait for the next second."""
        self._changed.set()

    def announce(self, gap: Gap) -> None:
        """Tell that something was missed: now, and in `broker:gaps` for bots that were away."""
        lasted = gap.ended - gap.began
        what = ", ".join(gap.symbols[:10]) or "none"
        if len(gap.symbols) > 10:
            what += f" and {len(gap.symbols) - 10} more"
        log.log(
            logging.INFO if gap.recovered else logging.WARNING,
            "gap of %.1f s%s: %s (%s)",
            lasted,
            # Of a feed's gap the reason says it.
            ", recovered" if gap.recovered and not gap.feed else "",
            gap.reason,
            f"account {gap.account_id}" if gap.account_id else f"symbols: {what}",
            extra=fields(feed=gap.feed or None, account_id=gap.account_id or None),
        )
        self._gaps.append(encode(gap))
        self.beat_now()

    def forget(self) -> None:
        """A new epoch begins: whoever led meanwhile has told its own gaps."""
        self._gaps.clear()

    async def beat(self, epoch: int) -> None:
        """Beat under this epoch until cancelled.

        Raises:
            Superseded: another broker has taken a higher one.
        """
        patience = Patience(random.uniform, first=0.1, ceiling=1.0, settled=5.0)
        while True:
            began = monotonic()
            try:
                while True:
                    await self._fence.opened()
                    await self._beat(epoch)
                    await self._pause()
            except (RedisError, OSError) as error:
                log.debug("no sign of life: %s", error)
            await asyncio.sleep(patience.after(monotonic() - began))

    async def last_words(self, epoch: int, lease: bytes) -> None:
        """Say that the broker is down and make room for the next one; the caller has a deadline.

        Raises:
            redis.RedisError: nobody heard it; what is there expires by itself.
        """
        leave = self._client.register_script(LEAVE)
        keys = [self._channels.epoch, self._channels.status, self._channels.leader]
        await leave(keys=keys, args=[epoch, encode(self._compose()), lease])

    async def _beat(self, epoch: int) -> None:
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
                keys=keys, args=[epoch, payload, *counts, *heard, *gaps]
            )
        if answer.isdigit():
            raise Superseded(int(answer))
        if answer:
            if self._unkept.may_say():
                text = answer.decode("utf-8", "replace")
                log.error("Redis takes nothing in: %s", text)
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


def _received(status: Status) -> dict[str, float]:
    """Until when each feed was heard and each account is known: a gap begins there if we die."""
    heard = {name: feed.last_message for name, feed in status.feeds.items() if feed.state == "live"}
    for name, account in status.accounts.items():
        heard |= {name: account.reconciled, heard_name(name): account.heard_until}
    return {name: at for name, at in heard.items() if at is not None}
