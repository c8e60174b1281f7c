"""Who follows what, and which channels that takes.

Owns nothing that changes: what a consumer wants is told once. What Redis has to be told is derived
from all of them, so it cannot drift.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from alpaca_broker.client.inbox import Inbox
from alpaca_broker.client.market_data import CHANNEL_OF
from alpaca_broker.client.seam import Seam
from alpaca_broker.client.updates import Gap
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.feeds import EVERY, KINDS, Topic, family, family_of_feed


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
        others: frozenset[Topic] = frozenset(),
        seam: Seam | None = None,
        gaps: bool = True,
    ) -> None:
        self.inbox, self.symbols, self.seam, self.gaps = inbox, symbols, seam, gaps
        self.others = others  # kinds of market data besides trades
        self.everything = not symbols and not others and seam is None  # of gaps

    def wants(self, symbol: str) -> bool:
        """Whether it follows this symbol's prices."""
        return symbol in self.symbols or "*" in self.symbols

    def kinds(self, channel: str, symbol: str) -> frozenset[str]:
        """What it follows of what is heard on such a channel of the symbol."""
        return frozenset(
            kind
            for kind, name in self.others
            if CHANNEL_OF[kind] == channel and (name == symbol or is_pattern(kind, name))
        )

    def topics(self, symbol: str) -> set[Topic]:
        """What it follows of a symbol."""
        found = {kind for kind, name in self.others if name == symbol}
        found |= {kind for kind, name in self.others if is_pattern(kind, name)}.intersection(
            KINDS[family("trades", symbol)]  # who follows all order books follows none of stocks
        )
        return {(kind, symbol) for kind in (found | {"trades"} if self.wants(symbol) else found)}

    def concerns(self, gap: Gap) -> bool:
        """Whether a gap is one of what it follows."""
        if not self.gaps:
            return False
        if self.everything or (gap.account_id is None and not gap.symbols):
            return True
        if self.seam is not None:
            named = (self.seam.account_id, self.seam.journal_of)
            return gap.account_id in named or gap.reason == "stale"
        if gap.channel is not None:
            return any(self.kinds(gap.channel, symbol) for symbol in gap.symbols)
        if gap.missed is not None:  # a hole in the numbers of prices
            return any(map(self.wants, gap.symbols))
        hit = set(gap.symbols)
        mine = self.others.union(("trades", symbol) for symbol in self.symbols)
        return any(
            (EVERY in hit or symbol in hit or is_pattern(kind, symbol))
            and may_carry(gap.feed, (kind, symbol))
            for kind, symbol in mine
        )


def wanted_channels(
    channels: Channels, subscriptions: Iterable[Subscription], own: Iterable[str]
) -> dict[str, str]:
    """Every name that is to be subscribed to, and the command for it."""
    names = list(own)
    symbols: set[str] = set()
    topics: set[Topic] = set()
    for one in subscriptions:
        symbols |= one.symbols
        topics |= one.others
        if one.seam is not None:
            names.append(channels.order(one.seam.account_id))
    others = _other_channels(channels.prefix, topics)
    if "*" in symbols:
        # One pattern, and no channel besides: else each message would come twice.
        return dict.fromkeys(names, "SUBSCRIBE") | others | {channels.price("*"): "PSUBSCRIBE"}
    names += map(channels.price, sorted(symbols))
    return dict.fromkeys(names, "SUBSCRIBE") | others


def is_pattern(kind: str, symbol: str) -> bool:
    """Whether all channels of this kind are meant; news have a channel for what is about all."""
    return symbol == "*" and kind != "news"


def may_carry(feed: str | None, topic: Topic) -> bool:
    """Whether data may come from this feed; of a pattern from each that has its kind."""
    kind, symbol = topic
    mine = family_of_feed(feed or "")
    if mine is None:
        return True  # nobody says which, or it is one that we do not know
    return kind in KINDS[mine] if is_pattern(kind, symbol) else mine == family(kind, symbol)


def _other_channels(prefix: str, topics: Iterable[Topic]) -> dict[str, str]:
    ordered = sorted(topics)
    whole = {CHANNEL_OF[kind] for kind, symbol in ordered if is_pattern(kind, symbol)}
    wanted = {f"{prefix}{channel}*": "PSUBSCRIBE" for channel in sorted(whole)}
    for kind, symbol in ordered:
        if CHANNEL_OF[kind] not in whole:
            wanted[f"{prefix}{CHANNEL_OF[kind]}{symbol}"] = "SUBSCRIBE"
    return wanted


def changes(told: dict[str, str], wanted: dict[str, str]) -> list[tuple[str, ...]]:
    """The commands that lead from what Redis was told to what is wanted; new names first."""
    commands: list[tuple[str, ...]] = []
    for verb, opposite in (("SUBSCRIBE", "UNSUBSCRIBE"), ("PSUBSCRIBE", "PUNSUBSCRIBE")):
        new = [name for name, how in wanted.items() if how == verb and name not in told]
        gone = [name for name, how in told.items() if how == verb and name not in wanted]
        commands += [(verb, *new)] if new else []
        commands += [(opposite, *gone)] if gone else []
    return commands
