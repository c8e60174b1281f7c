"""Accounts: their names, their variables, and what can be told of keys by looking at them."""

from __future__ import annotations

import pytest

from alpaca_broker.core.accounts import (
    LIVE,
    PAPER,
    Environment,
    KeyPair,
    account_names,
    named_accounts,
)
from alpaca_broker.errors import ConfigError

SWING = {"SWING_ALPACA_API_KEY_ID": "PKS", "SWING_ALPACA_API_SECRET_KEY": "s3cret"}


def test_names_are_read_as_people_write_them() -> None:
    """Blanks and a comma too many do not matter."""
    assert account_names(" swing, Scalp_2 ,") == ("swing", "Scalp_2")
    assert account_names("") == ()


@pytest.mark.parametrize(
    "text", ["a b", "2nd", "swing,SWING", "paper", "Live", "a-b", "x" * 33, "a;b", "ä"]
)
def test_what_can_be_no_name_is_refused(text: str) -> None:
    """Names begin variables; paper and live have theirs; each stands there once."""
    with pytest.raises(ValueError, match=r"name|variables"):
        account_names(text)


def test_a_named_account_has_variables_of_its_own() -> None:
    """Paper unless told otherwise."""
    (pair,) = named_accounts(("swing",), SWING, "here")
    assert (pair.label, pair.environment, pair.key_id) == ("swing", "paper", "PKS")
    live = SWING | {"SWING_ALPACA_ENVIRONMENT": "LIVE"}
    assert named_accounts(("swing",), live, "here")[0].environment == "live"


def test_every_variable_that_is_missing_or_wrong_is_named() -> None:
    """All at once, without a value."""
    with pytest.raises(ConfigError) as caught:
        named_accounts(("swing", "scalp"), SWING | {"SWING_ALPACA_ENVIRONMENT": "s3cret"}, "here")
    text = str(caught.value)
    assert "SWING_ALPACA_ENVIRONMENT must be paper or live" in text
    assert "SCALP_ALPACA_API_KEY_ID is missing" in text
    assert "SCALP_ALPACA_API_SECRET_KEY is missing" in text
    assert "s3cret" not in text


@pytest.mark.parametrize(
    ("environment", "key_id", "name", "said"),
    [
        ("paper", "PK1", "", None),
        ("live", "AK1", "", None),
        ("paper", "CK1", "", None),
        ("paper", "AK1", "", "PAPER_ALPACA_API_KEY_ID begins with AK"),
        ("live", "PK1", "", " and ".join(PAPER)),
        ("paper", "AK1", "swing", "but SWING_ALPACA_ENVIRONMENT is paper"),
    ],
)
def test_a_key_that_looks_like_the_other_kind_is_told(
    environment: Environment, key_id: str, name: str, said: str | None
) -> None:
    """By what its id begins with; whether it is right only Alpaca can say."""
    variables = PAPER if environment == "paper" else LIVE
    doubt = KeyPair(environment, key_id, "s3cret", name, variables).doubt
    assert doubt is None if said is None else said in (doubt or "")
    assert key_id not in (doubt or "")


def test_no_secret_in_what_is_shown() -> None:
    """Neither in the repr nor in the advice."""
    pair = KeyPair("paper", "AKVERY", "s3cret")
    assert not {"AKVERY", "s3cret"} & set(f"{pair!r} {pair.advice}".replace("'", " ").split())
