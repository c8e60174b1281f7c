"""How many messages a bot may send: a bucket of tokens each, so that a flood is its own trouble.

Owns the buckets; time is an argument. Bounded: the bot that was silent longest is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict

MOST_BUCKETS = 10_000


class Allowance:
    """`per_second` messages, and twice that at once."""

    def __init__(self, per_second: float) -> None:
        self._per_second, self._burst = per_second, per_second * 2
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, bot: str, now: float) -> bool:
        """Whether `bot` may send one more message now."""
        tokens, since = self._buckets.pop(bot, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._per_second)
        allowed = tokens >= 1
        self._buckets[bot] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return allowed
