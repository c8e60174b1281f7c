"""The order stream's conversation: every message in every state, and no event lost in between."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alpaca_broker.core.trading_session import (
    Heard,
    NotUnderstood,
    SendListen,
    State,
    TradingSession,
)
from alpaca_broker.errors import RemoteProtocolError, UpstreamRefused, UpstreamUnavailable

AUTHORIZED = {
    "stream": "authorization",
    "data": {"status": "authorized", "action": "authenticate"},
}
UNAUTHORIZED = {"stream": "authorization", "data": {"status": "unauthorized", "action": "listen"}}
LISTENING = {"stream": "listening", "data": {"streams": ["trade_updates"]}}
DEAF = {"stream": "listening", "data": {"streams": []}}
EVENT = {"stream": "trade_updates", "data": {"event": "fill", "order": {"id": "o1"}}}
ENDS = {"action": "error", "data": {"error_message": "internal server error"}}
NULL = {"stream": "trade_updates", "data": None}
OTHER = {"stream": "account_updates", "data": {}}

TO = {
    State.AUTHENTICATING: [],
    State.ASKING: [AUTHORIZED],
    State.LISTENING: [AUTHORIZED, LISTENING],
}


def session(state: State) -> TradingSession:
    """A session in this state."""
    made = TradingSession("ws://place/stream")
    for message in TO[state]:
        made.receive(json.dumps(message))
    assert made.state is state
    return made


@pytest.mark.parametrize(
    ("state", "message", "action", "after"),
    [
        (State.AUTHENTICATING, AUTHORIZED, SendListen(), State.ASKING),
        (State.AUTHENTICATING, LISTENING, None, State.AUTHENTICATING),
        (State.ASKING, AUTHORIZED, None, State.ASKING),
        (State.ASKING, LISTENING, None, State.LISTENING),
        (State.LISTENING, AUTHORIZED, None, State.LISTENING),
        (State.LISTENING, LISTENING, None, State.LISTENING),
    ],
)
def test_answers(state: State, message: Any, action: object, after: State) -> None:
    """Authenticated, then listening; an answer that comes twice changes nothing."""
    made = session(state)
    assert made.receive(json.dumps(message)) == action
    assert made.state is after


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("binary", [False, True])
def test_an_event_counts_in_every_state(state: State, binary: bool) -> None:
    """Paper sends binary frames; an event may overtake the answer to listen."""
    text = json.dumps(EVENT)
    assert session(state).receive(text.encode() if binary else text) == Heard(EVENT["data"])  # type: ignore[arg-type]


@pytest.mark.parametrize("state", list(State))
def test_a_refusal_is_one_in_every_state(state: State) -> None:
    """Whenever Alpaca says unauthorized, with its words where it has some."""
    words = {"stream": "authorization", "data": {"status": "unauthorized", "message": "bad key"}}
    with pytest.raises(UpstreamRefused, match="unauthorized"):
        session(state).receive(json.dumps(UNAUTHORIZED))
    with pytest.raises(UpstreamRefused, match="bad key"):
        session(state).receive(json.dumps(words))


@pytest.mark.parametrize("state", list(State))
def test_the_stream_says_that_it_ends(state: State) -> None:
    """An error in the stream, with or without words (no `stream` key then)."""
    with pytest.raises(UpstreamUnavailable, match="internal server error"):
        session(state).receive(json.dumps(ENDS))
    with pytest.raises(UpstreamUnavailable, match="an error"):
        session(state).receive(b'{"action":"error","data":null}')


def test_no_order_events_for_this_key() -> None:
    """`listen` is answered without it: refused; later, it was taken from us: begin anew."""
    for state in (State.AUTHENTICATING, State.ASKING):
        with pytest.raises(UpstreamRefused, match="no order events"):
            session(state).receive(json.dumps(DEAF))
    with pytest.raises(RemoteProtocolError, match="while listening"):
        session(State.LISTENING).receive(json.dumps(DEAF))


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize(
    "frame",
    [
        *(json.dumps(NULL), json.dumps(OTHER), "[]", "null", '{"a"', b"\xff\xfe\x00", "[" * 10_000),
        '{"stream":["trade_updates"],"data":{}}',
    ],
)
def test_what_is_strange_is_said_and_changes_nothing(state: State, frame: str | bytes) -> None:
    """`data: null`, other streams, no object, no JSON, other bytes, nested too deep."""
    made = session(state)
    assert made.receive(frame) == NotUnderstood()
    assert made.state == state


def test_a_heartbeat_of_one_byte_is_nothing() -> None:
    """Seen by the JavaScript SDK."""
    made = session(State.LISTENING)
    assert made.receive(b"\x01") is None
