"""One market-data conversation with Alpaca: what we want, what it confirmed, what to say next.

Owns the state of that conversation and nothing else: no socket, no clock, no retry. A new link gets
a new `Session`; only what is desired is handed over.
Invariants: at most one question is unanswered; `acked` is only ever what Alpaca said; what Alpaca
refused is parked, so that the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from msgspec import Struct

from alpaca_broker.core.verdicts import ABOUT_A_SUBSCRIPTION, ABOUT_THE_KIND
from alpaca_broker.core.wire import Refusal, Subscription, Success
from alpaca_broker.errors import RemoteProtocolError, UpstreamRefused

SYMBOL_LIMIT = 405
# No limit of a client message is documented; C# sends 100 symbols at once, and 1009 was seen on
# large messages. 500 symbols are under 8 kB.
MOST_SYMBOLS = 500


class State(Enum):
    """Where the conversation stands."""

    GREETING = "waiting for the welcome"
    AUTHENTICATING = "waiting for the answer to the authentication"
    LIVE = "live"


class SendAuth(Struct, frozen=True):
    """Say who we are."""


class Add(Struct, frozen=True):
    """Subscribe to these symbols."""

    symbols: tuple[str, ...]


class Drop(Struct, frozen=True):
    """Unsubscribe from these symbols."""

    symbols: tuple[str, ...]


Action = SendAuth | Add | Drop
Control = Success | Refusal | Subscription


class Session:
    """The conversation of one link. Not thread-safe; messages in, actions out."""

    def __init__(self, desired: Iterable[str] = (), *, most_symbols: int = MOST_SYMBOLS) -> None:
        self.state = State.GREETING
        self.desired: dict[str, None] = dict.fromkeys(desired)  # first come, first served
        self.acked: frozenset[str] = frozenset()
        self.asked: Add | Drop | None = None
        self.parked: dict[
            str, int
        ] = {}  # symbol -> the code of its refusal; replaced, never changed
        self._kept: frozenset[str] = frozenset()
        self._most = self._batch = most_symbols

    @property
    def is_live(self) -> bool:
        """Whether Alpaca has let us in."""
        return self.state is State.LIVE

    @property
    def settled(self) -> bool:
        """Whether Alpaca has answered everything that we have to ask."""
        return self.state is State.LIVE and self.asked is None

    def want(self, symbols: Iterable[str]) -> list[Action]:
        """Replace what is desired, in the order of precedence; returns what to say now."""
        self.desired = dict.fromkeys(symbols)
        self.parked = {s: code for s, code in self.parked.items() if s in self.desired}
        return self._reconcile()

    def receive(self, message: Control) -> list[Action]:
        """Take one control message; returns what to say now.

        Raises:
            UpstreamRefused: Alpaca ended this conversation; `verdict(code)` says what follows.
            RemoteProtocolError: a message that has no place here; nothing was changed.
        """
        match self.state, message:
            case State.GREETING, Success("connected"):
                self.state = State.AUTHENTICATING
                return [SendAuth()]
            case State.AUTHENTICATING, Success("authenticated"):
                self.state = State.LIVE
            case State.LIVE, Subscription():
                self._acknowledged(frozenset(message.trades or ()))
            case State.LIVE, Refusal(code) if code in ABOUT_A_SUBSCRIPTION and self.asked:
                self._refused(self.asked, code)
            case _, Refusal(code, text):
                raise UpstreamRefused(code, text)
            case _:
                raise RemoteProtocolError(self.state.value, message)
        return self._reconcile()

    def _acknowledged(self, symbols: frozenset[str]) -> None:
        if isinstance(self.asked, Drop):
            # What Alpaca keeps although we gave it back is never given back in a loop.
            self._kept |= symbols & frozenset(self.asked.symbols)
            # Places became free: whoever was turned away at the limit may try again.
            self.parked = {s: c for s, c in self.parked.items() if c != SYMBOL_LIMIT}
        elif self.asked is not None:
            self._batch = min(self._batch * 2, self._most)
            for symbol in self.asked.symbols:
                if symbol not in symbols:  # answered, yet left out: never ask in a loop
                    self.parked = self.parked | {symbol: 400}
        self.acked, self.asked = symbols, None

    def _refused(self, asked: Add | Drop, code: int) -> None:
        """Set one refused symbol aside, or ask for half as many until it stands alone."""
        self.asked = None
        if isinstance(asked, Drop):
            raise UpstreamRefused(code, "a request to unsubscribe was refused")
        if code in ABOUT_THE_KIND:
            self.parked = self.parked | dict.fromkeys(self._missing(), code)
            return
        if len(asked.symbols) > 1:
            self._batch = len(asked.symbols) // 2
            return
        self.parked = self.parked | {asked.symbols[0]: code}
        if code == SYMBOL_LIMIT:  # one alone does not fit, so no other will
            self.parked = self.parked | dict.fromkeys(self._missing(), code)

    def _missing(self) -> list[str]:
        return [s for s in self.desired if s not in self.acked and s not in self.parked]

    def _reconcile(self) -> list[Action]:
        """Release before asking for more, one question at a time."""
        if self.state is not State.LIVE or self.asked is not None:
            return []
        if surplus := sorted(self.acked - self.desired.keys() - self._kept):
            self.asked = Drop(tuple(surplus[: self._most]))
        elif missing := self._missing():
            self.asked = Add(tuple(missing[: self._batch]))
        return [self.asked] if self.asked else []
