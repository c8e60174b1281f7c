"""Whether the flow of one feed is whole: until when, what was missed, and its recovery.

Owns the outage, the watch over the live link and the recoveries after it, and says every gap. The
feed tells it what it hears; nothing here stands in the way of a trade. Runs in the feed's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from time import time
from typing import Any

import aiohttp

from alpaca_broker.bus.publisher import Publisher
from alpaca_broker.core.backfill import Edges, Lateness, bar_key, key_of
from alpaca_broker.core.market_data import Bar, OptionTrade, Trade
from alpaca_broker.core.messages import Gap
from alpaca_broker.core.outage import RESTARTED, Outage
from alpaca_broker.core.topics import Topics
from alpaca_broker.core.wire import CONTROL
from alpaca_broker.market.backfill import Backfill
from alpaca_broker.market.link_watch import LinkWatch, Watched
from alpaca_broker.market.market_lanes import MarketLanes
from alpaca_broker.market.price_lanes import PriceLanes
from alpaca_broker.market.upstream import Upstream
from alpaca_broker.supervision import why_ended

PRINTS = frozenset({Trade, OptionTrade})


class Continuity:
    """One feed's."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        changed: Callable[[], None],
        on_gap: Callable[[Gap], None],
    ) -> None:
        self._upstream, self._feed = upstream, upstream.feed.name
        self._hours, self._on_gap = upstream.hours, on_gap
        self._outage = Outage()
        self._watch = LinkWatch(
            *(self._feed, upstream.url, upstream.hours),
            canary=upstream.canary and upstream.canary[1],
            changed=changed,
        )
        self._backfill: Backfill | None = None
        self._edges, self._bar_edges = Edges(), Edges()
        # Until when nothing is missing, as far as is known: the last data, or the moment when what
        # was wanted was confirmed. Answers and pings prove nothing. Epoch seconds, ours.
        self.whole_at: float | None = None
        self._is_confirmed = False
        self._last_data: float | None = None
        self._lateness = Lateness(self._feed)

    @property
    def trouble(self) -> str | None:
        """Why the live link counts as stale."""
        return self._watch.trouble

    @property
    def backfill(self) -> Backfill:
        """The recoveries."""
        assert self._backfill is not None, "`use` comes first"
        return self._backfill

    def use(self, publisher: Publisher, lanes: PriceLanes, others: MarketLanes) -> None:
        """Publish this way; called before each epoch."""
        self._backfill = Backfill(
            self._feed,
            self._hours,
            most=self._upstream.backfill_trades,
            publisher=publisher,
            publish_trade=lanes.backfill,
            publish_bar=others.backfill_bar,
            delay_s=lambda: self._lateness.delay_s,
            on_gap=self._on_gap,
        )
        self._edges, self._bar_edges = self._backfill.trades.edges, self._backfill.bars.edges
        if self._outage.lasts:
            self._backfill.begins(ours=False)

    @property
    def reads_trades(self) -> bool:
        """Whether it has to see each trade: of symbols whose gaps are recovered."""
        return bool(self._edges.recent)

    def heard_trades(self, now: float) -> None:
        """A frame of nothing but trades came, which it has not to see."""
        self._last_data = now
        if not self._outage.lasts:
            self.whole_at = now

    def heard(self, messages: Sequence[Any], now: float) -> None:
        """A frame came, and what it held was published."""
        if not messages or type(messages[-1]) in CONTROL:
            return
        self.heard_trades(now)
        trades, bars = self._edges, self._bar_edges
        if trades.recent:
            for message in messages:
                if type(message) in PRINTS and message.S in trades.recent:
                    trades.note(message.S, key := key_of(message))
                    if self._lateness.is_to_be_seen:
                        self._lateness.seen(self._hours.now() - key[0])
        if bars.recent:
            for message in messages:
                if type(message) is Bar:
                    bars.note(message.S, bar_key(message))

    def missed_since(self, at: float | None) -> None:
        """A broker before us received until `at` (epoch seconds): what follows is a gap."""
        self._outage = Outage()  # ours, of an epoch that was lost, was told by whoever led since
        self.whole_at, self._is_confirmed = None, False
        if at is None:
            return
        self._outage.begins(at, None, RESTARTED)
        if self._backfill is not None:
            self._backfill.begins(ours=False)

    def follow(self, trades: Collection[str], bars: Collection[str]) -> None:
        """Recover trades of these symbols, and minute bars of those, from now on."""
        if self._backfill is not None:
            self._backfill.follow(trades, bars)

    def begin_anew(self) -> None:
        """Nobody wanted anything: what did not come was not missed."""
        self._outage = Outage()
        self.whole_at, self._is_confirmed = None, False
        self.backfill.forget()

    def breaks(self, symbols: Collection[str], error: BaseException | None) -> None:
        """A link ended that had brought these symbols."""
        why = "" if error is None else why_ended(error)
        self._outage.begins(self.whole_at or time(), symbols, f"the market-data link ended{why}")
        self._is_confirmed = False
        self.backfill.begins()

    def mends(self, topics: Topics, epoch: int) -> None:
        """These come now: what was missed meanwhile is told, and recovered."""
        now = round(time(), 6)
        if topics and not self._is_confirmed:
            self.whole_at, self._is_confirmed = now, True
        if not self._outage.lasts:
            return
        if gap := self._outage.ends(now, topics.symbols, epoch):
            gap.feed = self._feed
            self._on_gap(gap)
            self.backfill.ends(gap)

    def lost(self, reason: str, symbols: Collection[str], epoch: int) -> None:
        """What was read did not reach Redis: it is not sent again, and a gap says so."""
        now = round(time(), 6)
        gap = Gap(
            feed=self._feed,
            began=now,
            ended=now,
            symbols=sorted(symbols),
            reason=reason,
            recovered=False,
            epoch=epoch,
        )
        self._on_gap(gap)

    async def watch(
        self,
        http: aiohttp.ClientSession,
        lanes: PriceLanes,
        listens: Callable[[], bool],
        *,
        traded: Callable[[], frozenset[str]],
        is_subscribed: Callable[[], bool],
    ) -> None:
        """Look after a live link until cancelled.

        Raises:
            UpstreamUnavailable: it is mute.
        """
        rest, latest = self._upstream.rest(http), self._upstream.feed.latest

        async def ask(symbols: list[str]) -> dict[str, float]:
            found = await rest.latest_trades(latest or "", symbols)
            return {symbol: trade.t.timestamp() for symbol, trade in found.items()}

        await self._watch.run(
            Watched(
                last_data=lambda: self._last_data,
                listens=listens,
                is_subscribed=is_subscribed,
                traded=traded,
                known=lanes.snapshots.times,
                ask=None if latest is None else ask,
            )
        )

    @asynccontextmanager
    async def recovering(self, http: aiohttp.ClientSession) -> AsyncIterator[None]:
        """For as long as the block runs, gaps are recovered beside it."""
        recoveries = self.backfill.run(self._upstream.rest(http))
        task = asyncio.create_task(recoveries, name="backfill")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
