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
from alpaca_broker.core.budget import PerMinute
from alpaca_broker.core.feeds import family
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
        self._fresh_until: dict[str, float] = {}  # of each class of assets
        self._not_before: dict[str, float] = {}
        self._doubts = PerMinute(ASKED_PER_MINUTE)

    async def unknown(self, symbols: Iterable[str]) -> frozenset[str]:
        """Those that Alpaca says do not exist; takes three seconds at most, and never raises."""
        doubtful = [s for s in symbols if s not in self._known]
        unknown: set[str] = set()
        if not doubtful:
            return frozenset()
        try:
            async with asyncio.timeout(WITHIN_S):
                for asset_class in sorted({_class(symbol) for symbol in doubtful}):
                    await self._refresh(asset_class)
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

    async def _refresh(self, asset_class: str) -> None:
        now = monotonic()
        if now < max(self._fresh_until.get(asset_class, 0), self._not_before.get(asset_class, 0)):
            return
        self._not_before[asset_class] = now + AGAIN_AFTER_S
        known = {s for s in self._known if _class(s) != asset_class}
        self._known = known | await self._rest.symbols(asset_class)
        self._fresh_until[asset_class] = now + FRESH_FOR_S

    def _may_ask(self) -> bool:
        return len(self._known) < MOST_REMEMBERED and self._doubts.take(monotonic())


def _class(symbol: str) -> str:
    """Alpaca's name of the class of assets that a symbol is of, by its shape."""
    return "crypto" if family("trades", symbol) == "crypto" else "us_equity"
