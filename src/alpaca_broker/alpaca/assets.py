"""Which symbols exist, as far as Alpaca can be asked.

Owns a list of assets that is a day old at most. What is not on it is asked for one by one, within a
small budget; where nothing can be learned nothing is refused, for the stream takes any symbol.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from time import monotonic

from alpaca_broker.alpaca.rest import TradingRest
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable

log = logging.getLogger(__name__)

FRESH_FOR_S = 86_400.0
AGAIN_AFTER_S = 60.0
WITHIN_S = 3.0
ASKED_PER_MINUTE = 20
MOST_REMEMBERED = 50_000


class Assets:
    """Knows symbols; one caller at a time."""

    def __init__(self, rest: TradingRest) -> None:
        self._rest = rest
        self._known: set[str] = set()
        self._fresh_until = self._not_before = float("-inf")
        self._asked: list[float] = []

    async def unknown(self, symbols: Iterable[str]) -> frozenset[str]:
        """Those that Alpaca says do not exist; takes three seconds at most, and never raises."""
        doubtful = [s for s in symbols if s not in self._known]
        unknown: set[str] = set()
        if not doubtful:
            return frozenset()
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._refresh()
                for symbol in doubtful:
                    if symbol in self._known or not self._may_ask():
                        continue
                    if await self._rest.knows(symbol):
                        self._known.add(symbol)
                    else:
                        unknown.add(symbol)
        except (UpstreamRefused, UpstreamUnavailable, TimeoutError) as error:
            log.info("symbols are taken unchecked: %s", error or "no answer in time")
        return frozenset(unknown)

    async def _refresh(self) -> None:
        now = monotonic()
        if now < self._fresh_until or now < self._not_before:
            return
        self._not_before = now + AGAIN_AFTER_S
        self._known = set(await self._rest.symbols())
        self._fresh_until = now + FRESH_FOR_S

    def _may_ask(self) -> bool:
        now = monotonic()
        self._asked = [at for at in self._asked if now - at < 60]
        if len(self._asked) >= ASKED_PER_MINUTE or len(self._known) >= MOST_REMEMBERED:
            return False
        self._asked.append(now)
        return True
