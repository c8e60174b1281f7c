"""The keeper of the leadership's lease: stands by, takes it, renews it, and notices its loss.

Owns the epoch and the key `broker:leader`, which nobody else writes, over a connection of its own,
so that nothing can delay a renewal. Whatever it decides is decided in `core/lease.py`, and checked
again by the script that does it. Leaving it in order is the heartbeat's last word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from alpaca_broker.bus.fence import EPOCH_IN, Fence
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
    Link,
    deployment,
    holder,
    is_another,
    is_epoch,
    may_take,
)
from alpaca_broker.core.messages import encode
from alpaca_broker.errors import ConfigError
from alpaca_broker.settings import RedisTarget
from alpaca_broker.telemetry import Seldom

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 2.0
GREETED_WITHIN_S = 10.0  # a new connection, and the first answer over it: several questions
AGAIN_AFTER_S = 0.3  # without a growing patience: whoever is back late loses the lease
SAY_AGAIN_S = 300.0

# These go whole to Redis each time: one that was restarted knows no script by its hash, and every
# further question takes time that a slow Redis does not leave.

# KEYS leader, epoch, deployment. Answers what is there and, where the lease is absent, why Redis
# would not take anything in: then nobody can renew, either, and nothing is seen. (What is written
# to find that out is written only over something, and there is nothing.)
LOOK = """
local found = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3])
if not found[1] then
  local tried = redis.pcall('SET', KEYS[1], '', 'XX')
  if type(tried) == 'table' and tried.err then found[4] = tried.err end
end
return found
"""

TEXT_IN = """
local function text_in(key)
  local text = redis.pcall('GET', key)
  return type(text) == 'string' and text or ''
end
"""

# KEYS leader, epoch, deployment   ARGV what was seen of leader and deployment, our value behind its
# epoch, expiry in ms, our deployment. The epoch is max(stored + 1, Redis' clock in ms): it rises
# even where Redis has lost what was stored. Answers nil where somebody was faster.
TAKE = (
    EPOCH_IN
    + TEXT_IN
    + """
if text_in(KEYS[1]) ~= ARGV[1] or text_in(KEYS[3]) ~= ARGV[2] then return false end
local clock = redis.call('TIME')
local epoch = clock[1] * 1000 + math.floor(clock[2] / 1000)
local stored = epoch_in(KEYS[2])
if stored >= epoch then epoch = stored + 1 end
epoch = string.format('%d', epoch)
redis.call('SET', KEYS[2], epoch)
redis.call('SET', KEYS[3], ARGV[5])
redis.call('SET', KEYS[1], '{"epoch":' .. epoch .. ARGV[3], 'PX', ARGV[4])
return epoch
"""
)

# KEYS leader, epoch, deployment   ARGV our epoch, our value, expiry in ms, our deployment. Answers
# nil, or what stands against it: the stored epoch. A lease that ran out is taken up again where
# nobody took it meanwhile. Where Redis takes nothing in the reason is the answer: full memory
# forbids SET, not PEXPIRE; a full disk forbids both, to whoever might take the lease, too.
RENEW = (
    EPOCH_IN
    + TEXT_IN
    + """
local stored = epoch_in(KEYS[2])
local ours = tonumber(ARGV[1])
if stored > ours then return string.format('%d', stored) end
local kept = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if kept.err then
  redis.pcall('PEXPIRE', KEYS[1], ARGV[3])
  return kept.err
end
if stored < ours then redis.call('SET', KEYS[2], ARGV[1]) end
if text_in(KEYS[3]) ~= ARGV[4] then redis.call('SET', KEYS[3], ARGV[4]) end
return false
"""
)

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
        self._keys_of_it = (channels.leader, channels.epoch, channels.deployment)
        self._is_connected: Callable[[], bool] = lambda: False
        self._stood_by = False
        self._soon = asyncio.Event()
        self._standing_by, self._unkept = Seldom(SAY_AGAIN_S), Seldom(SAY_AGAIN_S)
        self._misled = Seldom(SAY_AGAIN_S)
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
        asked = monotonic()
        value, epoch, whose, *refusal = await self._ask(LOOK)
        held, former = holder(value), deployment(whose)
        self._refuse_strangers(held, former)
        # Where Redis takes nothing in a leader that is well cannot renew: later it comes first.
        present = held is not None or bool(refusal)
        absent = absence.saw(present=present, asked=asked, now=monotonic())
        if held is not None and not held.left and held.leader != self._leader:
            self._stands_by_for(held)
        ours = held is not None and held.leader == self._leader  # the answer to a take was lost
        ever_led = epoch is not None or self._stood_by
        if ours or may_take(held, absent=absent, ever_led=ever_led):
            if not is_epoch(epoch) and self._misled.may_say():
                log.warning(
                    "what %s holds is no epoch (%.40r): the next one is taken from Redis' clock",
                    *(self._channels.epoch, epoch),
                )
            return await self._take(value or b"", whose or b"", former or Deployment())
        if refusal:
            raise ResponseError(refusal[0].decode("utf-8", "replace"))
        return None

    async def _take(self, seen: bytes, whose: bytes, former: Deployment) -> int | None:
        began = monotonic()
        entered, links = self._fence.connections()
        strangers = [link for link in former.links if link not in links]
        # Until they are cut they stay named: should we fail at that, the next one does it.
        entry = self._entry([*links, *strangers])
        value = self._value(0, links)[_EPOCH_LESS:]
        epoch = await self._ask(TAKE, seen, whose, value, int(LASTS_S * 1_000), entry)
        if epoch is None:
            return None
        await self._cut_off(former.leader, strangers)
        self._fence.extend(began + LASTS_S, entered)
        return int(epoch)

    async def _cut_off(self, leader: str, links: list[Link]) -> None:
        """What a former leader still has on its way over these is not to arrive after us.

        Raises:
            redis.RedisError, OSError: nobody knows whether they are cut.
        """
        if not links:
            return
        async with self._deadline(), self._client.pipeline(transaction=False) as commands:
            for number, address in links:
                commands.execute_command("CLIENT KILL", "ID", number, "ADDR", address)
            answers = await commands.execute(raise_on_error=False)
        refusal = next((a for a in answers if isinstance(a, ResponseError)), None)
        if refusal is not None:
            log.warning(
                "cannot cut the connections of %s: %s. Permit CLIENT KILL to the broker's "
                "Redis user (+client|kill)",
                *(leader, refusal),
            )

    async def _hold(self) -> None:
        """Renew until the lease is lost."""
        while True:
            self._soon.clear()
            began = monotonic()
            entered, links = self._fence.connections()
            value, entry = self._value(self.epoch, links), self._entry(links)
            try:
                stored = await self._ask(RENEW, self.epoch, value, int(LASTS_S * 1_000), entry)
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
            await self._pause(began + RENEW_EVERY_S - monotonic())

    def _is_not_kept(self, reason: bytes) -> None:
        if self._unkept.may_say():
            text = reason.decode("utf-8", "replace")
            log.error("Redis at %s does not keep the lease: %s", self._target.where, text)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._soon.wait()
        except TimeoutError:
            pass

    def _stands_by_for(self, held: Holder) -> None:
        self._stood_by = True
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

    def _value(self, epoch: int, links: list[Link]) -> bytes:
        numbers = [link.number for link in links]
        value = Holder(epoch=epoch, leader=self._leader, connections=numbers, keys=self._keys)
        return encode(value)

    def _entry(self, links: list[Link]) -> bytes:
        numbers, addresses = [n for n, _ in links], [a for _, a in links]
        return encode(
            Deployment(
                leader=self._leader, keys=self._keys, connections=numbers, addresses=addresses
            )
        )

    async def _ask(self, script: str, *arguments: Any) -> Any:
        keys = self._keys_of_it
        async with self._deadline():
            return await self._client.eval(script, len(keys), *keys, *arguments)

    def _deadline(self) -> asyncio.Timeout:
        return asyncio.timeout(ANSWER_WITHIN_S if self._is_connected() else GREETED_WITHIN_S)

    async def _connected(self, connection: Any, link: Link) -> None:
        self._is_connected = lambda: bool(connection.is_connected)
        self._fence.enter(connection, link, self._is_connected)
