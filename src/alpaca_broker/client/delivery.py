"""What the consumers are given: prices from the hot path, orders and gaps from here.

Owns the list of consumers and the counters. Runs in the listening thread; what it puts into a
queue becomes visible with `hand_over`, a batch at a time.
"""

from __future__ import annotations

from typing import Protocol

from alpaca_broker.client.subscription import Counters, Subscription
from alpaca_broker.client.tracking import Track
from alpaca_broker.client.updates import Gap, OrderUpdate, Repair


class Numbered(Protocol):
    """Any kind of market data."""

    timestamp: float
    received_at: float | None


class Delivery:
    """The consumers of one client."""

    def __init__(self) -> None:
        self.subscriptions: tuple[Subscription, ...] = ()
        self.counters = Counters()

    def hand_over(self) -> None:
        """Give the consumers what has come."""
        for one in self.subscriptions:
            if one.inbox.pending:
                one.inbox.flush()

    def tell(self, gap: Gap) -> None:
        """Tell a gap to everyone whom it concerns."""
        for one in self.subscriptions:
            if one.concerns(gap):
                one.inbox.pending.append(gap)

    def hole(
        self,
        track: Track,
        missed: int,
        before: Numbered | None,
        after: Numbered,
        wall: float,
        repaired: Repair | None = None,
        channel: str | None = None,
    ) -> None:
        """Tell a hole in the numbers of a symbol's prices, or of another `channel` of it."""
        self.counters.holes += 1
        self.counters.missed += missed
        reason = track.why()
        whole = "the connection was whole: it never reached Redis, or Redis never told it"
        gap = Gap(
            reason=reason,
            detail=whole if reason == "broker gap" else "",
            symbols=(track.symbol,),
            channel=channel,
            missed=missed,
            began=(before.received_at or before.timestamp) if before is not None else None,
            ended=after.received_at or wall,
            repaired=repaired,
        )
        self.tell(gap)

    def orders(self, follower: Subscription, handed: list[OrderUpdate | Gap]) -> None:
        """Put what a seam hands on; its gaps also to those who listen to gaps alone."""
        for item in handed:
            if not isinstance(item, Gap):
                follower.inbox.pending.append(item)
                continue
            self.counters.holes += 1
            self.counters.missed += item.missed or 0
            if item.recovered:
                self.counters.repaired += item.missed or 0
            for one in self.subscriptions:
                if one.everything or (one is follower and one.gaps):
                    one.inbox.pending.append(item)
