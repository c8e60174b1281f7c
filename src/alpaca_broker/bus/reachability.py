"""Tells people when Redis goes away, each reason once; when it is back; and now and then between.

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
MOST_REASONS = 5  # of one outage; what is told after them is that it lasts


class Reachability:
    """Whether Redis answers, as last heard."""

    def __init__(self, target: RedisTarget) -> None:
        self._target = target
        self._down_since: float | None = None
        self._told: set[str] = set()
        self._still_down = Seldom(STILL_DOWN_EVERY_S)

    @property
    def is_up(self) -> bool:
        """Whether the last question was answered."""
        return self._down_since is None

    def failed(self, error: Exception) -> None:
        """Redis did not answer, or refused."""
        reason = advice(error, self._target)
        if self._down_since is None:
            self._down_since = monotonic()
        if reason not in self._told and len(self._told) < MOST_REASONS:
            self._told.add(reason)  # the first one may be a machine that was only busy
            self._still_down.may_say()
            log.error("%s. Trying again until it answers.", reason)
        elif self._still_down.may_say():
            log.error("still: %s (for %.0f s)", reason, monotonic() - self._down_since)

    def answered(self) -> None:
        """Redis answered."""
        if self._down_since is not None:
            lasted = monotonic() - self._down_since
            self._down_since = None
            self._told.clear()
            log.info("Redis at %s is back after %.1f s", self._target.where, lasted)
