"""The keeper of the leadership's lease: stands by, takes it, renews it, and notices its loss.

Owns the epoch and the key `broker:leader`, which nobody else writes, over a connection of its own,
so that nothing can delay a renewal. Whatever it decides is decided in `core/lease.py`, and checked
again by the script that does it. Leaving it in order is the heartbeat's last word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from alpaca_broker.bus.fence import Fence
from alpaca_broker.bus.reachability import Reachability
from alpaca_broker.bus.redis_client import RedisError, connect
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.lease import (
    LASTS_S,
    LOOK_EVERY_S,
    RENEW_EVERY_S,
    Absence,
    Deployment,
    Holder,
    deployment,
    holder,
    is_another,
    may_take,
)
from alpaca_broker.core.messages import encode
from alpaca_broker.errors import ConfigError
from alpaca_broker.settings import RedisTarget
from alpaca_broker.telemetry import Seldom

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 2.0
AGAIN_AFTER_S = 0.3  # without a growing patience: whoever is back late loses the lease
SAY_AGAIN_S = 300.0

# KEYS leader, epoch, deployment   ARGV what was seen there, our value behind its epoch,
# expiry in ms, our deployment. The epoch is max(stored + 1, Redis' clock in ms): it rises even
# where Redis has lost what was stored. Answers nil where somebody was faster.
TAKE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return false end
local clock = redis.call('TIME')
local epoch = clock[1] * 1000 + math.floor(clock[2] / 1000)
local stored = tonumber(redis.call('GET', KEYS[2]) or '') or 0
if stored >= epoch then epoch = stored + 1 end
epoch = string.format('%d', epoch)
redis.call('SET', KEYS[2], epoch)
redis.call('SET', KEYS[3], ARGV[4])
redis.call('SET', KEYS[1], '{"epoch":' .. epoch .. ARGV[2], 'PX', ARGV[3])
return epoch
"""

# KEYS leader, epoch   ARGV our epoch, our value, expiry in ms. Answers nil, or what stands against
# it: the stored epoch. A lease that ran out is taken up again where nobody took it meanwhile. Where
# Redis takes nothing in the reason is the answer: full memory forbids SET, not PEXPIRE; a full disk
# forbids both, to whoever might take the lease, too.
RENEW = """
local stored = tonumber(redis.call('GET', KEYS[2]) or '') or 0
local ours = tonumber(ARGV[1])
if stored > ours then return string.format('%d', stored) end
local kept = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if kept.err then
  redis.pcall('PEXPIRE', KEYS[1], ARGV[3])
  return kept.err
end
if stored < ours then redis.call('SET', KEYS[2], ARGV[1]) end
return false
"""

# Full disk, full memory: then nobody can take the lease, either, and what is only said goes on.
NOBODY_CAN = (b"MISCONF", b"OOM", b"ERR MISCONF", b"ERR OOM", b"-MISCONF", b"-OOM")

_EPOCH_LESS = len('{"epoch":0')


class LeaseKeeper:
    """Stands by or leads, until cancelled. `epoch` is 0 while another one leads."""

    def __init__(
        self,
        target: RedisTarget,
        channels: Channels,
        fence: Fence,
        *,
        leader: str,
        keys: list[str],
        on_begin: Callable[[int], None],
        on_end: Callable[[], None],
    ) -> None:
        self._target, self._channels, self._fence = target, channels, fence
        self._leader, self._keys = leader, keys
        self._on_begin, self._on_end = on_begin, on_end
        self._client: Redis = connect(target, "alpaca-broker:lease", on_connected=self._connected)
        self._take_script = self._client.register_script(TAKE)
        self._renew_script = self._client.register_script(RENEW)
        self._link = 0  # counts our connections: what was seen over another one may be of old
        self._seen: tuple[int, Holder] | None = None
        self._stood_by = False
        self._soon = asyncio.Event()
        self._standing_by, self._unkept = Seldom(SAY_AGAIN_S), Seldom(SAY_AGAIN_S)
        self._told_of = ""
        self.redis = Reachability(target)
        self.epoch = 0

    @property
    def last_value(self) -> bytes:
        """What it says once we left in order."""
        return encode(Holder(epoch=self.epoch, leader=self._leader, keys=self._keys, left=True))

    def renew_now(self) -> None:
        """A connection waits to be named: do not wait for the next turn."""
        self._soon.set()

    async def run(self) -> None:
        """Stand by, lead, stand by again, until cancelled.

        Raises:
            ConfigError: the channels and keys under our prefix are another deployment's.
        """
        try:
            while True:
                self.epoch = await self._stand_by()
                self._on_begin(self.epoch)
                await self._hold()
        finally:
            self._fence.close()  # what is still written is written by scripts that check the epoch
            await self._client.aclose()

    def give_up(self) -> None:
        """Write nothing more under our epoch: somebody else leads, or we have left."""
        self._fence.close()
        self.epoch = 0
        self._on_end()

    async def _stand_by(self) -> int:
        """Returns our epoch once we lead."""
        absence = Absence()
        while True:
            pause = LOOK_EVERY_S
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    epoch = await self._look(absence)
                self.redis.answered()
                if epoch:
                    return epoch
            except (RedisError, OSError) as error:
                self.redis.failed(error)
                pause = AGAIN_AFTER_S
            await asyncio.sleep(pause)

    async def _look(self, absence: Absence) -> int | None:
        """See who leads; take the lease where it may be taken."""
        names = self._channels
        found = await cast(
            Awaitable[list[bytes | None]],
            self._client.mget(names.leader, names.epoch, names.deployment),
        )
        value, epoch, whose = found
        held = holder(value)
        self._refuse_strangers(held, deployment(whose))
        absent = absence.saw(present=held is not None, now=monotonic())
        if held is not None and not held.left and held.leader != self._leader:
            self._stands_by_for(held)
        ours = held is not None and held.leader == self._leader  # the answer to a take was lost
        ever_led = epoch is not None or self._stood_by
        if not (ours or may_take(held, absent=absent, ever_led=ever_led)):
            return None
        return await self._take(value or b"")

    async def _take(self, seen: bytes) -> int | None:
        began = monotonic()
        entered, value = self._value(0)
        deployment = encode(Deployment(leader=self._leader, keys=self._keys))
        names = self._channels
        keys = [names.leader, names.epoch, names.deployment]
        arguments: list[Any] = [seen, value[_EPOCH_LESS:], int(LASTS_S * 1_000), deployment]
        answer = await self._take_script(keys=keys, args=arguments)
        if answer is None:
            return None
        await self._cut_off_the_former_leader()
        self._fence.extend(began + LASTS_S, entered)
        return int(answer)

    async def _cut_off_the_former_leader(self) -> None:
        """Whatever it still has on its way over these connections is not to arrive after us."""
        seen, self._seen = self._seen, None
        if seen is None or seen[0] != self._link:
            return  # Redis counts its connections anew after a restart: these may be anybody's
        for connection in seen[1].connections:
            try:
                await self._client.client_kill_filter(_id=str(connection))
            except ResponseError as error:
                log.warning(
                    "cannot cut the connections of %s: %s. Permit CLIENT KILL to the broker's "
                    "Redis user (+client|kill)",
                    *(seen[1].leader, error),
                )
                return

    async def _hold(self) -> None:
        """Renew until the lease is lost."""
        while True:
            self._soon.clear()
            began = monotonic()
            entered, value = self._value(self.epoch)
            keys = [self._channels.leader, self._channels.epoch]
            arguments: list[Any] = [self.epoch, value, int(LASTS_S * 1_000)]
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    stored = await self._renew_script(keys=keys, args=arguments)
            except (RedisError, OSError) as error:
                self.redis.failed(error)
                await asyncio.sleep(AGAIN_AFTER_S)
                continue
            self.redis.answered()
            if stored is not None and not stored.isdigit():
                self._is_not_kept(stored)
                if not stored.startswith(NOBODY_CAN):
                    await asyncio.sleep(AGAIN_AFTER_S)
                    continue  # a demoted server, or a rule: somewhere else somebody may take it
            elif stored is not None:
                log.error("another broker leads now (epoch %d): standing by", int(stored))
                self._stood_by, self._told_of = True, ""
                self.give_up()
                return
            self._fence.extend(began + LASTS_S, entered)
            await self._pause()

    def _is_not_kept(self, reason: bytes) -> None:
        if self._unkept.may_say():
            text = reason.decode("utf-8", "replace")
            log.error("Redis at %s does not keep the lease: %s", self._target.where, text)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(RENEW_EVERY_S):
                await self._soon.wait()
        except TimeoutError:
            pass

    def _stands_by_for(self, held: Holder) -> None:
        self._seen, self._stood_by = (self._link, held), True
        if held.leader != self._told_of or self._standing_by.may_say():
            self._standing_by.may_say()
            self._told_of = held.leader
            log.warning("standing by: %s leads", held.leader)

    def _refuse_strangers(self, held: Holder | None, whose: Deployment | None) -> None:
        prefix, where = self._channels.prefix, self._target.where
        if held is not None and not held.left and is_another(held.keys, self._keys):
            raise ConfigError(
                f"another deployment leads under CHANNEL_PREFIX {prefix!r} of Redis at {where}: "
                f"{held.leader}, with other Alpaca keys. Give each deployment a CHANNEL_PREFIX of "
                f"its own"
            )
        if whose is not None and is_another(whose.keys, self._keys):
            raise ConfigError(
                f"what is under CHANNEL_PREFIX {prefix!r} of Redis at {where} belongs to another "
                f"deployment, last led by {whose.leader} with other Alpaca keys. Give each "
                f"deployment a CHANNEL_PREFIX of its own; where these keys replace those, delete "
                f"the key {self._channels.deployment}"
            )

    def _value(self, epoch: int) -> tuple[int, bytes]:
        entered, connections = self._fence.connections()
        value = Holder(epoch=epoch, leader=self._leader, connections=connections, keys=self._keys)
        return entered, encode(value)

    async def _connected(self, connection: Any, number: int) -> None:
        self._link += 1
        self._fence.enter(connection, number, lambda: connection.is_connected)
