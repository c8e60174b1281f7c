"""What time the simulator says it is.

Owns the distance to the real clock. Invariant: pretended time runs as fast as real time between
two settings.
"""

import time
from datetime import datetime
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")


class PretendTime:
    """A clock that can be set."""

    def __init__(self, moment: datetime | None = None) -> None:
        self._ahead_ns = 0
        if moment is not None:
            self.set(moment)

    def now_ns(self) -> int:
        """Nanoseconds since 1970 UTC."""
        return time.time_ns() + self._ahead_ns

    def set(self, moment: datetime | None) -> None:
        """Let it be this moment now, in New York unless it says where; None is the real time."""
        if moment is None:
            self._ahead_ns = 0
            return
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=NEW_YORK)
        self._ahead_ns = round(moment.timestamp()) * 10**9 - time.time_ns()
