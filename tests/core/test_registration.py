"""Registration messages: what is taken, what is refused, and what the refusal says."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpaca_broker.core.registration import BadRegistration, Limits, Registration, parse


def read(**message: Any) -> Registration:
    """Parse a message given as fields."""
    return parse(json.dumps(message).encode())


def test_the_contracts_own_message_is_understood() -> None:
    """The literal message of the contract registers for the account's bot."""
    found = parse(
        b'{"action": "register", "symbols": ["AAPL", "MSFT", "GOOGL"],'
        b' "account_id": "your_alpaca_account_id"}'
    )
    assert found.symbols == ("AAPL", "MSFT", "GOOGL")
    assert (found.bot, found.account_id) == ("your_alpaca_account_id",) * 2
    assert found.channels == ("trades",)
    assert found.rejected == ()


def test_bot_id_stands_before_account_id_and_nobody_is_the_pool() -> None:
    """Who asks: `bot_id`, else `account_id`, else the shared pool."""
    assert read(action="register", symbols=["A"], bot_id="b", account_id="a").bot == "b"
    assert read(action="register", symbols=["A"], account_id="a").bot == "a"
    assert read(action="register", symbols=["A"]).bot == ""


@pytest.mark.parametrize("symbol", ["AAPL", "BRK.B", "BTC/USD", "AAPL251219C00150000", "*"])
def test_alpacas_spellings_are_taken(symbol: str) -> None:
    """Stocks, classes, crypto pairs, options, and the wildcard."""
    assert read(action="register", symbols=[symbol]).symbols == (symbol,)


@pytest.mark.parametrize(
    "symbol",
    ["", " ", "aapl", "price:*", "AA\nPL", "A" * 33, "A PL", "ÄPFEL", "A*", "\x00", "\ud800"],
)
def test_a_bad_symbol_is_set_aside_and_its_neighbour_stands(symbol: str) -> None:
    """Each has a code and a reason, and none reaches a channel name."""
    if symbol == "\ud800":
        payload = b'{"action":"register","symbols":["\\ud800","MSFT"]}'
        with pytest.raises(BadRegistration):
            parse(payload)
        return
    found = read(action="register", symbols=[symbol, "MSFT"])
    assert found.symbols == ("MSFT",)
    (rejected,) = found.rejected
    assert rejected.code == "bad_symbol"
    assert rejected.reason


def test_lower_case_is_told_the_right_spelling() -> None:
    """The reason names what to write."""
    (rejected,) = read(action="register", symbols=["aapl"]).rejected
    assert rejected.reason == "symbols are upper case: AAPL"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"hello", "not a JSON object"),
        (b"[1]", "Expected `object`"),
        (b'{"action":"buy","symbols":["A"]}', "$.action"),
        (b'{"symbols":["A"]}', "action"),
        (b'{"action":"register","symbols":"AAPL"}', "$.symbols"),
        (b'{"action":"register","symbols":[1]}', "$.symbols"),
        (b'{"action":"register","symbols":[]}', "no symbol"),
        (b'{"action":"register"}', "no symbol"),
        (b'{"action":"register","symbols":["A"],"bot_id":"a b"}', "$.bot_id"),
        (b'{"action":"register","symbols":["A"],"bot_id":"a\\n"}', "$.bot_id"),
        (b'{"action":"register","symbols":["A"],"ttl":1}', "$.ttl"),
        (b'{"action":"register","symbols":["A"],"channels":["ticks"]}', "$.channels"),
        (b"\xff\xfe", "not a JSON object"),
        (b"[" * 100_000, "Expected `object`"),
        (b'{"a":' * 100_000, "not a JSON object"),
    ],
)
def test_a_bad_message_is_refused_with_what_to_change(payload: bytes, reason: str) -> None:
    """The text names the field."""
    with pytest.raises(BadRegistration, match=re.escape(reason)):
        parse(payload)


def test_too_large_and_too_many_are_refused_before_they_cost_anything() -> None:
    """Both limits are arguments."""
    with pytest.raises(BadRegistration, match="at most 10 are taken"):
        parse(b'{"action":"register"}', Limits(bytes=10))
    with pytest.raises(BadRegistration, match="at most 2 in one message"):
        parse(b'{"action":"register","symbols":["A","B","C"]}', Limits(symbols=2))


def test_unregister_without_symbols_means_everything() -> None:
    """An empty list and no list are the same."""
    assert read(action="unregister", symbols=[], bot_id="b").everything
    assert read(action="unregister", bot_id="b").everything
    assert not read(action="unregister", symbols=["A"], bot_id="b").everything
    assert not read(action="unregister", symbols=["bad one"], bot_id="b").everything


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["action", "symbols", "account_id", "bot_id", "ttl", "channels"]),
                inner,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_either_a_registration_or_a_refusal(payload: bytes) -> None:
    """Nothing else is ever raised."""
    with suppress(BadRegistration):
        assert isinstance(parse(payload), Registration)
