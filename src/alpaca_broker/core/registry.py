"""Who wants what, and until when.

Owns the bots' wishes. What Alpaca shall send is *derived* from them, never counted up and down, so
it cannot drift; no bot can take away what another wants. Time is an argument, never read here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec import Struct, field

from alpaca_broker.core.channels import HEARD_ON
from alpaca_broker.core.demand import Heard, is_heard
from alpaca_broker.core.feeds import CONTENT, Topic
from alpaca_broker.core.registration import BadRegistration, Registration

POOL = ""
MOST_BOTS = 10_000


class Wish(Struct):
    """What one bot wants: topics with their place in the queue, and whose orders it follows."""

    topics: dict[Topic, int] = field(default_factory=dict)
    account_id: str | None = None
    until: float | None = None  # the end of the lease, on the clock of `now`
    heard_at: float = 0.0  # registered, or somebody subscribed to one of its channels


class Saved(Struct):
    """A wish as it is kept in `broker:registry`; `until` is in epoch seconds."""

    symbols: dict[str, int]  # of trades: what is kept since before there were other kinds
    account_id: str | None = None
    until: float | None = None
    channels: dict[str, dict[str, int]] = field(default_factory=dict)  # of the other kinds

    def topics(self) -> dict[Topic, int]:
        """All of it, but kinds that nobody knows (any more)."""
        kinds = {"trades": self.symbols} | self.channels
        return {
            (kind, symbol): turn
            for kind, symbols in kinds.items()
            if kind in HEARD_ON
            for symbol, turn in symbols.items()
        }


class Registry:
    """The wishes of all bots."""

    def __init__(self, most_symbols: int = 20_000) -> None:
        self._most_symbols = most_symbols  # of one bot
        self._wishes: dict[str, Wish] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._wishes)

    def apply(
        self, registration: Registration, now: float, topics: Iterable[Topic] | None = None
    ) -> bool:
        """Add to, or take from, what a bot wants; whether that changed it. Idempotent.

        `topics` are those of the registration that some feed has; all of them where not given.

        Raises:
            BadRegistration: a bound is reached; nothing was changed.
        """
        before = self._facts(registration.bot)
        if registration.action == "register":
            wanted = registration.topics if topics is None else tuple(topics)
            self._register(registration, wanted, now)
        else:
            self._unregister(registration)
        return self._facts(registration.bot) != before

    def expire(self, now: float) -> list[str]:
        """Forget the bots whose lease has run out; returns their names."""
        gone = [b for b, w in self._wishes.items() if w.until is not None and w.until <= now]
        for bot in gone:
            del self._wishes[bot]
        return gone

    def forget_unheard(self, listened: Collection[Heard], now: float, idle_s: float) -> list[str]:
        """Forget price wishes without a lease to whose channels nobody listens; whose they were.

        Whoever follows orders is kept for those: registrations for orders do not expire.
        """
        gone = []
        for bot, wish in list(self._wishes.items()):
            if wish.until is not None or not wish.topics:
                continue
            if any(is_heard(topic, listened) for topic in wish.topics):
                wish.heard_at = now
            elif now - wish.heard_at >= idle_s:
                wish.topics = {}
                if wish.account_id is None:
                    del self._wishes[bot]
                gone.append(bot)
        return gone

    def take(self, bot: str, symbols: Collection[str]) -> None:
        """Take symbols from a bot's wish: they turned out to be none. News may be about them."""
        if wish := self._wishes.get(bot):
            for topic in [t for t in wish.topics if t[1] in symbols and not _is_news(t)]:
                del wish.topics[topic]

    def saved(self, bot: str, clock_offset: float) -> Saved | None:
        """A bot's wish as it is kept, or None where there is none any more.

        `clock_offset` is epoch seconds less the clock of `now`.
        """
        wish = self._wishes.get(bot)
        if wish is None:
            return None
        until = None if wish.until is None else wish.until + clock_offset
        channels: dict[str, dict[str, int]] = {"trades": {}}
        for (kind, symbol), turn in wish.topics.items():
            channels.setdefault(kind, {})[symbol] = turn
        return Saved(channels.pop("trades"), wish.account_id, until, channels)

    def restore(self, bot: str, kept: Saved, now: float, clock_offset: float) -> None:
        """Take up a wish that was kept, unless the bot has spoken since."""
        if bot in self._wishes or len(self) >= MOST_BOTS:
            return
        until = None if kept.until is None else kept.until - clock_offset
        topics = kept.topics()
        self._wishes[bot] = Wish(topics, kept.account_id, until, now)
        self._turn = max(self._turn, *topics.values(), 0)

    def topics(self) -> tuple[Topic, ...]:
        """Every wanted topic once, whoever asked first coming first."""
        first: dict[Topic, int] = {}
        for wish in self._wishes.values():
            for topic, turn in wish.topics.items():
                if turn < first.get(topic, self._turn + 1):
                    first[topic] = turn
        return tuple(sorted(first, key=first.__getitem__))

    def account_names(self) -> frozenset[str]:
        """Every account id or number that some bot named."""
        return frozenset(w.account_id for w in self._wishes.values() if w.account_id is not None)

    def _facts(self, bot: str) -> tuple[int, str | None] | None:
        wish = self._wishes.get(bot)  # topics only come by register and only go by unregister
        return None if wish is None else (len(wish.topics), wish.account_id)

    def _register(self, registration: Registration, topics: tuple[Topic, ...], now: float) -> None:
        wish = self._wishes.get(registration.bot) or Wish()
        if not topics and registration.account_id is None:
            return  # nothing of it can come: no wish, no bot
        if registration.bot not in self._wishes and len(self) >= MOST_BOTS:
            raise BadRegistration(f"{MOST_BOTS} bots are registered: no room for another")
        if len({s for _, s in wish.topics} | {s for _, s in topics}) > self._most_symbols:
            raise BadRegistration(f'more than {self._most_symbols} symbols: register fewer, or "*"')
        self._wishes[registration.bot] = wish
        for topic in topics:
            self._turn += 1
            wish.topics.setdefault(topic, self._turn)
        wish.account_id = registration.account_id or wish.account_id
        wish.heard_at = now
        wish.until = None if registration.ttl is None else now + registration.ttl

    def _unregister(self, registration: Registration) -> None:
        wish = self._wishes.get(registration.bot)
        if registration.bot == POOL or wish is None:
            return  # the pool is everyone's: nobody may empty it
        kinds = registration.channels
        if registration.everything:
            gone: Iterable[Topic] = [t for t in wish.topics if t[0] in kinds or not kinds]
        else:
            gone = registration.topics
        for topic in gone:
            wish.topics.pop(topic, None)
        whole = registration.everything and not kinds
        if whole or (not wish.topics and wish.account_id is None):
            del self._wishes[registration.bot]


def _is_news(topic: Topic) -> bool:
    return topic[0] in ("news", CONTENT)
