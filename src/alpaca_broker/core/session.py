"""One market-data conversation with Alpaca: what we want, what it confirmed, what to say next.

Owns the state of that conversation and nothing else: no socket, no clock, no retry. A new link gets
a new `Session`; only what is desired is handed over. What is asked for are topics: one kind of data
of one symbol.
Invariants: at most one question is unanswered; `acked` is only ever what Alpaca said; what Alpaca
refused is parked, so that the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from itertools import islice

from msgspec import Struct

from alpaca_broker.core.feeds import EVERY, Topic
from alpaca_broker.core.topics import NO_TOPICS, Topics
from alpaca_broker.core.verdicts import ABOUT_A_SUBSCRIPTION, ABOUT_THE_KIND, NO_WILDCARD
from alpaca_broker.core.wire import Control, Refusal, Subscription, Success
from alpaca_broker.errors import RemoteProtocolError, UpstreamRefused

SYMBOL_LIMIT = 405
LEFT_OUT = 400
# No limit of a client message is documented; C# sends 100 symbols at once, and 1009 was seen on
# large messages. 500 symbols are under 8 kB, 500 options under 12 kB.
MOST_TOPICS = 500


class State(Enum):
    """Where the conversation stands."""

    GREETING = "waiting for the welcome"
    AUTHENTICATING = "waiting for the answer to the authentication"
    LIVE = "live"


class SendAuth(Struct, frozen=True):
    """Say who we are."""


class Add(Struct, frozen=True):
    """Subscribe to these topics."""

    topics: tuple[Topic, ...]


class Drop(Struct, frozen=True):
    """Unsubscribe from these topics."""

    topics: tuple[Topic, ...]


Action = SendAuth | Add | Drop


class Session:
    """The conversation of one link. Not thread-safe; messages in, actions out."""

    def __init__(
        self,
        desired: Iterable[Topic] = (),
        sets: Topics | None = None,
        *,
        most_topics: int = MOST_TOPICS,
    ) -> None:
        self.state = State.GREETING
        self.desired = tuple(desired)  # first come, first served
        self.desires = Topics.of(self.desired) if sets is None else sets
        self.acked = NO_TOPICS
        self.asked: Add | Drop | None = None
        # A topic and the code of its refusal; replaced, never changed.
        self.parked: dict[Topic, int] = {}
        self._missing = dict.fromkeys(self.desired)  # neither acknowledged nor parked, in order
        self._kept: frozenset[Topic] = frozenset()
        self._renewed: frozenset[Topic] = frozenset()  # given back, to be asked for again
        self._most = self._batch = most_topics
        self._kinds_apart = False

    @property
    def is_live(self) -> bool:
        """Whether Alpaca has let us in."""
        return self.state is State.LIVE

    @property
    def settled(self) -> bool:
        """Whether Alpaca has answered everything that we have to ask."""
        return self.state is State.LIVE and self.asked is None

    def want(self, topics: Iterable[Topic], sets: Topics | None = None) -> list[Action]:
        """Replace what is desired, in the order of precedence; returns what to say now.

        `sets` are the same topics, where somebody has them already.
        """
        self.desired = tuple(topics)
        self.desires = Topics.of(self.desired) if sets is None else sets
        self.parked = {t: code for t, code in self.parked.items() if t in self.desires}
        self._look_for_missing()
        return self._reconcile()

    def renew(self, topics: Iterable[Topic]) -> list[Action]:
        """Give these back and ask for them again: Alpaca then sends a book as a whole."""
        self._renewed |= self.acked & frozenset(topics)
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
                self._acknowledged(message)
            case State.LIVE, Refusal(code) if code in ABOUT_A_SUBSCRIPTION and self.asked:
                self._refused(self.asked, code)
            case _, Refusal(code, text):
                raise UpstreamRefused(code, text)
            case _:
                raise RemoteProtocolError(self.state.value, message)
        return self._reconcile()

    def _acknowledged(self, message: Subscription) -> None:
        lists, asked = message.lists, self.asked
        if not lists and not (isinstance(asked, Drop) and self.acked <= set(asked.topics)):
            return  # it names no list at all: that is no answer, where something should be there
        before, self.acked, self.asked = self.acked, Topics(lists), None
        if isinstance(asked, Drop):
            # What Alpaca keeps although we gave it back is never given back in a loop.
            self._kept |= {topic for topic in asked.topics if topic in self.acked}
            self._renewed -= frozenset(asked.topics)
            # Places became free: whoever was turned away at the limit may try again.
            self.parked = {t: c for t, c in self.parked.items() if c != SYMBOL_LIMIT}
        elif asked is not None:
            self._batch = min(self._batch * 2, self._most)
            # Answered, yet left out: never ask in a loop.
            self._park((topic for topic in asked.topics if topic not in self.acked), LEFT_OUT)
            if not before.without(self.acked):
                for topic in asked.topics:
                    self._missing.pop(topic, None)
                return
        self._look_for_missing()

    def _refused(self, asked: Add | Drop, code: int) -> None:
        """Set what was refused aside, or ask for less until the culprit stands alone."""
        self.asked = None
        if isinstance(asked, Drop):
            raise UpstreamRefused(code, "a request to unsubscribe was refused")
        if code in ABOUT_THE_KIND:
            self._kind_refused(asked, code)
        elif len(asked.topics) > 1:
            self._batch = len(asked.topics) // 2
        elif code == SYMBOL_LIMIT:
            self._full(asked.topics[0])
        else:
            self._park(asked.topics, code)

    def _kind_refused(self, asked: Add, code: int) -> None:
        """Park a whole kind; where it is one of several that were asked for, find out which."""
        kinds = {kind for kind, _ in asked.topics}
        if len(kinds) > 1:
            self._kinds_apart = True
            return
        every = [topic for topic in asked.topics if topic[1] == EVERY]
        if code == NO_WILDCARD and every:
            self._park(every, code)
        else:
            self._park([t for t in self._missing if t[0] in kinds], code)

    def _full(self, refused: Topic) -> None:
        """One alone does not fit, so nothing will that costs as much.

        Whether symbols are counted, or topics, or each kind by itself, is documented nowhere. So
        other kinds are asked for by themselves, and so is what is of a symbol that is in already.
        """
        kind, symbol = refused
        if symbol == EVERY:  # it may count as more than one
            self._park([refused], SYMBOL_LIMIT)
            return
        # What of it is in did not help: nor will it help a symbol of which no other kind is in.
        covered = self.acked.kinds_of(symbol)
        same = [t for t in self._missing if t[0] == kind and self.acked.kinds_of(t[1]) <= covered]
        self._park([refused, *same], SYMBOL_LIMIT)

    def _park(self, topics: Iterable[Topic], code: int) -> None:
        wanted = [topic for topic in topics if topic in self.desires]  # still
        if wanted:
            self.parked = self.parked | dict.fromkeys(wanted, code)
            for topic in wanted:
                self._missing.pop(topic, None)

    def _look_for_missing(self) -> None:
        """Anew, after more than what was asked for has changed."""
        missing = self.desires.without(self.acked).without(Topics.of(self.parked))
        symbols = missing.symbols  # most have none: these are passed over for the price of a look
        ordered = (t for t in self.desired if t[1] in symbols and t in missing) if symbols else ()
        self._missing = dict.fromkeys(ordered)

    def _reconcile(self) -> list[Action]:
        """Release before asking for more, one question at a time."""
        if self.state is not State.LIVE or self.asked is not None:
            return []
        surplus = {*self.acked.without(self.desires)} - self._kept | self._renewed
        if surplus:
            self.asked = Drop(tuple(sorted(surplus)[: self._most]))
        elif self._missing:
            kind = next(iter(self._missing))[0]
            missing = (t for t in self._missing if t[0] == kind or not self._kinds_apart)
            self.asked = Add(tuple(islice(missing, self._batch)))
        return [self.asked] if self.asked else []
