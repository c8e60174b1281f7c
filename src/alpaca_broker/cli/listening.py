"""One subscription to Redis that survives Redis.

Owns the connection of `watch`: subscribes, registers and renews, notices silence, and begins anew
with growing pauses when the connection ends. It knows nothing of what the messages mean.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from time import monotonic

from redis import Redis
from redis.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from alpaca_broker.bus.redis_client import advice
from alpaca_broker.cli.bot_redis import client
from alpaca_broker.cli.stop_request import StopRequest
from alpaca_broker.core.backoff import Patience
from alpaca_broker.settings import RedisTarget

LOOK_EVERY_S = 0.2
RENEW_EVERY_S = 10.0
RENEW_UNHEARD_EVERY_S = 1.0
SILENT_FOR_S = 5.0  # then a ping, which must be answered in the same time


class Listening:
    """Listens until it is asked to stop, whatever happens to Redis."""

    def __init__(
        self,
        target: RedisTarget,
        *,
        channels: Sequence[str],
        patterns: Sequence[str],
        registration_channel: str,
        registrations: Sequence[bytes],
        farewells: Sequence[bytes],
        hear: Callable[[bytes], None],
        say: Callable[[str], None],
    ) -> None:
        self._target = target
        self._channels, self._patterns = channels, patterns
        self._registration_channel = registration_channel
        self._registrations, self._farewells = registrations, farewells
        self._hear, self._say = hear, say
        self._trouble: str | None = None
        self._unheard = False

    def run(self, stop: StopRequest, tick: Callable[[bool], None]) -> None:
        """Listen until `stop`; `tick(connected)` is called many times a second."""
        patience = Patience(random.uniform, first=0.2, ceiling=3.0, settled=5.0)
        while not stop.requested:
            began = monotonic()
            try:
                with (
                    client(self._target, "alpaca-broker:watch") as redis,
                    redis.pubsub(ignore_subscribe_messages=True) as pubsub,
                ):
                    self._subscribe(redis, pubsub)
                    try:
                        self._listen(redis, pubsub, stop, tick)
                    except BrokenPipeError:
                        self._announce(redis, self._farewells)
                        raise
                    self._announce(redis, self._farewells)
            except BrokenPipeError:
                raise  # our own standard output; redis-py wraps its sockets' errors
            except (RedisError, OSError) as error:
                self._is_down(error)
            if not stop.requested:
                tick(False)
                stop.wait(patience.after(monotonic() - began))

    def _subscribe(self, redis: Redis, pubsub: PubSub) -> None:
        pubsub.subscribe(*self._channels)
        if self._patterns:
            pubsub.psubscribe(*self._patterns)
        redis.ping()  # subscribing alone does not wait for an answer
        if self._trouble is not None:
            self._trouble = None
            self._say(f"Redis at {self._target.where} is back: listening again")

    def _listen(
        self, redis: Redis, pubsub: PubSub, stop: StopRequest, tick: Callable[[bool], None]
    ) -> None:
        heard_at = monotonic()
        renew_at, pinged = heard_at, False
        while not stop.requested:
            message = pubsub.get_message(timeout=LOOK_EVERY_S)
            now = monotonic()
            if message is not None:
                heard_at, pinged = now, False
                if message["type"] in ("message", "pmessage"):
                    self._hear(message["data"])
            elif now - heard_at >= 2 * SILENT_FOR_S:
                raise RedisConnectionError("no answer")
            elif now - heard_at >= SILENT_FOR_S and not pinged:
                pinged = True
                pubsub.ping()
            if now >= renew_at:
                self._register(redis)
                renew_at = now + (RENEW_UNHEARD_EVERY_S if self._unheard else RENEW_EVERY_S)
            tick(True)

    def _register(self, redis: Redis) -> None:
        heard_by = self._announce(redis, self._registrations)
        if self._registrations and not heard_by and not self._unheard:
            self._say("no broker hears the registration; it is repeated until one does")
        self._unheard = bool(self._registrations) and not heard_by

    def _announce(self, redis: Redis, payloads: Sequence[bytes]) -> int:
        return min((int(redis.publish(self._registration_channel, p)) for p in payloads), default=0)

    def _is_down(self, error: Exception) -> None:
        text = advice(error, self._target)
        if text != self._trouble:
            self._trouble = text
            self._say(f"{text}. Trying again until it answers.")
