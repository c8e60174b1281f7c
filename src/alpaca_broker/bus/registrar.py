"""Hears what bots want, on `broker:registration`.

Owns the subscription and the registry. A bad message changes nothing and costs one rate-limited log
line. When Redis goes away it subscribes again, for ever; what was registered stays.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from time import monotonic

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from alpaca_broker.bus.redis_client import RedisError, deadline
from alpaca_broker.core.backoff import Patience
from alpaca_broker.core.registration import SERVED_KINDS, BadRegistration, Registration, parse
from alpaca_broker.core.registry import Registry
from alpaca_broker.telemetry import Seldom, fields

log = logging.getLogger(__name__)

LISTEN_FOR_S = 5.0  # without a message: a ping, which must be answered in the same time
LEASES_EVERY_S = 1.0


# The wanted symbols, whoever came first coming first; the account names that bots gave.
OnChange = Callable[[tuple[str, ...], frozenset[str]], None]


class Registrar:
    """Keeps the registry in step with what bots say."""

    def __init__(self, client: Redis, channel: str, on_change: OnChange) -> None:
        self._client, self._channel = client, channel
        self._on_change = on_change
        self._complaints = Seldom(1.0)
        self._symbols: tuple[str, ...] = ()
        self.registry = Registry()
        self.listening = False

    async def run(self) -> None:
        """Listen until cancelled."""
        patience = Patience(random.uniform, first=0.1, ceiling=2.0, settled=5.0)
        while True:
            began = monotonic()
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as pubsub:
                    async with deadline():
                        await pubsub.subscribe(self._channel)
                    self.listening = True
                    await self._listen(pubsub)
            except (RedisError, OSError) as error:
                log.debug("listening to %s ended: %s", self._channel, error)
            finally:
                self.listening = False
            await asyncio.sleep(patience.after(monotonic() - began))

    async def _listen(self, pubsub: PubSub) -> None:
        """Take messages until the connection shows no life; then returns."""
        pinged_at: float | None = None
        heard_at = monotonic()
        while True:
            message = await pubsub.get_message(timeout=LEASES_EVERY_S)
            now = monotonic()
            self._expire(now)
            if message is not None:
                pinged_at, heard_at = None, now
                if message["type"] == "message":
                    self.hear(message["data"], now)
            elif pinged_at is None and now - heard_at >= LISTEN_FOR_S:
                pinged_at = now
                async with deadline():
                    await pubsub.ping()
            elif pinged_at is not None and now - pinged_at >= LISTEN_FOR_S:
                return

    def hear(self, payload: bytes, now: float) -> None:
        """Take one registration message. Never raises for what a bot sent."""
        try:
            registration = parse(payload)
            self._apply(registration, now)
        except BadRegistration as error:
            self._complain("a registration was not understood: %s", str(error))
            return
        for rejected in registration.rejected[:1]:
            more = len(registration.rejected) - 1
            self._complain(
                "%s: %s is not registered: %s%s",
                registration.bot or "a bot",
                rejected.symbol,
                rejected.reason,
                f" (and {more} more of the same message)" if more else "",
            )
        if unserved := [c for c in registration.channels if c not in SERVED_KINDS]:
            self._complain("%s: not served here: %s", registration.bot or "a bot", unserved)

    def _apply(self, registration: Registration, now: float) -> None:
        if not registration.symbols and registration.rejected:
            return
        self.registry.apply(registration, now)
        if self._hand_on():
            log.info(
                "%s %s %s",
                registration.bot or "a bot",
                "registered" if registration.action == "register" else "unregistered",
                _some(registration.symbols) or "everything",
                extra=fields(bot=registration.bot, symbols=len(registration.symbols)),
            )

    def _expire(self, now: float) -> None:
        if gone := self.registry.expire(now):
            log.info("%s did not renew in time and is forgotten", _some(tuple(gone)))
            self._hand_on()

    def _hand_on(self) -> bool:
        """Tell what is wanted now; whether that is other symbols than before."""
        before, self._symbols = self._symbols, self.registry.symbols()
        self._on_change(self._symbols, self.registry.account_names())
        return self._symbols != before

    def _complain(self, text: str, *args: object) -> None:
        if self._complaints.may_say():
            log.warning(f"{text}%s", *args, self._complaints.more())


def _some(names: tuple[str, ...], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
