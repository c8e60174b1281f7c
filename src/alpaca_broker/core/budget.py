"""How many REST calls may be made, and when the next one may.

Owns one token bucket. Bots share Alpaca's 200 calls a minute with us, so what we do by ourselves
stays under a small part of it. Time is an argument.
"""

from __future__ import annotations


class Budget:
    """`per_minute` calls on average, `burst` of them at once; overdrawn by as many at most, so that
    after a reconnect that needed a hundred nobody is left unchecked for minutes."""

    def __init__(self, per_minute: float, burst: float, now: float) -> None:
        self._per_s, self._burst = per_minute / 60, burst
        self._left, self._at = burst, now

    def spend(self, calls: int, now: float) -> None:
        """These calls were made."""
        self._refill(now)
        self._left = max(-self._burst, self._left - calls)

    def wait(self, calls: int, now: float, *, urgent: bool = False) -> float:
        """Seconds until so many calls may be made at once; what is urgent may overdraw."""
        self._refill(now)
        needed = min(calls, self._burst) - (self._burst if urgent else 0)
        return max(0.0, (needed - self._left) / self._per_s)

    def _refill(self, now: float) -> None:
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
