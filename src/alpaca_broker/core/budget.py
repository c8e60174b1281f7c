"""How many REST calls may be made, and when the next one may.

Owns a token bucket, for calls that can wait, and a minute's count, for those that are left out
where there were too many. Bots share Alpaca's 200 calls a minute with us, so what we do by
ourselves stays under a small part of it. Time is an argument.
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


class PerMinute:
    """At most so many calls within any one minute."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._spent: list[float] = []

    def spend(self, now: float) -> None:
        """One call is made."""
        self._spent.append(now)

    def has_room(self, now: float) -> bool:
        """Whether one more call may be made."""
        self._spent = [at for at in self._spent if now - at < 60.0]
        return len(self._spent) < self._most

    def take(self, now: float) -> bool:
        """Make one more call, if it may be made; whether it may."""
        has_room = self.has_room(now)
        if has_room:
            self.spend(now)
        return has_room
