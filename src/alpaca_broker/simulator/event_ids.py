"""Ids of order events: ULIDs, 26 characters that sort by time.

Owns the last id given. Invariant: every id is greater than the one before, also within one
millisecond, where Alpaca's are random [D ACT]. It reads no clock.
"""

import random

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class EventIds:
    """A source of rising ULIDs."""

    def __init__(self) -> None:
        self._last = 0

    def next(self, now_ns: int) -> str:
        """The id of an event at `now_ns`, nanoseconds since 1970."""
        fresh = (now_ns // 10**6) << 80 | random.getrandbits(79)
        self._last = max(fresh, self._last + 1)
        return "".join(_CROCKFORD[self._last >> shift & 31] for shift in range(125, -1, -5))
