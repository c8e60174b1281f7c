"""The watch over one market-data link that is connected: is it quiet, or mute?

Owns the looks, the question to REST and the hanging up; the judgement is `core/health.py`'s. At
most four questions a minute, one call each. Runs beside the reader of the link, in its loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from time import monotonic

from alpaca_broker.alpaca.hours import MarketHours, steady
from alpaca_broker.core.health import (
    LIMITS,
    LIVELY_SYMBOLS,
    Health,
    Limits,
    Watch,
    are_due,
    witness,
)
from alpaca_broker.core.market_hours import DELAYS_S, NO_DELAY, Phase
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
ANSWER_WITHIN_S = 3.0
MOST_WITNESSES = 100
EVERY = "*"

# Asks REST for the last trades of these symbols: when each has traded, in epoch seconds.
Ask = Callable[[list[str]], Awaitable[Mapping[str, float]]]


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A live link, as the watch sees it; everything is asked anew at each look.

    Args:
        last_data: When it last brought data; pings and answers do not count. By whatever clock: it
            only matters whether it is another one than at the last look.
        listens: Whether we read what it brings.
        is_subscribed: Whether Alpaca has confirmed to send anything.
        traded: The symbols whose trades Alpaca has confirmed to send.
        known: When each symbol last traded, as far as it was brought: the exchange's epoch seconds.
        ask: Asks REST, where the feed is there at all.
    """

    last_data: Callable[[], float | None]
    listens: Callable[[], bool]
    is_subscribed: Callable[[], bool]
    traded: Callable[[], frozenset[str]]
    known: Callable[[], Mapping[str, float]]
    ask: Ask | None


class LinkWatch:
    """Watches the links of one feed, one after the other."""

    def __init__(
        self,
        feed: str,
        url: str,
        hours: MarketHours,
        *,
        canary: str | None = None,
        limits: Mapping[Phase, Limits | None] = LIMITS,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._feed, self._url, self._hours, self._canary = feed, url, hours, canary
        self._limits, self._changed = limits, changed
        self._since: dict[str, float] = {}  # when each symbol was confirmed; steady
        # Steady, too: when data was last seen, and when its absence was no fault of the link's.
        self._mark: float | None = None
        self._heard_at = self._excused_at = 0.0
        self.trouble: str | None = None  # why the link counts as stale
        self.questions = 0

    async def run(self, link: Watched) -> None:
        """Look at a live link until cancelled.

        Raises:
            UpstreamUnavailable: it is mute, and was called stale before.
        """
        watch = Watch(monotonic(), self._limits)
        self._since = {}
        traded = frozenset[str]()
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                now = monotonic()
                if traded is not (confirmed := link.traded()):
                    traded = self._follow(confirmed)
                if not link.listens() or not link.is_subscribed():
                    self._excused_at = steady()
                    watch.excuse(now)
                if (mark := link.last_data()) != self._mark:
                    self._mark, self._heard_at = mark, steady()
                phase = self._hours.phase(self._feed)
                lively = self._is_lively(traded)
                finding = watch.look(now, mark, phase, lively=lively)
                self._tell(finding.reason)
                if finding.health is Health.MUTE:
                    raise UpstreamUnavailable(self._url, finding.reason or "mute")
                if finding.ask:
                    await self._question(watch, link, traded)
        finally:
            self._tell(None)

    def _follow(self, confirmed: frozenset[str]) -> frozenset[str]:
        """A symbol can bear witness to what happened after it was confirmed, only."""
        now = steady()
        self._since = {s: self._since.get(s, now) for s in confirmed}
        return confirmed

    def _is_lively(self, traded: frozenset[str]) -> bool:
        return len(traded) >= LIVELY_SYMBOLS or EVERY in traded or self._canary in traded

    def _tell(self, trouble: str | None) -> None:
        news = (trouble is None) != (self.trouble is None)
        self.trouble = trouble
        if news:
            if trouble is not None:
                log.warning("%s feed: %s", self._feed, trouble)
            self._changed()

    async def _question(self, watch: Watch, link: Watched, traded: frozenset[str]) -> None:
        watch.asked(monotonic())
        known = link.known()  # before REST is asked: what comes meanwhile clears it anyway
        symbols = self._witnesses(traded, known)
        if link.ask is None or not symbols:
            watch.unanswered()
            return
        self.questions += 1
        since = self._silent_since(symbols)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                found = await link.ask(symbols)
        except (UpstreamRefused, UpstreamUnavailable, TimeoutError) as error:
            why = str(error) or "no answer in time"
            log.info("REST cannot say whether the %s feed is mute: %s", self._feed, why)
            watch.unanswered()
            return
        delay = DELAYS_S.get(self._feed, NO_DELAY)
        due = are_due(found, self._hours.now(), delay)
        if found and not due:
            watch.unanswered()  # all of it is still to come
            return
        watch.answered(monotonic(), witness(due, known, since, delay))

    def _silent_since(self, symbols: list[str]) -> dict[str, float]:
        """Since when each symbol has not come, by Alpaca's clock."""
        silent_since = max(self._excused_at, self._heard_at)
        confirmed_with_all = self._since.get(EVERY, 0.0)
        return {
            s: self._hours.by_alpaca(max(silent_since, self._since.get(s, confirmed_with_all)))
            for s in symbols
        }

    def _witnesses(self, traded: frozenset[str], known: Mapping[str, float]) -> list[str]:
        """The canary first, then those that traded last."""
        candidates = known.keys() if EVERY in traded else traded
        latest = nlargest(MOST_WITNESSES, candidates, key=lambda s: known.get(s, 0.0))
        if self._canary in traded or (self._canary and EVERY in traded):
            latest.insert(0, self._canary)
        return list(dict.fromkeys(latest))[:MOST_WITNESSES]
