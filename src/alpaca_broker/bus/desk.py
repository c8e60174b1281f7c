"""The registrar's desk: its connection to Redis.

Owns the subscription to `broker:registration`, the wishes kept in `broker:registry`, the answers on
their way, and the look at who listens. When Redis goes away it subscribes again, for ever; what was
registered stays. Only the leader answers and writes; a stand-by hears and remembers.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic, time
from typing import Any, cast

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.commands.core import AsyncScript

from alpaca_broker.bus.fence import EPOCH_IN, Fence
from alpaca_broker.bus.journal import Superseded
from alpaca_broker.bus.redis_client import RedisError, deadline
from alpaca_broker.bus.registrar import Registrar
from alpaca_broker.core.backoff import Patience
from alpaca_broker.core.channels import MARKET_DATA, NEWS, Channels
from alpaca_broker.core.demand import Heard
from alpaca_broker.core.feeds import EVERY
from alpaca_broker.core.messages import encode
from alpaca_broker.core.registration import is_symbol
from alpaca_broker.core.registry import Saved

log = logging.getLogger(__name__)

LISTEN_FOR_S = 5.0  # without a message: a ping, which must be answered in the same time
LOOK_EVERY_S = 1.0
EXPIRE_EVERY_S = 0.25
# Settling looks at everything that anybody wants, so it gets one part in so many of the time.
SETTLING_S = 5
AT_ONCE = 100  # in one script, for as long as which Redis serves nobody else
AT_A_TURN = 20  # messages, before others of this loop have theirs

# Both do nothing once somebody leads under a higher epoch, which is then the answer: whoever was
# suspended after it looked at the fence finds its connections cut, and may write over new ones.
# KEYS epoch, registry   ARGV our epoch, how many wishes, (bot, wish)…, bots without one…
KEEP = f"""{EPOCH_IN}
local stored = epoch_in(KEYS[1])
if stored > tonumber(ARGV[1]) then return string.format('%d', stored) end
local last = 2 + 2 * tonumber(ARGV[2])
for i = 3, last, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
for i = last + 1, #ARGV do redis.call('HDEL', KEYS[2], ARGV[i]) end
return ''
"""

# KEYS epoch   ARGV our epoch, (channel, answer)…
ANSWER = f"""{EPOCH_IN}
local stored = epoch_in(KEYS[1])
if stored > tonumber(ARGV[1]) then return string.format('%d', stored) end
for i = 2, #ARGV, 2 do redis.pcall('PUBLISH', ARGV[i], ARGV[i + 1]) end
return ''
"""

Unknown = Callable[[Iterable[str]], Awaitable[frozenset[str]]]


class Desk:
    """Carries messages in, and answers, wishes and questions out, until cancelled."""

    def __init__(
        self, client: Redis, channels: Channels, registrar: Registrar, fence: Fence
    ) -> None:
        self._client, self._channels, self._registrar = client, channels, registrar
        self._fence = fence
        self._keep_script = client.register_script(KEEP)
        self._answer_script = client.register_script(ANSWER)
        self._work, self._doubts = asyncio.Event(), asyncio.Event()
        self._settles = False  # it is planned
        self._settle_at = 0.0

    def work(self) -> None:
        """There is something to write or to look up."""
        self._work.set()

    async def listen(self) -> None:
        """Hear registrations until cancelled."""
        patience = Patience(random.uniform, first=0.1, ceiling=2.0, settled=5.0)
        while True:
            began = monotonic()
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as pubsub:
                    async with deadline():
                        await pubsub.subscribe(self._channels.registration)
                    await self._hear(pubsub)
            except (RedisError, OSError) as error:
                log.debug("listening for registrations ended: %s", error)
            await asyncio.sleep(patience.after(monotonic() - began))

    async def write(self) -> None:
        """Keep wishes and send answers while we lead; what Redis did not take waits.

        Raises:
            Superseded: another broker leads.
        """
        patience = Patience(random.uniform, first=0.1, ceiling=2.0, settled=5.0)
        while True:
            began = monotonic()
            try:
                while True:
                    self._work.clear()
                    await self._fence.opened()
                    await self._keep()
                    await self._answer()
                    await self._work.wait()
            except (RedisError, OSError) as error:
                log.debug("registrations are not kept: %s", error)
            await asyncio.sleep(patience.after(monotonic() - began))

    async def look(self) -> None:
        """Look who listens, every second, until cancelled: Redis is the truth about that."""
        while True:
            try:
                heard = await self._listened_to()
                self._registrar.listened(heard, monotonic())
                self.work()
            except (RedisError, OSError) as error:
                log.debug("nobody knows who listens: %s", error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def verify(self, unknown: Unknown) -> None:
        """Look symbols up, one question after the other, until cancelled."""
        while True:
            await self._doubts.wait()
            self._doubts.clear()
            while self._registrar.unverified:
                question = self._registrar.unverified.pop(0)
                self._registrar.verified(question, await unknown(question.doubtful))
                self._settle_soon(monotonic())
                self.work()
                await asyncio.sleep(0)  # a list that is there already makes nobody wait

    async def restore(self) -> None:
        """Take up the wishes that were kept, before anything is asked of Alpaca.

        Raises:
            redis.RedisError, OSError: Redis did not answer.
        """
        async with deadline():
            found = await cast(
                Awaitable[dict[bytes, bytes]], self._client.hgetall(self._channels.registry)
            )
        registrar, now = self._registrar, monotonic()
        for name, text in found.items():
            try:
                kept = msgspec.json.decode(text, type=Saved)
                registrar.registry.restore(name.decode(), kept, now, time() - now)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                log.warning("a wish in %s cannot be read: %s", self._channels.registry, error)
        registrar.expire(now)
        registrar.settle(now)
        if found:
            bots = len(registrar.registry)
            whose = "1 bot is" if bots == 1 else f"{bots} bots are"
            log.info("%s registered as before", whose)
        self.work()

    async def _listened_to(self) -> frozenset[Heard]:
        """Every market-data channel that has a subscriber; patterns cannot be told apart."""
        async with deadline(), self._client.pipeline(transaction=False) as commands:
            for kind in MARKET_DATA:
                commands.pubsub_channels(self._channels.market_data(kind, "*"))
            found = cast(list[list[bytes]], await commands.execute())
        heard = []
        for kind, names in zip(MARKET_DATA, found, strict=True):
            skip = len(self._channels.market_data(kind, ""))
            symbols = (name.decode("utf-8", "replace")[skip:] for name in names)
            heard += [
                (kind, symbol)
                for symbol in symbols
                if is_symbol(symbol) or (kind == NEWS and symbol == EVERY)
            ]
        return frozenset(heard)

    async def _hear(self, pubsub: PubSub) -> None:
        """Take messages until the connection shows no life; then returns."""
        pinged_at: float | None = None
        heard_at = monotonic()
        taken, expired_at = 0, heard_at
        while True:
            message = await pubsub.get_message(timeout=EXPIRE_EVERY_S)
            now = monotonic()
            if now - expired_at >= EXPIRE_EVERY_S:
                expired_at = now
                self._registrar.expire(now)
                self._settle_soon(now)
            if message is not None:
                pinged_at, heard_at = None, now
                taken += 1
                if taken % AT_A_TURN == 0:
                    await asyncio.sleep(0)  # redis-py hands out what is buffered without a pause
                if message["type"] == "message":
                    self._registrar.hear(message["data"], now)
                    self._settle_soon(now)
                    self._doubts.set()
                    self.work()
            elif pinged_at is None and now - heard_at >= LISTEN_FOR_S:
                pinged_at = now
                async with deadline():
                    await pubsub.ping()
            elif pinged_at is not None and now - pinged_at >= LISTEN_FOR_S:
                return

    def _settle_soon(self, now: float) -> None:
        """At once where there is time, so that a bot does not wait; else with those that follow."""
        if self._registrar.unsettled and not self._settles:
            self._settles = True
            asyncio.get_running_loop().call_later(max(0.0, self._settle_at - now), self._settle)

    def _settle(self) -> None:
        self._settles, began = False, monotonic()
        try:
            self._registrar.settle(began)
        except Exception:  # nobody else would hear of it; the next look at who listens settles anew
            log.exception("what bots want could not be settled, which is a mistake of ours")
        self.work()
        ended = monotonic()
        self._settle_at = ended + (SETTLING_S - 1) * (ended - began)

    async def _keep(self) -> None:
        """Write the wishes that have changed to `broker:registry`."""
        registrar = self._registrar
        offset = time() - monotonic()
        while registrar.changed:
            batch = list(registrar.changed)[:AT_ONCE]
            saved = {bot: registrar.registry.saved(bot, offset) for bot in batch}
            kept = [(bot, encode(wish)) for bot, wish in saved.items() if wish is not None]
            gone = [bot for bot, wish in saved.items() if wish is None]
            registrar.changed.difference_update(batch)
            try:
                words = [word for pair in kept for word in pair]
                await self._while_we_lead(
                    self._keep_script, [self._channels.registry], [len(kept), *words, *gone]
                )
            except BaseException:
                registrar.changed.update(batch)
                raise

    async def _answer(self) -> None:
        replies = self._registrar.replies
        while replies:
            batch = replies[:AT_ONCE]
            words = [w for reply in batch for w in (reply.channel, encode(reply.answer))]
            await self._while_we_lead(self._answer_script, [], words)
            del replies[: len(batch)]

    async def _while_we_lead(self, script: AsyncScript, keys: list[str], words: list[Any]) -> None:
        epoch = self._registrar.epoch
        async with deadline():
            stored = await script(keys=[self._channels.epoch, *keys], args=[epoch, *words])
        if stored:
            raise Superseded(int(stored))
