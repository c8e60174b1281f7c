"""The market-data conversation: every message in every state, and convergence under limits."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import lists, sampled_from

from alpaca_broker.core.session import Action, Add, Drop, SendAuth, Session, State
from alpaca_broker.core.wire import Refusal, Subscription, Success
from alpaca_broker.errors import RemoteProtocolError, UpstreamRefused

WELCOME, AUTHENTICATED = Success("connected"), Success("authenticated")
MESSAGES = [
    WELCOME,
    AUTHENTICATED,
    Success("something new"),
    Subscription(trades=["AAPL"]),
    *[Refusal(code) for code in (400, 401, 402, 404, 405, 406, 407, 409, 410, 500, 599)],
]
LEGAL = [
    (State.GREETING, WELCOME),
    (State.AUTHENTICATING, AUTHENTICATED),
    (State.LIVE, Subscription(trades=["AAPL"])),
]


def live(*symbols: str) -> Session:
    """A session that has been let in; what it asks first is unanswered."""
    session = Session(symbols)
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


def test_says_who_it_is_only_after_the_welcome() -> None:
    """The first thing said is the authentication, and nothing is asked before it is accepted."""
    session = Session(["AAPL"])
    assert session.want(["AAPL", "MSFT"]) == []
    assert session.receive(WELCOME) == [SendAuth()]
    assert session.receive(AUTHENTICATED) == [Add(("AAPL", "MSFT"))]


def test_one_question_at_a_time_and_drops_before_adds() -> None:
    """While a question is open nothing is asked; then what is surplus goes first."""
    session = live("AAPL")
    assert session.want(["MSFT"]) == []
    assert session.receive(Subscription(trades=["AAPL"])) == [Drop(("AAPL",))]
    assert session.receive(Subscription(trades=[])) == [Add(("MSFT",))]
    assert session.receive(Subscription(trades=["MSFT"])) == []
    assert session.settled


def test_large_sets_are_asked_for_in_parts() -> None:
    """No message holds more symbols than Alpaca takes, and all arrive in order."""
    symbols = [f"S{n}" for n in range(1_201)]
    session = Session(symbols)
    session.receive(WELCOME)
    asked: list[str] = []
    actions = session.receive(AUTHENTICATED)
    while actions:
        (action,) = actions
        assert isinstance(action, Add)
        assert len(action.symbols) <= 500
        asked += action.symbols
        actions = session.receive(Subscription(trades=list(asked)))
    assert asked == symbols


def test_a_symbol_limit_serves_whoever_came_first_and_parks_the_rest() -> None:
    """405 leaves what fits, in the order of registration, and is not asked again."""
    server = Server(limit=3)
    session = live("A", "B", "C", "D", "E")
    converse(session, server, [Add(("A", "B", "C", "D", "E"))])
    assert server.symbols == {"A", "B", "C"}
    assert session.parked == {"D": 405, "E": 405}
    converse(session, server, session.want(["B", "C", "D", "E"]))
    assert server.symbols == {"B", "C", "D"}
    assert session.parked == {"E": 405}


def test_a_bad_symbol_is_parked_alone() -> None:
    """400 for a message is split until the culprit stands alone; its neighbours are served."""
    server = Server(limit=100, bad={"BAD"})
    wanted = [*(f"S{n}" for n in range(20)), "BAD", *(f"T{n}" for n in range(20))]
    session = live(*wanted)
    assert session.asked is not None
    converse(session, server, [session.asked])
    assert server.symbols == set(wanted) - {"BAD"}
    assert session.parked == {"BAD": 400}


def test_a_symbol_that_alpaca_leaves_out_is_not_asked_for_ever() -> None:
    """An acknowledgement without the symbol parks it."""
    session = live("AAPL", "GONE")
    assert session.receive(Subscription(trades=["AAPL"])) == []
    assert session.parked == {"GONE": 400}


def test_a_refusal_that_answers_nothing_ends_the_conversation() -> None:
    """405 without a question open is no answer to one."""
    session = live()
    with pytest.raises(UpstreamRefused):
        session.receive(Refusal(405))


def test_what_alpaca_keeps_is_not_given_back_for_ever() -> None:
    """An acknowledgement that still names what we dropped is believed once."""
    session = live("A")
    session.receive(Subscription(trades=["A"]))
    assert session.want([]) == [Drop(("A",))]
    assert session.receive(Subscription(trades=["A"])) == []
    assert session.settled


def test_a_kind_that_is_refused_is_refused_for_all() -> None:
    """410 concerns the channel: it is not split two thousand times."""
    session = live(*(f"S{n}" for n in range(2_000)))
    assert session.receive(Refusal(410)) == []
    assert set(session.parked.values()) == {410}
    assert len(session.parked) == 2_000


class Server:
    """Alpaca's side of a conversation: a symbol limit, and symbols it does not take."""

    def __init__(self, limit: int, bad: set[str] | None = None) -> None:
        self.limit, self.bad = limit, bad or set()
        self.symbols: set[str] = set()

    def answer(self, action: Action) -> Subscription | Refusal:
        """What Alpaca says to a question; a refusal leaves the list unchanged."""
        if isinstance(action, Drop):
            self.symbols -= set(action.symbols)
        elif isinstance(action, Add):
            if self.bad & set(action.symbols):
                return Refusal(400)
            if len(self.symbols | set(action.symbols)) > self.limit:
                return Refusal(405)
            self.symbols |= set(action.symbols)
        return Subscription(trades=sorted(self.symbols))


def converse(session: Session, server: Server, actions: list[Action]) -> None:
    """Let both talk until nothing is left to say."""
    for _ in range(1_000):
        if not actions:
            return
        (action,) = actions
        actions = session.receive(server.answer(action))
    raise AssertionError("they never come to an end")


class Convergence(RuleBasedStateMachine):
    """Wishes change at any moment, answers come late: in the end Alpaca has what it can take."""

    @initialize()
    def connect(self) -> None:
        self.server = Server(limit=3, bad={"X"})
        self.session = live()
        self.wire: list[Action] = []

    @rule(symbols=lists(sampled_from("ABCDEX"), unique=True))
    def want(self, symbols: list[str]) -> None:
        self.wire += self.session.want(symbols)

    @rule()
    def server_answers(self) -> None:
        if self.wire:
            self.wire += self.session.receive(self.server.answer(self.wire.pop(0)))

    @invariant()
    def quiet_means_converged(self) -> None:
        assert len(self.wire) <= 1
        if not self.wire:
            wanted = [s for s in self.session.desired if s != "X"]
            assert len(self.server.symbols) == min(3, len(wanted))
            assert self.server.symbols <= set(wanted)
            assert self.session.acked == self.server.symbols


TestConvergence = Convergence.TestCase
TestConvergence.settings = hypothesis_settings(max_examples=100, stateful_step_count=30)
