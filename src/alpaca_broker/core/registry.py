"""Who wants what, and until when.

Owns the bots' wishes. What Alpaca shall send is *derived* from them, never counted up and down, so
it cannot drift; no bot can take away what another wants. Time is an argument, never read here.
"""

from __future__ import annotations

from msgspec import Struct, field

from alpaca_broker.core.registration import BadRegistration, Registration

POOL = ""
MOST_BOTS = 10_000
MOST_SYMBOLS = 20_000  # of one bot


class Wish(Struct):
    """What one bot wants: symbols with their place in the queue, and whose orders it follows."""

    symbols: dict[str, int] = field(default_factory=dict)
    account_id: str | None = None
    until: float | None = None


class Registry:
    """The wishes of all bots."""

    def __init__(self) -> None:
        self._wishes: dict[str, Wish] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._wishes)

    def apply(self, registration: Registration, now: float) -> None:
        """Add to, or take from, what a bot wants. Idempotent.

        Raises:
            BadRegistration: a bound is reached; nothing was changed.
        """
        if registration.action == "register":
            self._register(registration, now)
        else:
            self._unregister(registration)

    def expire(self, now: float) -> list[str]:
        """Forget the bots whose lease has run out; returns their names."""
        gone = [b for b, w in self._wishes.items() if w.until is not None and w.until <= now]
        for bot in gone:
            del self._wishes[bot]
        return gone

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

    def _register(self, registration: Registration, now: float) -> None:
        wish = self._wishes.get(registration.bot) or Wish()
        if registration.bot not in self._wishes and len(self) >= MOST_BOTS:
            raise BadRegistration(f"{MOST_BOTS} bots are registered: no room for another")
        if len(wish.symbols.keys() | set(registration.symbols)) > MOST_SYMBOLS:
            raise BadRegistration(f'more than {MOST_SYMBOLS} symbols: register fewer, or "*"')
        self._wishes[registration.bot] = wish
        if "trades" in registration.channels:
            for symbol in registration.symbols:
                self._turn += 1
                wish.symbols.setdefault(symbol, self._turn)
        wish.account_id = registration.account_id or wish.account_id
        wish.until = None if registration.ttl is None else now + registration.ttl

    def _unregister(self, registration: Registration) -> None:
        wish = self._wishes.get(registration.bot)
        if registration.bot == POOL or wish is None:
            return  # the pool is everyone's: nobody may empty it
        for symbol in registration.symbols:
            wish.symbols.pop(symbol, None)
        if registration.everything or (not wish.symbols and wish.account_id is None):
            del self._wishes[registration.bot]
