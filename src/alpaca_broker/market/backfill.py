"""Recovery of what a gap took, from Alpaca's REST, beside the live data and never before it.

Owns the recoveries of one feed: they wait their turn, each within a deadline and a budget of calls.
What is found goes to `backfill:SYMBOL`, bars to `bar:SYMBOL`; a second gap message says what became
of it. Runs in the price producer's loop; the live path only tells it what was published.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from time import monotonic, time
from typing import Any

import msgspec
from msgspec import Struct, field

from alpaca_broker.alpaca.hours import MarketHours
from alpaca_broker.alpaca.rest import DataRest, PastBar, PastPage, PastTrade
from alpaca_broker.bus.publisher import Publisher
from alpaca_broker.core.backfill import (
    EDGE,
    Edges,
    Key,
    Seam,
    bar_key,
    history,
    key_of,
    still_valid,
)
from alpaca_broker.core.budget import Budget
from alpaca_broker.core.messages import Gap
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable

log = logging.getLogger(__name__)

ROUNDED_S = 0.001  # REST's times are finer than ours
SETTLES_WITHIN_S = 3.0  # after that nothing of before the reconnect is still on its way
WITHIN_S = 180.0  # one recovery
CALLS_PER_MINUTE, CALLS_AT_ONCE = 30, 10  # of the 200 that all of an account's users share
MOST_WAITING = 20
MOST_FOLLOWED = 1_000  # symbols; further ones are not recovered, and the gap says so
MOST_ROWS = 10_000  # in one answer
SYMBOLS_AT_ONCE = 100
ROWS_AT_ONCE = 200  # published without a look at what else has to be
MOST_AHEAD = 50  # so few messages may wait for Redis when recovered ones are added
LOOK_EVERY_S = 0.02
ATTEMPTS = 3
AGAIN_AFTER_S = 5.0

NOT_REACHED = "not within the time for it"
ONLY_NAMED = "only symbols that are registered by name are recovered"
LATE = "it is not known yet how late this feed is"
NO_HISTORY = "Alpaca's REST has no history of this feed"


class Kind:
    """Trades, or bars: whose are wished, what was published, and the ways in and out."""

    def __init__(
        self,
        name: str,
        key: Callable[[Any], Key | None],
        ask: Callable[[DataRest], Callable[..., Awaitable[PastPage]]],
        publish: Callable[[str, Any], None],
    ) -> None:
        self.name, self.key, self.ask, self.publish = name, key, ask, publish
        self._followed: frozenset[str] = frozenset()
        self.wanted: frozenset[str] = frozenset()
        self.edges = Edges()

    def follow(self, symbols: Collection[str]) -> None:
        """Recover these from now on."""
        if symbols == self._followed:
            return
        self._followed = frozenset(symbols)
        self.wanted = self._followed - {"*"}
        self.edges.follow(sorted(self.wanted)[:MOST_FOLLOWED], time())

    @property
    def wants_all(self) -> bool:
        """Whether somebody wishes those of every symbol."""
        return "*" in self._followed

    def hit_by(self, gap: Gap) -> list[str]:
        """The wished symbols that the gap has hit."""
        return sorted(self.wanted if "*" in gap.symbols else self.wanted.intersection(gap.symbols))


class Recovery(Struct, frozen=True):
    """One gap, and the edges that were seen of it."""

    gap: Gap
    seams: tuple[tuple[Kind, Seam], ...]


class Outcome(Struct):
    """What became of one recovery."""

    found: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # symbol -> why

    def fails(self, symbols: Collection[str], why: str) -> None:
        """These are not recovered, or not wholly."""
        for symbol in symbols:
            self.failed.setdefault(symbol, why)


class Backfill:
    """Recovers one feed's gaps, one after the other."""

    def __init__(
        self,
        feed: str,
        hours: MarketHours,
        *,
        most: int,
        publisher: Publisher,
        publish_trade: Callable[[str, PastTrade], None],
        publish_bar: Callable[[str, PastBar], None] = lambda symbol, bar: None,
        on_gap: Callable[[Gap], None],
        delay_s: Callable[[], float | None] = lambda: 0.0,
    ) -> None:
        self._feed, self._hours, self._most = feed, hours, most
        self._delay_s = delay_s
        self._publisher, self._on_gap = publisher, on_gap
        self.trades = Kind("trades", _trade_key, lambda rest: rest.past_trades, publish_trade)
        self.bars = Kind("bars", bar_key, lambda rest: rest.past_bars, publish_bar)
        self._begun: tuple[tuple[Kind, Seam], ...] | None = None
        self._waiting: deque[Recovery] = deque()
        self._work = asyncio.Event()
        self._budget = Budget(CALLS_PER_MINUTE, CALLS_AT_ONCE, monotonic())

    def follow(self, trades: Collection[str], bars: Collection[str]) -> None:
        """Recover trades of these symbols, and minute bars of those, from now on."""
        self.trades.follow(trades)
        self.bars.follow(bars)

    def begins(self, *, ours: bool = True) -> None:
        """What was subscribed no longer comes; several failed links make one gap.

        Not `ours` is one that a broker before us left.
        """
        if self._begun is None:
            kinds = (self.trades, self.bars)
            self._begun = tuple((kind, kind.edges.cut(ours=ours)) for kind in kinds)

    def ends(self, gap: Gap) -> None:
        """The gap is over, and was announced: recover it when its turn comes."""
        seams, self._begun = self._begun, None
        if seams is None:
            return
        self._waiting.append(Recovery(gap, seams))
        self._work.set()
        if len(self._waiting) > MOST_WAITING:
            dropped = self._waiting.popleft()
            self._close(dropped)
            log.warning("a gap of the %s feed is not recovered: too many wait", self._feed)

    def forget(self) -> None:
        """What began was nobody's loss: nothing is to be recovered of it."""
        seams, self._begun = self._begun or (), None
        for kind, seam in seams:
            kind.edges.close(seam)

    async def run(self, rest: DataRest) -> None:
        """Recover what waits, until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                job = self._waiting.popleft()
                try:
                    await self._recover(job, rest)
                except Exception:
                    log.exception("a gap is not recovered, which is a mistake of ours")
                finally:
                    self._close(job)

    def _close(self, job: Recovery) -> None:
        for kind, seam in job.seams:
            kind.edges.close(seam)

    async def _recover(self, job: Recovery, rest: DataRest) -> None:
        gap, outcome = job.gap, Outcome()
        wished = {symbol for kind, _ in job.seams for symbol in kind.hit_by(gap)}
        if "*" in gap.symbols and any(kind.wants_all for kind, _ in job.seams):
            outcome.fails(["*"], ONLY_NAMED)
        if not wished:
            self._tell(gap, [], outcome)
            return
        reached: set[tuple[str, str]] = set()
        try:
            async with asyncio.timeout(WITHIN_S):
                await asyncio.sleep(max(0.0, gap.ended + SETTLES_WITHIN_S - time()))
                for kind, seam in job.seams:
                    await self._recover_kind(kind, seam, gap, rest, outcome, reached)
                await self._all_published()
        except TimeoutError:
            for kind, _ in job.seams:
                left = [s for s in kind.hit_by(gap) if (kind.name, s) not in reached]
                outcome.fails(left, NOT_REACHED)
        self._tell(gap, sorted(wished), outcome)

    async def _recover_kind(
        self,
        kind: Kind,
        seam: Seam,
        gap: Gap,
        rest: DataRest,
        outcome: Outcome,
        reached: set[tuple[str, str]],
    ) -> None:
        """Many symbols in one call; where that does not hold all, each by itself."""
        symbols = kind.hit_by(gap)
        outcome.fails(symbols[MOST_FOLLOWED:], f"of {MOST_FOLLOWED:,} symbols at most")
        todo = symbols[:MOST_FOLLOWED]
        delay_s = self._delay_s()
        if delay_s is None and history(self._feed, kind.name) is not None:
            outcome.fails(todo, LATE)
            return
        # What to add to our time for that of what the feed brings.
        ahead = self._hours.ahead_s - (delay_s or 0.0)
        alone = False
        while todo:
            group = todo[: 1 if alone else SYMBOLS_AT_ONCE]
            try:
                page = await self._page(kind, seam, gap, rest, group, ahead)
            except (UpstreamRefused, UpstreamUnavailable) as error:
                outcome.fails(todo, str(error))
                return
            if page.more and not alone:
                alone = True
                continue
            for symbol in group:
                rows = (page.found or {}).get(symbol, [])
                # The newest came first: what happened at the same time keeps its order.
                keyed = [(key, row) for row in reversed(rows) if (key := kind.key(row)) is not None]
                span = (gap.began, gap.ended)
                missed, cut = seam.missed(symbol, keyed, span, self._most, ahead_s=ahead)
                if cut or page.more:
                    outcome.fails([symbol], f"the newest {self._most:,} only")
                await self._publish(kind, symbol, missed)
                outcome.found += len(missed)
                reached.add((kind.name, symbol))
            todo = todo[len(group) :]

    async def _page(
        self, kind: Kind, seam: Seam, gap: Gap, rest: DataRest, symbols: list[str], ahead: float
    ) -> PastPage:
        """Ask REST, a few times where it is away.

        Raises:
            UpstreamRefused, UpstreamUnavailable: it does not answer, or will not.
        """
        path = history(self._feed, kind.name)
        if path is None:
            raise UpstreamUnavailable(f"{self._feed} feed", NO_HISTORY)
        starts = min(seam.starts_at(s, gap.began, ahead) for s in symbols)
        # A bar is known by its beginning, and told at its end.
        earlier = 60.0 if kind is self.bars else 0.0
        span = {
            "start": _rfc3339(starts - earlier),
            "end": _rfc3339(max(seam.ends_at(s, gap.ended, ahead) for s in symbols) + ROUNDED_S),
            "limit": str(min(MOST_ROWS, self._most + 2 * EDGE) if len(symbols) == 1 else MOST_ROWS),
        }
        for attempt in range(1, ATTEMPTS + 1):
            await asyncio.sleep(self._budget.wait(1, monotonic()))
            self._budget.spend(1, monotonic())
            try:
                return await kind.ask(rest)(path, symbols, **span)
            except (UpstreamRefused, UpstreamUnavailable) as error:
                if attempt == ATTEMPTS or _is_final(error):
                    raise
            await asyncio.sleep(AGAIN_AFTER_S)
        raise AssertionError("the last attempt returns or raises")

    async def _publish(self, kind: Kind, symbol: str, rows: list[Any]) -> None:
        for first in range(0, len(rows), ROWS_AT_ONCE):
            await self._after_what_is_live()
            some = rows[first : first + ROWS_AT_ONCE]
            for row in some:
                kind.publish(symbol, row)
            kind.edges.recovered(symbol, (key for row in some if (key := kind.key(row))))

    async def _after_what_is_live(self) -> None:
        while True:
            await asyncio.sleep(0)  # others have their turn
            if self._publisher.waiting <= MOST_AHEAD:
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def _all_published(self) -> None:
        """Gaps go over another connection: none may overtake what it speaks of."""
        mark = self._publisher.taken
        while True:
            if self._publisher.settled >= mark:
                return
            await asyncio.sleep(LOOK_EVERY_S)

    def _tell(self, gap: Gap, symbols: list[str], outcome: Outcome) -> None:
        """What became of it: the same gap again, once for each answer to `recovered`."""
        for symbol in symbols:
            if symbol not in self.trades.wanted:
                outcome.failed.setdefault(symbol, "only its minute bars are")
        whole = [s for s in symbols if s not in outcome.failed]
        told = msgspec.structs.replace(gap, again=True)
        if whole:
            reason = f"{gap.reason}; recovered from Alpaca's REST"
            self._on_gap(_replaced(told, whole, reason, recovered=True))
        by_reason: dict[str, list[str]] = {}
        for symbol, why in outcome.failed.items():
            by_reason.setdefault(why, []).append(symbol)
        for why, failed in by_reason.items():
            reason = f"{gap.reason}; not recovered: {why}"
            self._on_gap(_replaced(told, sorted(failed), reason, recovered=False))
        if symbols:
            log.info("%s feed: %s", self._feed, _in_words(outcome))


def _in_words(outcome: Outcome) -> str:
    if not outcome.found:
        return "nothing could be recovered" if outcome.failed else "nothing was missed"
    if outcome.found == 1:
        return "1 missed message was recovered"
    return f"{outcome.found:,} missed messages were recovered"


def _is_final(error: UpstreamRefused | UpstreamUnavailable) -> bool:
    """Whether asking again would not help: the plan does not show it, the keys are wrong, …"""
    if not isinstance(error, UpstreamRefused):
        return False
    return error.code < 500 and not error.too_many_requests


def _trade_key(trade: PastTrade) -> Key | None:
    return key_of(trade) if still_valid(trade.u) else None


def _replaced(gap: Gap, symbols: list[str], reason: str, *, recovered: bool) -> Gap:
    return msgspec.structs.replace(gap, symbols=symbols, reason=reason, recovered=recovered)


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
