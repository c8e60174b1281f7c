"""Tells people when Redis goes away and when it is back: once each, and now and then in between.

Owns nothing but that; whoever talks to Redis all the time reports here.
"""

from __future__ import annotations

import logging
from time import monotonic

from alpaca_broker.bus.redis_client import advice
from alpaca_broker.settings import RedisTarget
from alpaca_broker.telemetry import Seldom

log = logging.getLogger(__name__)

STILL_DOWN_EVERY_S = 60.0


class Reachability:
    """Whether Redis answers, as last heard."""

    def __init__(self, target: RedisTarget) -> None:
        self._target = target
        self._down_since: float | None = None
        self._still_down = Seldom(STILL_DOWN_EVERY_S)

    @property
    def is_up(self) -> bool:
        """Whether the last question was answered."""
        return self._down_since is None

    def failed(self, error: Exception) -> None:
        """Redis did not answer, or refused."""
        if self._down_since is None:
            self._down_since = monotonic()
            self._still_down.may_say()
            log.error("%s. Trying again until it answers.", advice(error, self._target))
        elif self._still_down.may_say():
            lasted = monotonic() - self._down_since
            log.error("still: %s (for %.0f s)", advice(error, self._target), lasted)

    def answered(self) -> None:
        """Redis answered."""
        if self._down_since is not None:
            lasted = monotonic() - self._down_since
            self._down_since = None
            log.info("Redis at %s is back after %.1f s", self._target.where, lasted)
