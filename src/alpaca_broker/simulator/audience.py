"""Who wants what: the sessions of a venue, grouped by codec and equal subscriptions.

Owns the groups. Invariant: after `forget` the next look sees the sessions as they are; before it,
as they were. It sends nothing.
"""

from collections.abc import Iterable

from alpaca_broker.simulator.codec import Codec
from alpaca_broker.simulator.market_session import MarketSession, State, Topic
from alpaca_broker.simulator.subscriptions import STAR


class Group:
    """Sessions with one codec and equal subscriptions."""

    def __init__(self, codec: Codec, topics: frozenset[Topic]) -> None:
        self.codec = codec
        self.topics = topics
        self.sessions: list[MarketSession] = []
        self._stars = frozenset(channel for channel, symbol in topics if symbol == STAR)
        self._covered: frozenset[Topic] | None = None

    def wants(self, wanted: Topic) -> bool:
        """Whether this topic is for these sessions."""
        return wanted in self.topics or wanted[0] in self._stars

    def covers(self, universe: frozenset[Topic]) -> bool:
        """Whether all of these topics are."""
        if self._covered is not universe:  # the same object again in every chunk of a replay
            if not all(map(self.wants, universe)):
                return False
            self._covered = universe
        return True


class Audience:
    """The groups of every venue, made when somebody looks.

    Args:
        sessions: All that there are at the moment of looking.
    """

    def __init__(self, sessions: Iterable[MarketSession]) -> None:
        self._sessions = sessions
        self._groups: dict[str, list[Group]] = {}
        self._subscribed: dict[str, frozenset[Topic]] = {}

    def live(self) -> Iterable[MarketSession]:
        """The authenticated sessions."""
        return (session for session in self._sessions if session.state is State.LIVE)

    def forget(self, venue: str) -> None:
        """Regroup a venue's sessions at the next look."""
        self._groups.pop(venue, None)
        self._subscribed.pop(venue, None)

    def groups(self, venue: str) -> list[Group]:
        """The groups of all feeds of a venue."""
        if (groups := self._groups.get(venue)) is None:
            found: dict[tuple[Codec, frozenset[Topic]], Group] = {}
            for session in self.live():
                if session.feed.venue == venue and (topics := session.subscriptions.topics()):
                    group = found.setdefault((session.codec, topics), Group(session.codec, topics))
                    group.sessions.append(session)
            groups = self._groups[venue] = list(found.values())
        return groups

    def subscribed(self, venue: str) -> frozenset[Topic]:
        """Everything any session asked for; the same object again while nothing changed."""
        if (topics := self._subscribed.get(venue)) is None:
            topics = frozenset().union(*(group.topics for group in self.groups(venue)))
            self._subscribed[venue] = topics
        return topics
