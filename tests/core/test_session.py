"""The market-data conversation: every message in every state, and convergence under limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from time import process_time

import msgspec
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import booleans, lists, sampled_from

from alpaca_broker.core.feeds import Feeds, Topic
from alpaca_broker.core.session import Action, Add, Drop, SendAuth, Session, State
from alpaca_broker.core.wire import MarketDecoder, Refusal, Subscription, Success
from alpaca_broker.errors import RemoteProtocolError, UpstreamRefused

WELCOME, AUTHENTICATED = Success("connected"), Success("authenticated")
MESSAGES = [
    WELCOME,
    AUTHENTICATED,
    Success("something new"),
    Subscription(trades=["AAPL"]),
    *[Refusal(c) for c in (400, 401, 402, 404, 405, 406, 407, 409, 410, 411, 412, 413, 500, 599)],
]
LEGAL = [
    (State.GREETING, WELCOME),
    (State.AUTHENTICATING, AUTHENTICATED),
    (State.LIVE, Subscription(trades=["AAPL"])),
]


def trades(*symbols: str) -> tuple[Topic, ...]:
    """The trades of these symbols."""
    return tuple(("trades", symbol) for symbol in symbols)


def quotes(*symbols: str) -> tuple[Topic, ...]:
    """The quotes of these symbols."""
    return tuple(("quotes", symbol) for symbol in symbols)


def ack(topics: Iterable[Topic] = ()) -> Subscription:
    """Alpaca's list, with the keys that a stock feed's has."""
    found: dict[str, list[str]] = {"trades": [], "quotes": [], "bars": []}
    for kind, symbol in topics:
        found.setdefault(kind, []).append(symbol)
    return Subscription(**found)


def live(*topics: Topic) -> Session:
    """A session that has been let in; what it asks first is unanswered."""
    session = Session(topics)
    session.receive(WELCOME)
    session.receive(AUTHENTICATED)
    return session


def session_in(state: State) -> Session:
    """A session that wants nothing, in a given state."""
    session = Session()
    for message in [WELCOME, AUTHENTICATED][: list(State).index(state)]:
        session.receive(message)
    return session


@pytest.mark.parametrize(("state", "message"), list(itertools.product(State, MESSAGES)))
def test_only_legal_messages_are_taken(state: State, message: object) -> None:
    """A refusal ends the conversation, anything else unexpected is an error; neither changes it."""
    session = session_in(state)
    if (state, message) in LEGAL:
        session.receive(message)  # type: ignore[arg-type]
        return
    refused = isinstance(message, Refusal)
    with pytest.raises(UpstreamRefused if refused else RemoteProtocolError):
        session.receive(message)  # type: ignore[arg-type]
    assert session.state is state
    assert session.acked == frozenset()


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_has_its_meaning_while_a_question_is_open(message: object) -> None:
    """About a subscription: the question is answered. Another refusal ends the conversation."""
    session = live(*trades("AAPL"))
    if isinstance(message, Refusal) and message.code in (400, 405, 410, 413):
        assert session.receive(message) == []
        assert session.parked == {("trades", "AAPL"): message.code}
    elif isinstance(message, Subscription):
        assert session.receive(message) == []
        assert session.acked == set(trades("AAPL"))
    else:
        refused = isinstance(message, Refusal)
        with pytest.raises(UpstreamRefused if refused else RemoteProtocolError):
            session.receive(message)  # type: ignore[arg-type]
        assert session.asked == Add(trades("AAPL"))
    assert session.is_live


def test_says_who_it_is_only_after_the_welcome() -> None:
    """The first thing said is the authentication, and nothing is asked before it is accepted."""
    session = Session(trades("AAPL"))
    assert session.want(trades("AAPL", "MSFT")) == []
    assert session.receive(WELCOME) == [SendAuth()]
    assert session.receive(AUTHENTICATED) == [Add(trades("AAPL", "MSFT"))]


def test_one_question_at_a_time_and_drops_before_adds() -> None:
    """While a question is open nothing is asked; then what is surplus goes first."""
    session = live(*trades("AAPL"))
    assert session.want(quotes("MSFT")) == []
    assert session.receive(ack(trades("AAPL"))) == [Drop(trades("AAPL"))]
    assert session.receive(ack()) == [Add(quotes("MSFT"))]
    assert session.receive(ack(quotes("MSFT"))) == []
    assert session.settled


def test_large_sets_are_asked_for_in_parts() -> None:
    """No message holds more topics than Alpaca takes, and all arrive in order."""
    topics = [topic for n in range(600) for topic in (*trades(f"S{n}"), *quotes(f"S{n}"))]
    session = Session(topics)
    session.receive(WELCOME)
    asked: list[Topic] = []
    actions = session.receive(AUTHENTICATED)
    while actions:
        (action,) = actions
        assert isinstance(action, Add)
        assert len(action.topics) <= 500
        asked += action.topics
        actions = session.receive(ack(asked))
    assert asked == topics


def test_lists_that_come_by_themselves_or_not_at_all_do_no_harm() -> None:
    """Only what was asked for is in the acknowledgement; a list may be absent."""
    session = live(*trades("AAPL"), *quotes("AAPL"))
    session.receive(Subscription(trades=["AAPL"], quotes=["AAPL"]))
    assert session.acked == {("trades", "AAPL"), ("quotes", "AAPL")}
    assert session.want(trades("AAPL")) == [Drop(quotes("AAPL"))]
    assert session.receive(Subscription(trades=["AAPL"])) == []
    assert session.acked == set(trades("AAPL"))


def test_an_acknowledgement_without_a_list_answers_nothing_unless_nothing_is_left() -> None:
    """It says of no symbol that it was left out."""
    session = live(*trades("AAPL"))
    assert session.receive(Subscription()) == []
    assert (session.asked, session.parked) == (Add(trades("AAPL")), {})
    assert session.receive(ack(trades("AAPL"))) == []
    assert session.receive(Subscription()) == []
    assert session.acked == set(trades("AAPL"))
    assert session.want([]) == [Drop(trades("AAPL"))]
    assert session.receive(Subscription()) == []
    assert (session.settled, session.acked) == (True, frozenset())


@pytest.mark.parametrize("counts_topics", [False, True])
def test_a_symbol_limit_serves_whoever_came_first_and_parks_the_rest(counts_topics: bool) -> None:
    """405 leaves what fits, in the order of registration, and is not asked again."""
    server = Server(limit=3, counts_topics=counts_topics)
    session = live(*trades("A", "B", "C", "D", "E"))
    converse(session, server, [Add(trades("A", "B", "C", "D", "E"))])
    assert server.topics == set(trades("A", "B", "C"))
    assert session.parked == dict.fromkeys(trades("D", "E"), 405)
    converse(session, server, session.want(trades("B", "C", "D", "E")))
    assert server.topics == set(trades("B", "C", "D"))
    assert session.parked == {("trades", "E"): 405}


def test_a_second_kind_of_a_symbol_that_is_in_is_asked_for_beyond_the_limit() -> None:
    """Where symbols are counted it costs no place; where topics are, it is refused once."""
    wanted = [*trades("A", "B", "C"), *quotes("C", "A", "B")]
    server = Server(limit=2, counts_topics=False)
    session = live(*wanted)
    converse(session, server, [Add(tuple(wanted))])
    assert server.topics == {*trades("A", "B"), *quotes("A", "B")}
    assert session.parked == {("trades", "C"): 405, ("quotes", "C"): 405}
    server = Server(limit=2, counts_topics=True)
    session = live(*wanted)
    converse(session, server, [Add(tuple(wanted))])
    assert server.topics == set(trades("A", "B"))
    assert len(session.parked) == 4


def test_a_symbol_that_is_in_by_its_bars_alone_says_nothing_of_others() -> None:
    """Alpaca counts the symbols of trades and quotes: bars are free, and what fits is served."""
    wanted = [("bars", "B"), *trades("A", "B", "C"), *quotes("A", "C")]
    server = Server(limit=1, bars_are_free=True)
    session = live(*wanted)
    converse(session, server, [Add(tuple(wanted))])
    assert server.topics == {("bars", "B"), ("trades", "A"), ("quotes", "A")}
    assert session.parked == dict.fromkeys([*trades("B", "C"), *quotes("C")], 405)


def test_a_change_of_a_large_set_costs_the_price_loop_little() -> None:
    """One symbol more among thirty thousand topics: no scan of them all for each question."""
    topics = [(kind, f"S{n}") for n in range(10_000) for kind in ("trades", "quotes", "bars")]
    session = live()
    session.want(topics)
    while isinstance(session.asked, Add):
        session.receive(ack([*session.acked, *session.asked.topics]))
    (wanted,) = Feeds().route([*topics, ("trades", "NEW")]).values()
    frame = msgspec.json.encode([{"T": "subscription", **_lists(wanted.topics)}])
    cost = []
    for _ in range(5):
        began = process_time()
        session.want(wanted.topics, wanted.sets)
        session.receive(MarketDecoder().decode(frame)[0])  # type: ignore[arg-type]
        cost.append(process_time() - began)
        assert session.settled
        assert ("trades", "NEW") in session.acked
        session.want(topics)
        session.receive(ack(topics))
    assert min(cost) < 0.04  # seconds; twice that before there were sets of symbols


def _lists(topics: Iterable[Topic]) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    for kind, symbol in topics:
        lists.setdefault(kind, []).append(symbol)
    return lists


def test_what_is_renewed_is_given_back_and_asked_for_again() -> None:
    """Whatever else is subscribed stays; what is not subscribed is not asked for."""
    session = live(*trades("A", "B"))
    session.receive(ack(trades("A", "B")))
    assert session.renew(trades("B", "C")) == [Drop(trades("B"))]
    assert session.receive(ack(trades("A"))) == [Add(trades("B"))]
    assert session.receive(ack(trades("A", "B"))) == []
    assert (session.settled, session.parked) == (True, {})


def test_the_wildcard_may_be_too_much_where_a_symbol_is_not() -> None:
    """405 for it says nothing of the others."""
    session = live(*trades("*", "A"))
    assert session.receive(Refusal(405)) == [Add(trades("*"))]
    assert session.receive(Refusal(405)) == [Add(trades("A"))]
    assert session.parked == {("trades", "*"): 405}


def test_a_bad_symbol_is_parked_alone() -> None:
    """400 for a message is split until the culprit stands alone; its neighbours are served."""
    server = Server(limit=100, bad={"BAD"})
    wanted = trades(*(f"S{n}" for n in range(20)), "BAD", *(f"T{n}" for n in range(20)))
    session = live(*wanted)
    assert session.asked is not None
    converse(session, server, [session.asked])
    assert server.topics == set(wanted) - set(trades("BAD"))
    assert session.parked == {("trades", "BAD"): 400}


def test_a_symbol_that_alpaca_leaves_out_is_not_asked_for_ever() -> None:
    """An acknowledgement without the symbol parks it."""
    session = live(*trades("AAPL", "GONE"))
    assert session.receive(ack(trades("AAPL"))) == []
    assert session.parked == {("trades", "GONE"): 400}


def test_a_refusal_that_answers_nothing_ends_the_conversation() -> None:
    """405 without a question open is no answer to one."""
    session = live()
    with pytest.raises(UpstreamRefused):
        session.receive(Refusal(405))


def test_what_alpaca_keeps_is_not_given_back_for_ever() -> None:
    """An acknowledgement that still names what we dropped is believed once."""
    session = live(*trades("A"))
    session.receive(ack(trades("A")))
    assert session.want([]) == [Drop(trades("A"))]
    assert session.receive(ack(trades("A"))) == []
    assert session.settled


def test_a_kind_that_is_refused_is_refused_for_all() -> None:
    """410 concerns the channel: it is not split two thousand times."""
    session = live(*trades(*(f"S{n}" for n in range(2_000))))
    assert session.receive(Refusal(410)) == []
    assert set(session.parked.values()) == {410}
    assert len(session.parked) == 2_000


def test_of_several_kinds_only_the_refused_one_is_parked() -> None:
    """410 for a mixed message: each kind is asked for by itself, and the others are served."""
    server = Server(limit=100, without={"quotes"})
    session = live(*trades("A"), *quotes("A", "B"), *trades("B"), ("bars", "A"))
    assert session.asked is not None
    converse(session, server, [session.asked])
    assert server.topics == {*trades("A", "B"), ("bars", "A")}
    assert session.parked == dict.fromkeys(quotes("A", "B"), 410)


def test_no_wildcard_is_about_the_wildcard() -> None:
    """413 leaves the symbols that are named."""
    session = live(*quotes("*", "A"))
    assert session.receive(Refusal(413)) == [Add(quotes("A"))]
    assert session.parked == {("quotes", "*"): 413}


class Server:
    """Alpaca's side: a limit that counts symbols or topics, and what it does not take."""

    def __init__(
        self,
        limit: int,
        bad: Iterable[str] = (),
        *,
        without: Iterable[str] = (),
        counts_topics: bool = False,
        bars_are_free: bool = False,
        names_empty: bool = True,
    ) -> None:
        self.limit, self.bad, self.without = limit, set(bad), set(without)
        self.counts_topics, self.names_empty = counts_topics, names_empty
        self.bars_are_free = bars_are_free
        self.topics: set[Topic] = set()

    def answer(self, action: Action) -> Subscription | Refusal:
        """What Alpaca says to a question; a refusal leaves the list unchanged."""
        if isinstance(action, Drop):
            self.topics -= set(action.topics)
        elif isinstance(action, Add):
            if any(kind in self.without for kind, _ in action.topics):
                return Refusal(410)
            if ("quotes", "*") in action.topics:
                return Refusal(413)
            if any(symbol in self.bad for _, symbol in action.topics):
                return Refusal(400)
            if self.cost(self.topics | set(action.topics)) > self.limit:
                return Refusal(405)
            self.topics |= set(action.topics)
        if self.names_empty:
            return ack(sorted(self.topics))
        lists: dict[str, list[str]] = {}
        for kind, symbol in sorted(self.topics):
            lists.setdefault(kind, []).append(symbol)
        return Subscription(**lists)

    def cost(self, topics: set[Topic]) -> int:
        """How many places these take."""
        if self.bars_are_free:
            topics = {topic for topic in topics if topic[0] != "bars"}
        return len(topics) if self.counts_topics else len({symbol for _, symbol in topics})

    def takes(self, topic: Topic) -> bool:
        """Whether it would take this at all, if there were room."""
        kind, symbol = topic
        return kind not in self.without and symbol not in self.bad and topic != ("quotes", "*")


def converse(session: Session, server: Server, actions: list[Action]) -> None:
    """Let both talk until nothing is left to say."""
    for _ in range(1_000):
        if not actions:
            return
        (action,) = actions
        actions = session.receive(server.answer(action))
    raise AssertionError("they never come to an end")


LIMIT = 4
WISHES = [(kind, symbol) for kind in ("trades", "quotes", "bars") for symbol in "ABCDX*"]


class Convergence(RuleBasedStateMachine):
    """Wishes change at any moment, answers come late, links end: it converges all the same."""

    @initialize(
        counts_topics=booleans(),
        bars_are_free=booleans(),
        names_empty=booleans(),
        without=sampled_from(["", "bars"]),
    )
    def begin(
        self, counts_topics: bool, bars_are_free: bool, names_empty: bool, without: str
    ) -> None:
        self.server = Server(
            *(LIMIT, "X"),
            without={without},
            counts_topics=counts_topics,
            bars_are_free=bars_are_free,
            names_empty=names_empty,
        )
        self.wire: list[Action] = []
        self.session = Session()
        self.connect()

    def connect(self) -> None:
        """A new link: Alpaca remembers nothing of the one before."""
        self.server.topics = set()
        self.session = Session(self.session.desired)
        assert self.session.receive(WELCOME) == [SendAuth()]
        self.wire = self.session.receive(AUTHENTICATED)

    @rule(topics=lists(sampled_from(WISHES), unique=True))
    def want(self, topics: list[Topic]) -> None:
        self.wire += self.session.want(topics)

    @precondition(lambda self: self.wire)
    @rule()
    def server_answers(self) -> None:
        self.wire += self.session.receive(self.server.answer(self.wire.pop(0)))

    @rule()
    def the_link_ends(self) -> None:
        self.connect()

    @rule()
    def server_answers_everything(self) -> None:
        converse(self.session, self.server, self.wire)
        self.wire = []

    @invariant()
    def one_question_is_open_at_most(self) -> None:
        assert len(self.wire) <= 1
        assert (self.session.asked is None) == (not self.wire)

    @invariant()
    def quiet_means_converged(self) -> None:
        if self.wire:
            return
        session, server = self.session, self.server
        assert session.acked == server.topics <= set(session.desired)
        assert session.acked | session.parked.keys() == set(session.desired)
        for topic, code in session.parked.items():
            if server.takes(topic):  # then only the limit kept it out, and it still does
                assert code == 405
                assert server.cost(server.topics | {topic}) > LIMIT
            else:
                assert code in (400, 405, 410, 413)


TestConvergence = Convergence.TestCase
TestConvergence.settings = hypothesis_settings(max_examples=100, stateful_step_count=40)
