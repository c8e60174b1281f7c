"""Order books of which a change was not understood: each is asked for anew.

Owns which ones, and how often Alpaca is asked. From the lost change on such a book is wrong for
everybody, and Alpaca sends it whole only on a subscription. Runs in the feed's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable

from alpaca_broker.core.feeds import EVERY
from alpaca_broker.core.session import Session
from alpaca_broker.market.questions import Questions

AGAIN_AFTER_S = 5.0


class BookRepair:
    """One feed's."""

    def __init__(self) -> None:
        self._spoiled: set[str] = set()
        self._work = asyncio.Event()

    def spoil(self, symbols: Iterable[str]) -> None:
        """Changes of these books were not understood; `*`: of nobody knows which."""
        self._spoiled.update(symbols)
        self._work.set()

    async def run(
        self, session: Session, talk: Questions, lost: Callable[[Collection[str]], None]
    ) -> None:
        """Ask anew on this link, until cancelled; `lost` hears of each book."""
        self._spoiled.clear()  # a new link brings whole books
        while True:
            await self._work.wait()
            self._work.clear()
            spoiled, self._spoiled = self._spoiled, set()
            books = session.acked["orderbooks"]
            hit = books if EVERY in spoiled or EVERY in books else books & spoiled
            if hit:
                lost(spoiled - {EVERY} or hit)
                await talk.say(session.renew(("orderbooks", symbol) for symbol in hit))
                await asyncio.sleep(AGAIN_AFTER_S)
