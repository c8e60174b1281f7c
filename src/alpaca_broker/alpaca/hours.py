"""What time it is at the market, and what may be expected of a feed now.

Owns the copies of Alpaca's clock and calendar, renewed a few times a day. Between the answers
Alpaca's time goes on by a clock that nobody sets, so that a step of this machine's (NTP, or one
that was wrong at the start) changes nothing. What cannot be had leaves the phase unknown, and never
raises.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time as clocks
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic, time

import aiohttp

from alpaca_broker.alpaca.link import http_session
from alpaca_broker.alpaca.rest import TradingRest
from alpaca_broker.core.backoff import Patience
from alpaca_broker.core.market_hours import Calendar, Clock, Phase, phase, read_calendar
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable

log = logging.getLogger(__name__)

RENEW_AFTER_S = 6 * 3600.0  # two calls each time: eight a day
WITHIN_S = 10.0
DAYS_AHEAD = 14
SKEW_WORTH_A_WORD_S = 2.0
BELIEVED = range(2020, 2200)  # in another year nobody's clock is
WRONG_KEYS = (401, 403)

# Linux stops its monotonic clock while it sleeps, and has another one for this; others have not.
_STEADY: int | None = getattr(clocks, "CLOCK_BOOTTIME", getattr(clocks, "CLOCK_MONOTONIC", None))


def steady() -> float:
    """Seconds that go on while the machine sleeps, and that no step of its clock changes."""
    return monotonic() if _STEADY is None else clocks.clock_gettime(_STEADY)


class MarketHours:
    """Alpaca's clock and calendar. Read by the feeds of one loop.

    Args:
        rests: Whom to ask; where the keys of one are refused, the next one is.
        wall: This machine's clock, in epoch seconds.
        steady: One that nobody sets.
    """

    def __init__(
        self,
        rests: Sequence[Callable[[aiohttp.ClientSession], TradingRest]] = (),
        wall: Callable[[], float] = time,
        steady: Callable[[], float] = steady,
    ) -> None:
        self._rests, self._wall, self._steady = rests, wall, steady
        self._clock: Clock | None = None
        self._calendar: Calendar | None = None
        self._anchor: float | None = None  # Alpaca's time where the steady clock shows 0

    def now(self) -> float:
        """Epoch seconds by Alpaca's clock; by ours while that is not known."""
        return self._wall() if self._anchor is None else self._anchor + self._steady()

    def by_alpaca(self, at: float) -> float:
        """A moment of the steady clock, in epoch seconds by Alpaca's clock."""
        return self.now() + (at - self._steady())

    @property
    def ahead_s(self) -> float:
        """What to add to our time for Alpaca's, as our clock is now."""
        return self.now() - self._wall()

    def phase(self, feed: str) -> Phase:
        """What may be expected of this feed now."""
        return phase(feed, self.now(), self._calendar, self._clock)

    async def run(self) -> None:
        """Keep the copies fresh until cancelled."""
        if not self._rests:
            return
        patience = Patience(random.uniform, first=5.0, ceiling=900.0, settled=RENEW_AFTER_S)
        lasted = 0.0
        async with http_session() as http:
            rests = deque(make(http) for make in self._rests)
            while True:
                try:
                    await self._renew_by_any(rests)
                    pause = lasted = RENEW_AFTER_S
                except (UpstreamRefused, UpstreamUnavailable, TimeoutError, ValueError) as error:
                    why = str(error) or "no answer in time"
                    pause, lasted = patience.after(lasted), 0.0
                    log.info("market hours cannot be had, asking again in %.0f s: %s", pause, why)
                except Exception:
                    # Hours are a help: whatever is wrong with them must not end the feeds.
                    pause, lasted = patience.after(lasted), 0.0
                    log.exception("market hours cannot be had, which is a mistake of ours")
                await asyncio.sleep(pause)

    async def _renew_by_any(self, rests: deque[TradingRest]) -> None:
        """Ask with the first keys that are not refused; from then on they are the first."""
        for others in reversed(range(len(rests))):
            try:
                async with asyncio.timeout(WITHIN_S):
                    return await self.renew(rests[0])
            except UpstreamRefused as error:
                if not others or error.code not in WRONG_KEYS:
                    raise
                rests.rotate(-1)

    async def renew(self, rest: TradingRest) -> None:
        """Ask for both once.

        Raises:
            UpstreamRefused, UpstreamUnavailable: what was known before stays.
            ValueError: the clock or the calendar makes no sense.
        """
        asked_at = self._steady()
        clock = await rest.clock()
        if clock.timestamp.year not in BELIEVED:
            raise ValueError(f"a clock that says {clock.timestamp}: not believed")
        # The answer was written about halfway between the question and now.
        self._anchor = clock.timestamp.timestamp() - (asked_at + self._steady()) / 2
        self._clock = clock
        if abs(self.ahead_s) >= SKEW_WORTH_A_WORD_S:
            log.warning("this machine's clock and Alpaca's differ by %.1f s", self.ahead_s)
        today = datetime.fromtimestamp(self.now(), UTC).date()
        first, last = today - timedelta(days=1), today + timedelta(days=DAYS_AHEAD)
        rows = await rest.calendar(first, last)
        if not rows:
            raise ValueError(f"no trading day from {first} to {last}: not believed")
        self._calendar = read_calendar(rows, first, last)
