"""Who follows what, and which channels that takes.

Owns nothing that changes: what a consumer wants is told once. What Redis has to be told is derived
from all of them, so it cannot drift.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from alpaca_broker.client.inbox import Inbox
from alpaca_broker.client.seam import Seam
from alpaca_broker.client.updates import Gap
from alpaca_broker.core.channels import Channels


class Counters(Struct):
    """What a client has counted so far."""

    received: int = 0  # prices and orders, from Redis
    delivered: int = 0  # taken by the bot, gaps included
    waiting: int = 0
    conflated: int = 0
    duplicates: int = 0  # second ones, and those of lower epochs
    bad: int = 0
    holes: int = 0
    missed: int = 0  # by the difference of seq
    repaired: int = 0  # prices from `price:last`, orders from the journal after a hole
    reconnects: int = 0


class Subscription:
    """What one consumer wants, and where it is put."""

    def __init__(
        self,
        inbox: Inbox,
        *,
        symbols: frozenset[str] = frozenset(),
        seam: Seam | None = None,
        gaps: bool = True,
    ) -> None:
        self.inbox, self.symbols, self.seam, self.gaps = inbox, symbols, seam, gaps
        self.everything = not symbols and seam is None  # of gaps

    def wants(self, symbol: str) -> bool:
        """Whether it follows this symbol."""
        return symbol in self.symbols or "*" in self.symbols

    def concerns(self, gap: Gap) -> bool:
        """Whether a gap is one of what it follows."""
        if not self.gaps:
            return False
        if self.everything or (gap.account_id is None and not gap.symbols):
            return True
        if self.seam is not None:
            named = (self.seam.account_id, self.seam.journal_of)
            return gap.account_id in named or gap.reason == "stale"
        return any(map(self.wants, gap.symbols)) or ("*" in gap.symbols and bool(self.symbols))


def wanted_channels(
    channels: Channels, subscriptions: Iterable[Subscription], own: Iterable[str]
) -> dict[str, str]:
    """Every name that is to be subscribed to, and the command for it."""
    names = list(own)
    symbols: set[str] = set()
    for one in subscriptions:
        symbols |= one.symbols
        if one.seam is not None:
            names.append(channels.order(one.seam.account_id))
    if "*" in symbols:
        # One pattern, and no channel besides: else each message would come twice.
        return dict.fromkeys(names, "SUBSCRIBE") | {channels.price("*"): "PSUBSCRIBE"}
    names += map(channels.price, sorted(symbols))
    return dict.fromkeys(names, "SUBSCRIBE")


def changes(told: dict[str, str], wanted: dict[str, str]) -> list[tuple[str, ...]]:
    """The commands that lead from what Redis was told to what is wanted; new names first."""
    commands: list[tuple[str, ...]] = []
    for verb, opposite in (("SUBSCRIBE", "UNSUBSCRIBE"), ("PSUBSCRIBE", "PUNSUBSCRIBE")):
        new = [name for name, how in wanted.items() if how == verb and name not in told]
        gone = [name for name, how in told.items() if how == verb and name not in wanted]
        commands += [(verb, *new)] if new else []
        commands += [(opposite, *gone)] if gone else []
    return commands
