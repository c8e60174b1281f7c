"""The registry: the union of what bots want, derived and never counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpaca_broker.core.registration import BadRegistration, parse
from alpaca_broker.core.registry import Registry


def said(registry: Registry, now: float = 0.0, **message: Any) -> Registry:
    """Apply a message given as fields."""
    registry.apply(parse(json.dumps(message).encode()), now)
    return registry


def test_nobody_takes_away_what_another_wants() -> None:
    """A symbol stays as long as one bot wants it."""
    registry = Registry()
    said(registry, action="register", symbols=["AAPL", "MSFT"], bot_id="a")
    said(registry, action="register", symbols=["AAPL"], bot_id="b")
    said(registry, action="unregister", symbols=["AAPL", "MSFT"], bot_id="a")
    assert registry.symbols() == ("AAPL",)
    said(registry, action="unregister", bot_id="stranger")
    assert registry.symbols() == ("AAPL",)


def test_registering_twice_is_registering_once() -> None:
    """Idempotent, whichever way round."""
    registry = Registry()
    for _ in range(3):
        said(registry, action="register", symbols=["AAPL"], bot_id="a")
    said(registry, action="unregister", symbols=["AAPL"], bot_id="a")
    said(registry, action="unregister", symbols=["AAPL"], bot_id="a")
    assert registry.symbols() == ()
    assert len(registry) == 0


def test_whoever_asked_first_comes_first() -> None:
    """The order of symbols is the order of the first registration of each."""
    registry = Registry()
    said(registry, action="register", symbols=["X"], bot_id="a")
    said(registry, action="register", symbols=["Y"], bot_id="b")
    said(registry, action="register", symbols=["Z", "X"], bot_id="a")
    said(registry, action="register", symbols=["X"], bot_id="c")
    assert registry.symbols() == ("X", "Y", "Z")


def test_the_pools_unregister_is_ignored() -> None:
    """A bot without a name cannot empty what all nameless bots share."""
    registry = Registry()
    said(registry, action="register", symbols=["AAPL"])
    said(registry, action="unregister", symbols=["AAPL"])
    said(registry, action="unregister")
    assert registry.symbols() == ("AAPL",)


def test_a_lease_that_is_not_renewed_runs_out() -> None:
    """With a ttl the bot is forgotten; renewed in time it is not; without one it stays."""
    registry = Registry()
    said(registry, 0.0, action="register", symbols=["A"], bot_id="a", ttl=10)
    said(registry, 0.0, action="register", symbols=["B"], bot_id="b", ttl=10)
    said(registry, 0.0, action="register", symbols=["C"], bot_id="c")
    said(registry, 9.0, action="register", symbols=["B"], bot_id="b", ttl=10)
    assert registry.expire(10.0) == ["a"]
    assert registry.symbols() == ("B", "C")
    assert registry.expire(19.0) == ["b"]


def test_a_bot_that_follows_orders_only_is_kept() -> None:
    """Without symbols it is still there, under the account it named."""
    registry = Registry()
    said(registry, action="register", symbols=[], account_id="acc")
    assert registry.account_names() == {"acc"}
    assert len(registry) == 1
    said(registry, action="register", symbols=["A"], account_id="acc")
    said(registry, action="unregister", symbols=["A"], account_id="acc")
    assert registry.account_names() == {"acc"}
    said(registry, action="unregister", account_id="acc")
    assert len(registry) == 0


def test_other_kinds_of_data_are_not_taken_for_trades() -> None:
    """A wish for quotes alone subscribes no trades."""
    registry = said(Registry(), action="register", symbols=["A"], bot_id="a", channels=["quotes"])
    assert registry.symbols() == ()


def test_unregistering_another_kind_takes_no_trades_away() -> None:
    """And registering only for it makes no bot."""
    registry = said(Registry(), action="register", symbols=["A"], bot_id="a")
    said(registry, action="unregister", symbols=["A"], bot_id="a", channels=["quotes"])
    said(registry, action="register", symbols=["A"], bot_id="b", channels=["quotes"])
    assert (registry.symbols(), len(registry)) == (("A",), 1)


def test_its_bounds_hold_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bot too many, and one symbol too many, are refused; what stood stands."""
    monkeypatch.setattr("alpaca_broker.core.registry.MOST_BOTS", 2)
    registry = Registry(most_symbols=2)
    for bot in "ab":
        said(registry, action="register", symbols=["A", "B"], bot_id=bot)
    with pytest.raises(BadRegistration, match="no room for another"):
        said(registry, action="register", symbols=["C"], bot_id="c")
    with pytest.raises(BadRegistration, match="more than 2 symbols"):
        said(registry, action="register", symbols=["C"], bot_id="a")
    said(registry, action="register", symbols=["B"], bot_id="a")
    assert (registry.symbols(), len(registry)) == (("A", "B"), 2)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["register", "unregister"]),
            st.sampled_from("abc"),
            st.lists(st.sampled_from("UVWXYZ"), max_size=3),
        )
    )
)
def test_the_union_is_what_a_plain_model_says(steps: list[tuple[str, str, list[str]]]) -> None:
    """Against sets per bot, whatever is said in whatever order."""
    registry, model = Registry(), dict[str, set[str]]()
    for action, bot, symbols in steps:
        if action == "register" and not symbols:
            continue
        said(registry, action=action, symbols=symbols, bot_id=bot)
        if action == "register":
            model.setdefault(bot, set()).update(symbols)
        else:
            model[bot] = model.get(bot, set()) - set(symbols) if symbols else set()
    assert set(registry.symbols()) == set().union(*model.values())
