"""The registry: the union of what bots want, derived and never counted."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpaca_broker.core.demand import Demand
from alpaca_broker.core.registration import BadRegistration, parse
from alpaca_broker.core.registry import Registry, Saved


def said(registry: Registry, now: float = 0.0, **message: Any) -> Registry:
    """Apply a message given as fields."""
    registry.apply(parse(json.dumps(message).encode()), now)
    return registry


def symbols(registry: Registry, kind: str = "trades") -> tuple[str, ...]:
    """Whose data of a kind is wanted."""
    return tuple(symbol for found, symbol in registry.topics() if found == kind)


def test_nobody_takes_away_what_another_wants() -> None:
    """A symbol stays as long as one bot wants it."""
    registry = Registry()
    said(registry, action="register", symbols=["AAPL", "MSFT"], bot_id="a")
    said(registry, action="register", symbols=["AAPL"], bot_id="b")
    said(registry, action="unregister", symbols=["AAPL", "MSFT"], bot_id="a")
    assert symbols(registry) == ("AAPL",)
    said(registry, action="unregister", bot_id="stranger")
    assert symbols(registry) == ("AAPL",)


def test_registering_twice_is_registering_once() -> None:
    """Idempotent, whichever way round."""
    registry = Registry()
    for _ in range(3):
        said(registry, action="register", symbols=["AAPL"], bot_id="a")
    said(registry, action="unregister", symbols=["AAPL"], bot_id="a")
    said(registry, action="unregister", symbols=["AAPL"], bot_id="a")
    assert symbols(registry) == ()
    assert len(registry) == 0


def test_whoever_asked_first_comes_first() -> None:
    """The order of symbols is the order of the first registration of each."""
    registry = Registry()
    said(registry, action="register", symbols=["X"], bot_id="a")
    said(registry, action="register", symbols=["Y"], bot_id="b")
    said(registry, action="register", symbols=["Z", "X"], bot_id="a")
    said(registry, action="register", symbols=["X"], bot_id="c")
    assert symbols(registry) == ("X", "Y", "Z")


def test_the_pools_unregister_is_ignored() -> None:
    """A bot without a name cannot empty what all nameless bots share."""
    registry = Registry()
    said(registry, action="register", symbols=["AAPL"])
    said(registry, action="unregister", symbols=["AAPL"])
    said(registry, action="unregister")
    assert symbols(registry) == ("AAPL",)


def test_a_lease_that_is_not_renewed_runs_out() -> None:
    """With a ttl the bot is forgotten; renewed in time it is not; without one it stays."""
    registry = Registry()
    said(registry, 0.0, action="register", symbols=["A"], bot_id="a", ttl=10)
    said(registry, 0.0, action="register", symbols=["B"], bot_id="b", ttl=10)
    said(registry, 0.0, action="register", symbols=["C"], bot_id="c")
    said(registry, 9.0, action="register", symbols=["B"], bot_id="b", ttl=10)
    assert registry.expire(10.0) == ["a"]
    assert symbols(registry) == ("B", "C")
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
    assert symbols(registry) == ()


def test_each_kind_of_each_symbol_is_a_wish_of_its_own() -> None:
    """In the order of symbols, then kinds; each goes by itself, or with its bot."""
    kinds = ["trades", "quotes", "dailyBars"]
    registry = said(Registry(), action="register", symbols=["A", "B"], bot_id="a", channels=kinds)
    assert registry.topics() == tuple((kind, symbol) for symbol in "AB" for kind in kinds)
    said(registry, action="unregister", symbols=["A"], bot_id="a", channels=["quotes"])
    said(registry, action="unregister", symbols=["B"], bot_id="a")  # trades, as in `register`
    assert symbols(registry) == ("A",)
    assert symbols(registry, "quotes") == ("B",)
    said(registry, action="unregister", bot_id="a", channels=["dailyBars", "trades"])
    assert registry.topics() == (("quotes", "B"),)
    said(registry, action="unregister", bot_id="a")
    assert (registry.topics(), len(registry)) == ((), 0)


def test_taking_all_of_a_kind_leaves_the_orders() -> None:
    """Only without kinds and symbols is the account let go."""
    registry = said(Registry(), action="register", symbols=["A"], account_id="acc")
    said(registry, action="unregister", account_id="acc", channels=["trades"])
    assert (registry.topics(), registry.account_names()) == ((), {"acc"})


def test_what_was_kept_before_there_were_kinds_is_trades() -> None:
    """An old wish is read as it was meant; one of a kind that nobody knows is left out."""
    old = msgspec.json.decode(b'{"symbols":{"B":2,"A":1},"account_id":null}', type=Saved)
    new = msgspec.json.decode(
        b'{"symbols":{},"channels":{"quotes":{"C":3},"smells":{"D":4}}}', type=Saved
    )
    registry = Registry()
    registry.restore("old", old, 0.0, 0.0)
    registry.restore("new", new, 0.0, 0.0)
    assert registry.topics() == (("trades", "A"), ("trades", "B"), ("quotes", "C"))
    kept = registry.saved("new", 0.0)
    assert kept is not None
    assert msgspec.json.decode(msgspec.json.encode(kept), type=Saved).topics() == {
        ("quotes", "C"): 3
    }


def test_whoever_listens_to_any_of_its_channels_keeps_its_wish() -> None:
    """Heard on `bar:` is heard; heard on another symbol's, or kind's, is not."""
    registry = Registry()
    for bot, kind in (("a", "dailyBars"), ("b", "quotes")):
        said(registry, action="register", symbols=["A"], bot_id=bot, channels=[kind])
    heard = {("bar:", "A"), ("quote:", "B"), ("price:", "A")}
    assert registry.forget_unheard(heard, 600.0, 600.0) == ["b"]


def test_the_wildcard_is_heard_on_the_channel_of_any_of_its_symbols() -> None:
    """Of its kind and its feed; news alone have a channel for it."""
    registry = Registry()
    for bot, kind in (("a", "trades"), ("b", "quotes"), ("c", "orderbooks"), ("d", "news")):
        said(registry, action="register", symbols=["*"], bot_id=bot, channels=[kind])
    heard = {("price:", "AAPL"), ("quote:", "BTC/USD"), ("orderbook:", "BTC/USD")}
    heard |= {("news:", "AAPL")}
    assert registry.forget_unheard(heard, 600.0, 600.0) == ["b", "d"]
    demand = Demand(linger_s=5.0, discover=False)
    demand.settle([("trades", "*"), ("quotes", "*")], heard, 0.0)
    demand.settle([], heard, 10.0)
    assert demand.settle([], heard, 20.0) == (("trades", "*"),)


def test_what_is_no_asset_goes_but_for_its_news() -> None:
    """The list of assets says nothing of what news are about."""
    registry = said(
        Registry(), action="register", symbols=["A", "B"], bot_id="a", channels=["trades", "news"]
    )
    registry.take("a", {"A"})
    assert registry.topics() == (("news", "A"), ("trades", "B"), ("news", "B"))


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
    assert (symbols(registry), len(registry)) == (("A", "B"), 2)


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
    for action, bot, names in steps:
        if action == "register" and not names:
            continue
        said(registry, action=action, symbols=names, bot_id=bot)
        if action == "register":
            model.setdefault(bot, set()).update(names)
        else:
            model[bot] = model.get(bot, set()) - set(names) if names else set()
    assert set(symbols(registry)) == set().union(*model.values())
