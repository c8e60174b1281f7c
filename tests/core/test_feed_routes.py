"""Which feed carries what, and what Alpaca is asked for where bots wish something."""

from __future__ import annotations

import pytest

from alpaca_broker.core.channels import HEARD_ON
from alpaca_broker.core.feeds import Feeds, Topic, Wanted, at_alpaca, family
from alpaca_broker.core.registration import Kind
from alpaca_broker.core.topics import Topics

OPTION = "AAPL251219C00150000"


@pytest.mark.parametrize(
    ("topic", "carrier"),
    [
        (("trades", "AAPL"), "stocks"),
        (("trades", "BRK.B"), "stocks"),
        (("trades", "*"), "stocks"),
        (("bars", "*"), "stocks"),
        (("trades", "BTC/USD"), "crypto"),
        (("quotes", "ETH/BTC"), "crypto"),
        (("orderbooks", "*"), "crypto"),
        (("orderbooks", "AAPL"), "stocks"),
        (("trades", "NO/SUCH/THING"), "stocks"),
        (("trades", OPTION), "options"),
        (("quotes", "F251219P00012500"), "options"),
        (("trades", "AAPL1251219C00150000"), "options"),
        (("trades", "AAPL251219X00150000"), "stocks"),
        (("news", "AAPL"), "news"),
        (("news", "BTC/USD"), "news"),
        (("news", "*"), "news"),
        (("newsContent", OPTION), "news"),
    ],
)
def test_the_kind_and_the_shape_say_which_feed(topic: Topic, carrier: str) -> None:
    """News by its kind, crypto by its slash, options by OCC's form, all else the stock feed."""
    assert family(*topic) == carrier
    assert Feeds().of(topic).family == carrier


@pytest.mark.parametrize(
    ("topic", "is_there"),
    [
        (("lulds", "AAPL"), True),
        (("orderbooks", "AAPL"), False),
        (("orderbooks", "BTC/USD"), True),
        (("lulds", "BTC/USD"), False),
        (("corrections", "BTC/USD"), False),
        (("quotes", OPTION), True),
        (("bars", OPTION), False),
        (("backfill", OPTION), True),
        (("news", OPTION), True),
    ],
)
def test_each_feed_has_its_own_kinds(topic: Topic, is_there: bool) -> None:
    """What it does not have, Alpaca would answer with 410."""
    assert Feeds().have(topic) is is_there


def test_the_test_feed_has_three_kinds() -> None:
    """And crypto beside it has all of its own."""
    feeds = Feeds("test")
    kinds = {kind for kind in HEARD_ON if feeds.have((kind, "FAKEPACA"))}
    assert kinds == {"trades", "quotes", "bars", "news", "newsContent"}
    assert feeds.have(("orderbooks", "BTC/USD"))


def test_every_kind_that_bots_may_name_is_heard_somewhere_and_had_by_some_feed() -> None:
    """None is known and nowhere served."""
    symbols = ["AAPL", "BTC/USD", OPTION, "*"]
    for kind in Kind.__args__:
        assert kind in HEARD_ON
        assert any(Feeds().have((kind, symbol)) for symbol in symbols)


def test_paths_and_names_are_those_of_the_settings() -> None:
    """Alpaca's paths; options alone speak MessagePack; the stock feed alone is always open."""
    feeds = Feeds("delayed_sip", "eu-1", "opra")
    assert [(feed.name, feed.path) for feed in feeds] == [
        ("delayed_sip", "/v2/delayed_sip"),
        ("crypto/eu-1", "/v1beta3/crypto/eu-1"),
        ("opra", "/v1beta1/opra"),
        ("news", "/v1beta1/news"),
    ]
    assert [feed.name for feed in feeds if feed.is_msgpack] == ["opra"]
    assert [feed.name for feed in feeds if not feed.on_demand] == ["delayed_sip"]


def test_what_alpaca_has_no_channel_for_is_asked_for_as_what_brings_it() -> None:
    """Corrections and backfill as trades, once; each feed gets its own, in order."""
    wishes = [
        *(("corrections", "AAPL"), ("trades", "BTC/USD"), ("backfill", "AAPL")),
        *(("trades", "AAPL"), ("quotes", "AAPL"), ("newsContent", "*"), ("news", "*")),
    ]
    assert Feeds().route(wishes) == {
        "iex": Wanted(
            (("trades", "AAPL"), ("quotes", "AAPL")),
            Topics({"corrections": ["AAPL"], "backfill": ["AAPL"]}),
            Topics({"trades": ["AAPL"], "quotes": ["AAPL"]}),
        ),
        "crypto/us": Wanted((("trades", "BTC/USD"),), sets=Topics({"trades": ["BTC/USD"]})),
        "news": Wanted((("news", "*"),), Topics({"newsContent": ["*"]}), Topics({"news": ["*"]})),
    }
    assert Feeds().route([]) == {}
    assert at_alpaca(("bars", "AAPL")) == ("bars", "AAPL")
