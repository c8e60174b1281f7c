"""`register` and `unregister`: the contract's message, and who heard it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from support import PATIENCE_S, closed_port

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


def test_the_message_is_the_contract_s(start: Any, server: EmbeddedRedis, bot: redis.Redis) -> None:
    """What is published has the contract's fields, on the prefixed channel."""
    with bot.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("team:broker:registration")
        pubsub.get_message(timeout=PATIENCE_S)
        command = start(
            *("register", "aapl,brk.b", "BTC/USD", "--bot-id", "me", "--account", "A1"),
            *("--ttl", "60"),
            REDIS_PORT=str(server.port),
            CHANNEL_PREFIX="team:",
        )
        assert command.code() == 0
        message = pubsub.get_message(timeout=PATIENCE_S)
    assert message is not None
    assert json.loads(message["data"]) == {
        "action": "register",
        "symbols": ["AAPL", "BRK.B", "BTC/USD"],
        "account_id": "A1",
        "bot_id": "me",
        "ttl": 60.0,
    }
    assert command.out == "register AAPL, BRK.B, BTC/USD for me: 1 listener heard it\n"


def test_unreachable_redis_is_advice(start: Any) -> None:
    """One line that says what to look at, exit code 1."""
    port = closed_port()
    command = start("register", "AAPL", "--bot-id", "me", REDIS_PORT=str(port))
    assert command.code() == 1
    assert command.err.startswith(f"alpaca-broker: Redis at 127.0.0.1:{port} cannot be reached: ")
    assert len(command.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [("AA PL",), ("AAPL", "--bot-id", "not allowed"), ()],
    ids=["symbol", "bot", "none"],
)
def test_what_the_broker_would_refuse_is_not_sent(start: Any, arguments: tuple[str, ...]) -> None:
    """A bad symbol or bot id, or no symbol at all: exit code 2, without asking Redis."""
    command = start("register", *arguments, REDIS_PORT=str(closed_port()))
    assert command.code() == 2
    assert command.err.splitlines()[-1].startswith("alpaca-broker: ")
    assert "Traceback" not in command.err
