"""What time the simulator says it is, and whether its stock market is open then.

Owns the distance to the real clock. Invariant: pretended time runs as fast as real time between
two settings, and the clock, the calendar, the orders and the market see the same hours.
"""

import time
from datetime import datetime

from alpaca_broker.simulator.calendar import NEW_YORK, Phase, phase

_THIN = 0.1  # how much less happens before and after the regular session
_BUSY = {Phase.CLOSED: 0.0, Phase.REGULAR: 1.0, Phase.PRE_MARKET: _THIN, Phase.AFTER_HOURS: _THIN}
NOW = "now"


class TradingHours:
    """A clock that can be set.

    Args:
        moment: See `set`.
        market_open: What the clock says while no time was set, whatever the hour.
        quiet: Whether the invented stock market keeps to its hours, too.
    """

    def __init__(self, moment: str | datetime | None, *, market_open: bool, quiet: bool) -> None:
        self.market_open = market_open
        self.quiet = quiet
        self._ahead_ns = 0
        self._by_calendar = False
        self.set(moment)

    def now_ns(self) -> int:
        """Nanoseconds since 1970 UTC."""
        return time.time_ns() + self._ahead_ns

    def set(self, moment: str | datetime | None) -> None:
        """Let it be this moment now, with the hours that the calendar has for it.

        A moment without an offset is New York's. "now" is the real time with its real hours; None
        is the real time, too, and `market_open` alone says whether the market is open. Raises
        `ValueError`.
        """
        ahead_ns = 0
        if moment not in (None, NOW):
            there = moment_of(moment) if isinstance(moment, str) else moment
            assert there is not None
            if there.tzinfo is None:
                there = there.replace(tzinfo=NEW_YORK)
            whole = int(there.replace(microsecond=0).timestamp()) * 10**9
            ahead_ns = whole + there.microsecond * 1000 - time.time_ns()
        self._by_calendar = moment is not None
        self._ahead_ns = ahead_ns

    def phase(self) -> Phase:
        """What the stock market does now."""
        if self._by_calendar:
            return phase(self.now_ns())
        return Phase.REGULAR if self.market_open else Phase.CLOSED

    def is_open(self) -> bool:
        """Whether the regular session is on."""
        return self.phase() is Phase.REGULAR

    def share(self) -> float:
        """How much of its usual business the stock market does now, from 0 to 1."""
        return _BUSY[self.phase()] if self.quiet else 1.0


def moment_of(text: str) -> datetime:
    """A moment such as 2026-11-27T12:59. Raises `ValueError`."""
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f'time must be "now" or like 2026-11-27T12:59, not {text!r}') from error
