"""How many REST calls Alpaca grants a key on one of its hosts, as all who use the key here see it.

Owns the count of the last minute, and what Alpaca's answers say (X-RateLimit-…, 429): what one
caller is told holds for all. Alpaca grants 200 calls a minute, on the trading API by account, on
the market-data API by plan. Each caller leaves some of them to those who come before it, so that
orders are held against REST first, and bots always have a few. Safe for threads. Times are seconds
of one process's monotonic clock, and arguments.
"""

from __future__ import annotations

from collections import deque
from math import inf
from threading import Lock

GRANTED_PER_MINUTE = 200  # until an answer says otherwise
LEFT_FOR_BOTS = 20
LEFT_FOR_ORDERS = 60  # for bots, and for holding orders against REST
WINDOW_S = 60.0
PAUSE_AFTER_429_S = 3.0  # where Alpaca does not say until when; its own SDK waits as long


class Quota:
    """Of one key on one host."""

    def __init__(self, granted: int = GRANTED_PER_MINUTE) -> None:
        self._lock = Lock()
        self._granted = granted
        self._calls: deque[float] = deque()  # ours of the last minute
        self._remaining: int | None = None  # until the reset; all users of the key together
        self._resets_at = -inf
        self._not_before = -inf

    def take(self, now: float, leaving: int) -> float:
        """Count a call that leaves so many to others; seconds to wait where there is none (0: go).

        Never more than a minute. Nothing is counted where there is something to wait for.
        """
        with self._lock:
            while self._calls and now - self._calls[0] >= WINDOW_S:
                self._calls.popleft()
            wait = self._not_before - now
            leaving = min(leaving, self._granted // 2)
            most = max(1, self._granted - leaving)
            if len(self._calls) >= most:
                wait = max(wait, self._calls[-most] + WINDOW_S - now)
            if self._resets_at <= now:
                self._remaining = None
            elif self._remaining is not None and self._remaining <= leaving:
                wait = max(wait, self._resets_at - now)
            if wait > 0:
                return min(wait, WINDOW_S)
            self._calls.append(now)
            if self._remaining is not None:
                self._remaining -= 1
            return 0.0

    def answered(
        self, now: float, *, granted: int | None, remaining: int | None, resets_in: float | None
    ) -> None:
        """Alpaca's answer says how many calls it grants a minute, and how many are left."""
        with self._lock:
            if granted:
                self._granted = granted
            if remaining is None or resets_in is None:
                return
            self._remaining = remaining
            self._resets_at = now + min(max(resets_in, 0.0), WINDOW_S)

    def refused(self, now: float) -> None:
        """Too many calls (429), whoever made them: nobody asks for a while."""
        with self._lock:
            is_spent = self._remaining == 0 and self._resets_at > now
            self._not_before = self._resets_at if is_spent else now + PAUSE_AFTER_429_S


class Quotas:
    """The quotas of all keys, by key and host."""

    def __init__(self, granted: int = GRANTED_PER_MINUTE) -> None:
        self._granted = granted
        self._quotas: dict[tuple[str, str], Quota] = {}

    def of(self, key_id: str, host: str) -> Quota:
        """The one that all who use this key there share. May be called from any thread."""
        return self._quotas.setdefault((key_id, host), Quota(self._granted))
