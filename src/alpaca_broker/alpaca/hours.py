"""What time it is at the market, and what may be expected of a feed now.

Owns the copies of Alpaca's clock and calendar, renewed a few times a day, and the difference
between Alpaca's clock and ours. What cannot be had leaves the phase unknown, and never raises.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import time

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
BELIEVED_S = 20 * 365 * 86_400.0  # further away nobody's clock is


class MarketHours:
    """Alpaca's clock and calendar. Read by the feeds of one loop."""

    def __init__(
        self,
        rest: Callable[[aiohttp.ClientSession], TradingRest] | None = None,
        now: Callable[[], float] = time,
    ) -> None:
        self._rest, self._now = rest, now
        self._clock: Clock | None = None
        self._calendar: Calendar | None = None
        self._ahead_s = 0.0

    def now(self) -> float:
        """Epoch seconds by Alpaca's clock, as far as it is known."""
        return self._now() + self._ahead_s

    def by_alpaca(self, at: float) -> float:
        """One of our epoch seconds by Alpaca's clock."""
        return at + self._ahead_s

    def phase(self, feed: str) -> Phase:
        """What may be expected of this feed now."""
        return phase(feed, self.now(), self._calendar, self._clock)

    async def run(self) -> None:
        """Keep the copies fresh until cancelled."""
        if self._rest is None:
            return
        patience = Patience(random.uniform, first=5.0, ceiling=900.0, settled=RENEW_AFTER_S)
        lasted = 0.0
        async with http_session() as http:
            rest = self._rest(http)
            while True:
                try:
                    async with asyncio.timeout(WITHIN_S):
                        await self.renew(rest)
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

    async def renew(self, rest: TradingRest) -> None:
        """Ask for both once.

        Raises:
            UpstreamRefused, UpstreamUnavailable: what was known before stays.
            ValueError: the clock or the calendar makes no sense.
        """
        asked_at = self._now()
        clock = await rest.clock()
        # The answer was written about halfway between the question and now.
        ahead_s = clock.timestamp.timestamp() - (asked_at + self._now()) / 2
        if abs(ahead_s) > BELIEVED_S:
            raise ValueError(f"a clock that says {clock.timestamp}: not believed")
        self._ahead_s, self._clock = ahead_s, clock
        if abs(self._ahead_s) >= SKEW_WORTH_A_WORD_S:
            log.warning("this machine's clock and Alpaca's differ by %.1f s", self._ahead_s)
        today = datetime.fromtimestamp(self.now(), UTC).date()
        first, last = today - timedelta(days=1), today + timedelta(days=DAYS_AHEAD)
        rows = await rest.calendar(first, last)
        if not rows:
            raise ValueError(f"no trading day from {first} to {last}: not believed")
        self._calendar = read_calendar(rows, first, last)
