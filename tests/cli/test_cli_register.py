"""`register` and `unregister`: the contract's message, and the broker's answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from support import PATIENCE_S, Rig, closed_port

from alpaca_broker.cli.message_lines import accepted_lines, rejected_lines
from alpaca_broker.embedded import EmbeddedRedis


@pytest.mark.parametrize("action", ["register", "unregister"])
def test_nobody_listening_is_said(start: Any, server: EmbeddedRedis, action: str) -> None:
    """Without a broker the message goes nowhere: one line, exit code 1."""
    command = start(action, "AAPL", "--bot-id", "me", REDIS_PORT=str(server.port))
    assert command.code() == 1
    assert command.err == (
        f"alpaca-broker: no broker is listening on broker:registration at 127.0.0.1:{server.port}: "
        f"start one with `alpaca-broker run`\n"
    )


class Ear:
    """A broker that hears one registration, and says what the test has it say."""

    def __init__(self, bot: redis.Redis) -> None:
        self._bot = bot
        self._pubsub: Any = bot.pubsub(ignore_subscribe_messages=True)
        self._pubsub.subscribe("team:broker:registration")
        self._pubsub.get_message(timeout=PATIENCE_S)

    def hears(self) -> dict[str, Any]:
        """The message, once it is there."""
        message = self._pubsub.get_message(timeout=PATIENCE_S)
        assert message is not None
        heard: dict[str, Any] = json.loads(message["data"])
        return heard

    def says(self, channel: str, **answer: Any) -> None:
        """One answer."""
        usual = {"type": "registration", "status": "ok", "pending": False, "contract": 1}
        usual |= {"accepted": [], "rejected": [], "account_id": None, "last": {}, "epoch": 1}
        assert self._bot.publish(channel, json.dumps(usual | answer)) == 1


@pytest.fixture
def ear(bot: redis.Redis) -> Iterator[Ear]:
    """Where a broker would listen."""
    ear = Ear(bot)
    yield ear
    ear._pubsub.close()


def test_the_message_is_the_contract_s(start: Any, server: EmbeddedRedis, ear: Ear) -> None:
    """What is published has the contract's fields, on the prefixed channel."""
    command = start(
        *("register", "aapl,brk.b", "BTC/USD", "--bot-id", "me", "--account", "A1"),
        *("--ttl", "60", "--wait", "0"),
        REDIS_PORT=str(server.port),
        CHANNEL_PREFIX="team:",
    )
    assert ear.hears() == {
        "action": "register",
        "symbols": ["AAPL", "BRK.B", "BTC/USD"],
        "account_id": "A1",
        "bot_id": "me",
        "ttl": 60.0,
    }
    assert command.code() == 0
    assert command.out == "register AAPL, BRK.B, BTC/USD for me: 1 listener heard it\n"


def test_an_answer_that_does_not_come_is_a_failure(
    start: Any, server: EmbeddedRedis, bot: redis.Redis, ear: Ear
) -> None:
    """Somebody hears it, and says nothing of use in time: exit code 1, one line with advice."""
    command = start(
        *("unregister", "--bot-id", "me", "--wait", "1"),
        REDIS_PORT=str(server.port),
        CHANNEL_PREFIX="team:",
    )
    reply_to = ear.hears()["reply_to"]
    for rubbish in ("{", "[]", "7", "null"):
        bot.publish(reply_to, rubbish)
    assert command.code() == 1
    assert command.err == (
        "alpaca-broker: unregister everything for me: no broker answered within 1 s. "
        "`alpaca-broker watch --status` shows whether one leads\n"
    )


def test_an_answer_that_is_pending_is_waited_for(
    start: Any, server: EmbeddedRedis, ear: Ear
) -> None:
    """Alpaca is away for a moment: what is decided then counts, and the exit code with it."""
    command = start(
        *("register", "AAPL", "--bot-id", "me"),
        REDIS_PORT=str(server.port),
        CHANNEL_PREFIX="team:",
    )
    reply_to = ear.hears()["reply_to"]
    assert reply_to.startswith("team:reply:")
    ear.says(reply_to, pending=True)
    command.says("waits for Alpaca")
    refused = {"symbol": "AAPL", "code": 405, "reason": "the symbol limit of the plan is reached"}
    ear.says(reply_to, status="error", rejected=[refused])
    assert command.code() == 1
    assert command.err.splitlines()[1:] == [
        "AAPL: refused, the symbol limit of the plan is reached (405)"
    ]
    assert command.out == ""


def test_what_stays_pending_is_no_failure(start: Any, server: EmbeddedRedis, ear: Ear) -> None:
    """The broker keeps it: what is decided so far is told, and that the rest is not."""
    command = start(
        *("register", "AAPL", "BTC/USD", "--bot-id", "me", "--wait", "1"),
        REDIS_PORT=str(server.port),
        CHANNEL_PREFIX="team:",
    )
    reply_to = ear.hears()["reply_to"]
    ear.says(reply_to, pending=True)
    ear.says(reply_to, pending=True, accepted=["BTC/USD"])
    assert command.code() == 0
    assert command.out.splitlines() == [
        "BTC/USD: confirmed",
        "Alpaca is not connected, so the rest is not decided within 1 s: the broker keeps it and "
        "asks for it as soon as it can",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("register", "AAPL", "--bot-id", "me"), 0, ["AAPL: confirmed, last price P"]),
        (
            ("register", "AAPL", "NO/SUCH", "--bot-id", "me"),
            0,
            [
                "AAPL: confirmed, last price P",
                "NO/SUCH: refused, no such asset at Alpaca (unknown_symbol)",
            ],
        ),
        (
            ("register", "NO/SUCH", "--bot-id", "me"),
            1,
            ["NO/SUCH: refused, no such asset at Alpaca (unknown_symbol)"],
        ),
        (("register", "--account", "ACCOUNT"), 0, ["account ACCOUNT: its orders are followed"]),
        (
            ("register", "--account", "PA0", "--bot-id", "me"),
            1,
            [
                "account PA0: refused, not an account of this broker's: its orders cannot be "
                "followed here (unknown_account)"
            ],
        ),
        (("unregister", "AAPL", "--bot-id", "me"), 0, ["AAPL: taken back"]),
        (("unregister", "--bot-id", "me"), 0, ["unregister everything for me: done"]),
    ],
    ids=["confirmed", "partly", "refused", "account", "no account", "back", "all back"],
)
def test_the_broker_s_answer_is_told(
    rig: Rig, valkey: EmbeddedRedis, start: Any, arguments: tuple[str, ...], code: int, told: Any
) -> None:
    """Confirmed or refused, with the reason; exit code 1 where all of it was refused."""
    trade = {"T": "t", "S": "AAPL", "p": 12.5, "s": 1}
    rig.simulator.call(rig.simulator.simulator.emit, "iex", trade)
    (account,) = rig.broker.status().accounts
    command = start(
        *(word.replace("ACCOUNT", account) for word in arguments),
        REDIS_PORT=str(valkey.port),
        CHANNEL_PREFIX=rig.channels.prefix,
    )
    assert command.code() == code, command.err
    said = re.sub(r"(last price )\d+\.\d+", r"\1P", command.out + command.err)
    lines = said.replace(account, "ACCOUNT").splitlines()
    assert [line for line in lines if "waits for Alpaca" not in line] == told


def test_long_and_odd_answers_are_lines() -> None:
    """Twenty symbols have a line each; a terminal obeys none of what is said."""
    many = {"accepted": [f"S{n}" for n in range(25)], "last": {"S0": {"price": 1.5}}}
    lines = accepted_lines(many, taken_back=False)
    assert (lines[0], lines[1]) == ("S0: confirmed, last price 1.5", "S1: confirmed")
    assert (len(lines), lines[-1]) == (21, "and 5 more: confirmed")
    odd = {"rejected": [7, {}, {"symbol": "A\x1b[2J", "channel": "quotes", "code": 410}]}
    assert rejected_lines(odd) == [
        "the message: refused, ? (?)",
        "A?[2J quotes: refused, ? (410)",
    ]
    assert accepted_lines({"accepted": None, "last": 3}, taken_back=True) == []
    assert rejected_lines({"rejected": "x"}) == []


def test_unreachable_redis_is_advice(start: Any) -> None:
    """One line that says what to look at, exit code 1."""
    port = closed_port()
    command = start("register", "AAPL", "--bot-id", "me", REDIS_PORT=str(port))
    assert command.code() == 1
    assert command.err.startswith(f"alpaca-broker: Redis at 127.0.0.1:{port} cannot be reached: ")
    assert len(command.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("register", "AA PL"),
        ("register", "AAPL", "--bot-id", "not allowed"),
        ("register",),
        ("unregister", "AAPL"),
    ],
    ids=["symbol", "bot", "none", "whose"],
)
def test_what_the_broker_would_refuse_is_not_sent(start: Any, arguments: tuple[str, ...]) -> None:
    """A bad symbol or bot id, no symbol at all, or nobody's: exit code 2, without asking Redis."""
    command = start(*arguments, REDIS_PORT=str(closed_port()))
    assert command.code() == 2
    assert command.err.splitlines()[-1].startswith("alpaca-broker: ")
    assert "Traceback" not in command.err
