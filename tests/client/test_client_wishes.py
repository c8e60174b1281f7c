"""Registrations: what is said when, and what the answers mean."""

from __future__ import annotations

from typing import Any

from alpaca_broker.client.updates import Answer, Rejected
from alpaca_broker.client.wishes import Wishes
from alpaca_broker.core.messages import encode
from alpaca_broker.core.registration import parse


def wishes(*symbols: str, accounts: tuple[str, ...] = (), register: bool = True) -> Wishes:
    """The wishes of a bot that wants this."""
    made = Wishes("me", "reply:me", 30.0, register=register)
    made.want(frozenset(symbols), accounts)
    return made


def answer(asked: dict[str, Any], *refused: str, pending: bool = False) -> Answer:
    """The answer to a message."""
    return Answer(
        status="ok",
        request_id=asked["request_id"],
        pending=pending,
        accepted=[] if pending else [s for s in asked["symbols"] if s not in refused],
        rejected=[Rejected(symbol=s, code=405, reason="limit") for s in refused],
    )


def test_what_is_said_is_understood() -> None:
    """The broker's own reader takes every message."""
    mine = wishes("AAPL", "*", accounts=("one", "two"))
    said = [*mine.due(0.0), *mine.want(frozenset({"*"}), ()), *mine.farewell()]
    actions = [parse(encode(message)) for message in said]
    assert [a.action for a in actions] == ["register"] * 2 + ["unregister"] * 3
    assert (actions[0].symbols, actions[0].account_id) == (("*", "AAPL"), "one")
    assert (actions[0].ttl, actions[0].reply_to, actions[0].bot) == (30.0, "reply:me", "me")
    assert (actions[1].account_id, actions[1].bot) == ("two", "me.2")
    assert (actions[2].symbols, actions[2].everything) == (("AAPL",), False)
    assert (actions[3].bot, actions[3].everything) == ("me.2", True)
    assert (actions[4].bot, actions[4].everything) == ("me", True)


def test_the_lease_is_renewed_after_a_third() -> None:
    """Twice more before it would run out; at once after a reconnect or with another wish."""
    mine = wishes("AAPL")
    assert [bool(mine.due(at)) for at in (0.0, 5.0, 10.0, 15.0, 20.0)] == [1, 0, 1, 0, 1]
    mine.again()
    assert mine.due(20.1)
    mine.want(frozenset({"AAPL", "MSFT"}), ())
    assert mine.due(20.2)[0]["symbols"] == ["AAPL", "MSFT"]
    mine.nobody_listened(21.0)
    assert not mine.due(21.5)
    assert mine.due(22.0)


def test_answers_accept_and_refuse() -> None:
    """What is refused is told once, and forgotten when it is accepted after all."""
    mine = wishes("AAPL", "BAD")
    [asked] = mine.due(0.0)
    assert mine.take(answer(asked, pending=True)) == {}
    assert mine.accepted == set()
    part = Answer(status="ok", request_id=asked["request_id"], pending=True, accepted=["AAPL"])
    assert mine.take(part) == {}
    assert mine.accepted == {"AAPL"}
    assert mine.take(answer(asked, "BAD")) == {"BAD": "limit (405)"}
    assert mine.take(answer(asked, "BAD")) == {}
    assert (mine.accepted, mine.rejected) == ({"AAPL"}, {"BAD": "limit (405)"})
    mine.take(answer(asked))
    assert (mine.accepted, mine.rejected) == ({"AAPL", "BAD"}, {})
    assert mine.take(answer({"request_id": "other", "symbols": []}, "AAPL")) == {}


def test_a_refusal_without_symbol_refuses_all() -> None:
    """The message itself was not followed; an account that is not ours is named."""
    mine = wishes("AAPL", accounts=("acc",))
    [asked] = mine.due(0.0)
    refused = [Rejected(code="too_many", reason="no room")]
    whole = Answer(status="error", request_id=asked["request_id"], rejected=refused)
    assert mine.take(whole) == {"AAPL": "no room (too_many)"}
    refused = [Rejected(account_id="acc", code="unknown_account")]
    account = Answer(status="partial", request_id=asked["request_id"], rejected=refused)
    assert mine.take(account) == {"acc": "unknown_account"}


def test_a_refusal_of_another_kind_of_data_refuses_no_prices() -> None:
    """Whoever else registered under this name for quotes does not get them; trades still come."""
    mine = wishes("AAPL")
    [asked] = mine.due(0.0)
    refused = [Rejected(symbol="AAPL", channel="quotes", code=405)]
    answer = {"status": "partial", "request_id": asked["request_id"], "accepted": ["AAPL"]}
    assert mine.take(Answer(**answer, rejected=refused)) == {}
    assert mine.is_decided("AAPL", False, True, 0.0)
    assert mine.rejected == {}


def test_a_broker_without_answers_is_believed_when_it_is_live() -> None:
    """A price, or two seconds of a live broker; never while a broker that answers is thinking."""
    mine = wishes("AAPL")
    [asked] = mine.due(0.0)
    assert mine.is_decided("AAPL", True, False, 0.0)
    assert not mine.is_decided("AAPL", False, True, 1.9)
    assert mine.is_decided("AAPL", False, True, 2.0)
    assert not mine.is_decided("AAPL", False, False, 9.0)
    mine.take(answer(asked, pending=True))
    assert not mine.is_decided("AAPL", False, True, 9.0)
    mine.forget()
    assert not mine.is_decided("AAPL", False, True, 9.0)


def test_a_listener_registers_nothing() -> None:
    """With register=False nothing is ever said."""
    mine = wishes("AAPL", register=False)
    assert mine.due(0.0) == mine.want(frozenset(), ()) == mine.farewell() == []
    assert mine.is_decided("MSFT", False, True, 0.0)
