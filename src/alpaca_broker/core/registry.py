"""Who wants what, and until when.

Owns the bots' wishes. What Alpaca shall send is *derived* from them, never counted up and down, so
it cannot drift; no bot can take away what another wants. Time is an argument, never read here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec import Struct, field

from alpaca_broker.core.registration import BadRegistration, Registration

POOL = ""
MOST_BOTS = 10_000


class Wish(Struct):
    """What one bot wants: symbols with their place in the queue, and whose orders it follows."""

    symbols: dict[str, int] = field(default_factory=dict)
    account_id: str | None = None
    until: float | None = None  # the end of the lease, on the clock of `now`
    heard_at: float = 0.0  # registered, or somebody subscribed to one of its channels


class Saved(Struct):
    """A wish as it is kept in `broker:registry`; `until` is in epoch seconds."""

    symbols: dict[str, int]
    account_id: str | None = None
    until: float | None = None


class Registry:
    """The wishes of all bots."""

    def __init__(self, most_symbols: int = 20_000) -> None:
        self._most_symbols = most_symbols  # of one bot
        self._wishes: dict[str, Wish] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._wishes)

    def apply(self, registration: Registration, now: float) -> bool:
        """Add to, or take from, what a bot wants; whether that changed it. Idempotent.

        Raises:
            BadRegistration: a bound is reached; nothing was changed.
        """
        before = self._facts(registration.bot)
        if registration.action == "register":
            self._register(registration, now)
        else:
            self._unregister(registration)
        return self._facts(registration.bot) != before

    def expire(self, now: float) -> list[str]:
        """Forget the bots whose lease has run out; returns their names."""
        gone = [b for b, w in self._wishes.items() if w.until is not None and w.until <= now]
        for bot in gone:
            del self._wishes[bot]
        return gone

    def forget_unheard(self, listened: Collection[str], now: float, idle_s: float) -> list[str]:
        """Forget price wishes without a lease to whose channels nobody listens; whose they were.

        Whoever follows orders is kept for those: registrations for orders do not expire.
        """
        gone = []
        for bot, wish in list(self._wishes.items()):
            if wish.until is not None or not wish.symbols:
                continue
            if not wish.symbols.keys().isdisjoint(listened):
                wish.heard_at = now
            elif now - wish.heard_at >= idle_s:
                wish.symbols = {}
                if wish.account_id is None:
                    del self._wishes[bot]
                gone.append(bot)
        return gone

    def take(self, bot: str, symbols: Iterable[str]) -> None:
        """Take symbols from a bot's wish: they turned out to be none."""
        if wish := self._wishes.get(bot):
            for symbol in symbols:
                wish.symbols.pop(symbol, None)

    def saved(self, bot: str, clock_offset: float) -> Saved | None:
        """A bot's wish as it is kept, or None where there is none any more.

        `clock_offset` is epoch seconds less the clock of `now`.
        """
        wish = self._wishes.get(bot)
        if wish is None:
            return None
        until = None if wish.until is None else wish.until + clock_offset
        return Saved(dict(wish.symbols), wish.account_id, until)

    def restore(self, bot: str, kept: Saved, now: float, clock_offset: float) -> None:
        """Take up a wish that was kept, unless the bot has spoken since."""
        if bot in self._wishes or len(self) >= MOST_BOTS:
            return
        until = None if kept.until is None else kept.until - clock_offset
        self._wishes[bot] = Wish(kept.symbols, kept.account_id, until, now)
        self._turn = max(self._turn, *kept.symbols.values(), 0)

    def symbols(self) -> tuple[str, ...]:
        """Every wanted symbol once, whoever asked first coming first."""
        first: dict[str, int] = {}
        for wish in self._wishes.values():
            for symbol, turn in wish.symbols.items():
                if turn < first.get(symbol, self._turn + 1):
                    first[symbol] = turn
        return tuple(sorted(first, key=first.__getitem__))

    def account_names(self) -> frozenset[str]:
        """Every account id or number that some bot named."""
        return frozenset(w.account_id for w in self._wishes.values() if w.account_id is not None)

    def _facts(self, bot: str) -> tuple[int, str | None] | None:
        wish = self._wishes.get(bot)  # symbols only come by register and only go by unregister
        return None if wish is None else (len(wish.symbols), wish.account_id)

    def _register(self, registration: Registration, now: float) -> None:
        wish = self._wishes.get(registration.bot) or Wish()
        if "trades" not in registration.channels and registration.account_id is None:
            return  # nothing of it is served: no wish, no bot
        if registration.bot not in self._wishes and len(self) >= MOST_BOTS:
            raise BadRegistration(f"{MOST_BOTS} bots are registered: no room for another")
        if len(wish.symbols.keys() | set(registration.symbols)) > self._most_symbols:
            raise BadRegistration(f'more than {self._most_symbols} symbols: register fewer, or "*"')
        self._wishes[registration.bot] = wish
        if "trades" in registration.channels:
            for symbol in registration.symbols:
                self._turn += 1
                wish.symbols.setdefault(symbol, self._turn)
        wish.account_id = registration.account_id or wish.account_id
        wish.heard_at = now
        wish.until = None if registration.ttl is None else now + registration.ttl

    def _unregister(self, registration: Registration) -> None:
        wish = self._wishes.get(registration.bot)
        if registration.bot == POOL or wish is None:
            return  # the pool is everyone's: nobody may empty it
        if "trades" in registration.channels:
            for symbol in registration.symbols:
                wish.symbols.pop(symbol, None)
        if registration.everything or (not wish.symbols and wish.account_id is None):
            del self._wishes[registration.bot]
