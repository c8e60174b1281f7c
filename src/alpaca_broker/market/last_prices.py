"""The last prices of symbols that are new, from REST, before a bot is told that it has them.

Owns the budget of those calls. Where REST does not tell, the first print will.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic, time

from alpaca_broker.alpaca.rest import DataRest
from alpaca_broker.core.budget import PerMinute
from alpaca_broker.core.feeds import Feed
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable
from alpaca_broker.market.price_lanes import PriceLanes

log = logging.getLogger(__name__)

AT_ONCE = 500  # symbols in one REST call
OPTIONS_AT_ONCE = 100  # Alpaca's limit for options; of the others none is documented
WITHIN_S = 2.0
PER_MINUTE = 40  # of the 200 REST calls that an account has


class LastPrices:
    """Looks prices up for one feed; one caller at a time."""

    def __init__(self, feed: Feed) -> None:
        self._path = feed.latest
        self._at_once = OPTIONS_AT_ONCE if feed.family == "options" else AT_ONCE
        self._calls = PerMinute(PER_MINUTE)

    async def look_up(self, rest: DataRest, symbols: list[str], lanes: PriceLanes) -> None:
        """Note the last trade of each of these symbols, as far as it is told in time."""
        for first in range(0, len(symbols), self._at_once):
            if self._path is None or not self._calls.take(monotonic()):
                return
            part = symbols[first : first + self._at_once]
            try:
                async with asyncio.timeout(WITHIN_S):
                    found = await rest.latest_trades(self._path, part)
            except (UpstreamRefused, UpstreamUnavailable, TimeoutError) as error:
                log.info("no last prices from REST: %s", error or "no answer in time")
                if isinstance(error, UpstreamRefused) and not error.too_many_requests:
                    continue  # it does not like something of this part
                return
            received_at = round(time(), 6)
            for symbol in part:
                if symbol in found:
                    lanes.look_up(symbol, found[symbol], received_at)
