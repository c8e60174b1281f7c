"""The registrar: what bots say, what is then wanted, and what they are told."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from alpaca_broker.bus.registrar import Registrar, Rules
from alpaca_broker.core.answers import FeedView
from alpaca_broker.core.channels import PRICE
from alpaca_broker.core.feeds import Feeds, Topic
from alpaca_broker.core.registration import Limits
from alpaca_broker.core.topics import Topics


class Office:
    """A registrar with everything that it tells collected."""

    def __init__(self, **rules: Any) -> None:
        given = {"linger_s": 0.0, "verify": False} | rules
        self.wanted: list[tuple[str, ...]] = []  # whose trades
        self.topics: tuple[Topic, ...] = ()  # what else, as it is now
        self.registrar = Registrar(
            self._changed,
            rules=Rules(**given),
            feeds=Feeds(),
            account=lambda name: {"acc": "acc", "PA1": "acc"}.get(name),
        )
        self.registrar.epoch = 7
        self.hears(now=0.0)

    def _changed(self, topics: tuple[Topic, ...], accounts: frozenset[str]) -> None:
        self.topics = topics
        self.wanted.append(tuple(symbol for kind, symbol in topics if kind == "trades"))

    def hears(self, *symbols: str, now: float = 0.0, channel: str = PRICE) -> None:
        """Redis says who listens."""
        self.registrar.listened(frozenset((channel, symbol) for symbol in symbols), now)

    def says(self, now: float = 0.0, **message: Any) -> None:
        """A message arrives."""
        self.registrar.hear(json.dumps(message).encode(), now)
        if self.registrar.unsettled:
            self.registrar.settle(now)

    def view(
        self,
        *ready: str,
        live: bool = True,
        refused: dict[str, int] | None = None,
        kind: str = "trades",
        feed: str = "iex",
        gone: str | None = None,
    ) -> None:
        """A feed tells what it has."""
        prices = {"AAPL": b'{"price":1.5}'}
        topics = Topics({kind: ready})
        codes = {(kind, symbol): code for symbol, code in (refused or {}).items()}
        self.registrar.view(FeedView(feed, live, topics, codes, prices.get, gone))

    def settle(self, now: float = 0.0) -> None:
        """As the desk does it soon after."""
        self.registrar.settle(now)

    def told(self) -> list[dict[str, Any]]:
        """The answers since the last look, as they are sent."""
        from alpaca_broker.core.messages import encode

        replies, self.registrar.replies = self.registrar.replies, []
        return [json.loads(encode(reply.answer)) | {"to": reply.channel} for reply in replies]


ASK = {"action": "register", "bot_id": "b", "reply_to": "r", "request_id": "q1"}


def test_an_answer_comes_once_alpaca_has_confirmed() -> None:
    """Not before; with the last prices, the account's id and what was echoed."""
    office = Office()
    office.view()
    office.says(**ASK, symbols=["AAPL"], account_id="PA1")
    assert office.told() == []
    office.view("AAPL")
    (answer,) = office.told()
    assert answer == {
        "type": "registration",
        "request_id": "q1",
        "status": "ok",
        "pending": False,
        "accepted": ["AAPL"],
        "rejected": [],
        "account_id": "acc",
        "last": {"AAPL": {"price": 1.5}},
        "epoch": 7,
        "contract": 1,
        "to": "r",
    }
    office.view("AAPL")
    assert office.told() == []


def test_without_alpaca_there_are_two_answers() -> None:
    """One at once that says pending, and one when it is decided."""
    office = Office()
    office.says(**ASK, symbols=["AAPL"])
    (first,) = office.told()
    assert (first["pending"], first["status"]) == (True, "ok")
    office.view("OTHER", live=False)
    assert office.told() == []
    office.view("AAPL")
    (second,) = office.told()
    assert (second["pending"], second["accepted"]) == (False, ["AAPL"])


def test_nothing_is_confirmed_before_it_is_in_force() -> None:
    """One settling serves many messages: their answers wait for it."""
    office = Office()
    office.view("AAPL")
    office.registrar.hear(json.dumps(ASK | {"symbols": [], "account_id": "PA1"}).encode(), 0.0)
    office.registrar.hear(json.dumps(ASK | {"symbols": ["AAPL"]}).encode(), 0.0)
    assert office.told() == []
    office.settle()
    assert [answer["status"] for answer in office.told()] == ["ok", "ok"]
    assert office.wanted[-1] == ("AAPL",)


def test_refused_symbols_have_a_code_and_a_reason() -> None:
    """Alpaca's refusals, bad names and unknown accounts; the rest is accepted."""
    office = Office()
    office.says(**ASK, symbols=["AAPL", "MSFT", "aapl"], account_id="stranger")
    office.told()
    office.view("AAPL", refused={"MSFT": 405})
    (answer,) = office.told()
    assert (answer["status"], answer["accepted"], answer["account_id"]) == (
        "partial",
        ["AAPL"],
        None,
    )
    codes = {(r.get("symbol"), r.get("account_id"), r["code"]) for r in answer["rejected"]}
    assert codes == {
        ("MSFT", None, 405),
        ("aapl", None, "bad_symbol"),
        (None, "stranger", "unknown_account"),
    }
    assert all(r["reason"] for r in answer["rejected"])


def test_nothing_accepted_is_an_error() -> None:
    """All symbols refused."""
    office = Office()
    office.view(refused={"MSFT": 400})
    office.says(**ASK, symbols=["MSFT"])
    assert [a["status"] for a in office.told()] == ["error"]


def test_what_a_feed_does_not_have_is_said_at_once() -> None:
    """Each kind of each symbol, before Alpaca is asked; what it has is still decided there."""
    office = Office()
    office.view("AAPL")
    office.says(**ASK, symbols=["AAPL"], channels=["orderbooks"])
    (answer,) = office.told()
    assert (answer["status"], answer["accepted"]) == ("error", [])
    (why,) = answer["rejected"]
    assert (why["symbol"], why["channel"], why["code"]) == ("AAPL", "orderbooks", 410)
    assert office.topics == ()
    office.says(**ASK, symbols=["AAPL", "BTC/USD"], channels=["trades", "orderbooks", "lulds"])
    office.told()
    assert office.topics == (
        *(("trades", "AAPL"), ("lulds", "AAPL")),
        *(("trades", "BTC/USD"), ("orderbooks", "BTC/USD")),
    )


def test_a_symbol_is_decided_when_all_of_its_kinds_are() -> None:
    """By each feed for its own; corrections and backfill are there when trades are."""
    office = Office()
    for feed in ("iex", "crypto/us"):
        office.view(feed=feed)
    kinds = ["trades", "corrections", "backfill"]
    office.says(**ASK, symbols=["AAPL"], channels=kinds)
    office.says(**ASK | {"request_id": "q2"}, symbols=["BTC/USD"], channels=["orderbooks"])
    assert office.told() == []
    office.view("AAPL")
    (first,) = office.told()
    assert (first["status"], first["accepted"]) == ("ok", ["AAPL"])
    office.view(refused={"BTC/USD": 405}, kind="orderbooks", feed="crypto/us")
    (second,) = office.told()
    (why,) = second["rejected"]
    assert (second["status"], second["accepted"]) == ("error", [])
    assert (why["symbol"], why["channel"], why["code"]) == ("BTC/USD", "orderbooks", 405)


def test_a_symbol_with_one_kind_refused_is_accepted_and_named() -> None:
    """Partial: its trades come, its quotes do not."""
    office = Office()
    office.view()
    office.says(**ASK, symbols=["AAPL"], channels=["trades", "quotes"])
    view = FeedView(
        *("iex", True, Topics({"trades": ["AAPL"]})),
        *({("quotes", "AAPL"): 405}, lambda symbol: None),
    )
    office.registrar.view(view)
    (answer,) = office.told()
    assert (answer["status"], answer["accepted"]) == ("partial", ["AAPL"])
    assert [(r["symbol"], r["channel"]) for r in answer["rejected"]] == [("AAPL", "quotes")]


def test_what_waits_for_one_feed_does_not_hide_what_another_has_decided() -> None:
    """Crypto is down: the stock is accepted, with its price, and the coin is still to come."""
    office = Office()
    office.view()
    office.says(**ASK, symbols=["AAPL", "BTC/USD"])
    (first,) = office.told()
    assert (first["pending"], first["accepted"], first["last"]) == (True, [], {})
    office.view("AAPL")
    (second,) = office.told()
    assert (second["pending"], second["accepted"]) == (True, ["AAPL"])
    assert second["last"]["AAPL"]["price"] == 1.5
    office.view("AAPL", "MSFT")
    assert office.told() == []
    office.view("BTC/USD", feed="crypto/us")
    (last,) = office.told()
    assert (last["pending"], last["accepted"]) == (False, ["AAPL", "BTC/USD"])


def test_nobody_is_told_to_wait_for_a_feed_that_is_gone() -> None:
    """Refused for good is decided; what is still open is at a feed that is connected."""
    office = Office()
    office.view()
    office.view(live=False, feed="indicative", gone="409: insufficient subscription")
    office.says(**ASK, symbols=["AAPL", "AAPL251219C00150000"])
    assert office.told() == []


def test_a_feed_that_is_not_in_the_plan_is_an_answer() -> None:
    """Nobody waits for ever for one that Alpaca refuses for good; the stock feed goes on."""
    office = Office()
    office.view("AAPL")
    option = "AAPL251219C00150000"
    office.says(**ASK, symbols=["AAPL", option])
    assert [a["pending"] for a in office.told()] == [True]
    office.view(live=False, feed="indicative", gone="409: insufficient subscription")
    (answer,) = office.told()
    assert (answer["status"], answer["accepted"]) == ("partial", ["AAPL"])
    (why,) = answer["rejected"]
    assert (why["symbol"], why["code"]) == (option, "feed_refused")
    assert "insufficient subscription" in why["reason"]


def test_content_is_a_wish_beside_news() -> None:
    """It goes with its news, and is in no answer of its own."""
    office = Office()
    office.view(feed="news")
    office.says(**ASK, symbols=["*"], channels=["news"], content=True)
    assert office.topics == (("news", "*"), ("newsContent", "*"))
    office.view(refused={"*": 413}, kind="news", feed="news")
    (answer,) = office.told()
    assert [(r["symbol"], r["channel"]) for r in answer["rejected"]] == [("*", "news")]
    office.says(action="unregister", bot_id="b", symbols=["*"], channels=["news"])
    assert office.topics == ()


def test_only_what_the_assets_know_is_looked_up() -> None:
    """Stocks and crypto; no options, no news, no wildcard."""
    office = Office(verify=True)
    names = ["AAPL", "BTC/USD", "AAPL251219C00150000", "*"]
    office.says(action="register", bot_id="b", symbols=names)
    office.says(action="register", bot_id="c", symbols=["TSLA"], channels=["news"])
    assert [q.doubtful for q in office.registrar.unverified] == [("AAPL", "BTC/USD")]


def test_listening_brings_trades_only_and_keeps_whatever_was_registered() -> None:
    """A subscriber of `quote:` gets none by that; it keeps those of another's wish."""
    office = Office()
    office.hears("AAPL", channel="quote:")
    assert office.topics == ()
    office.says(action="register", bot_id="b", symbols=["AAPL"], channels=["quotes", "bars"])
    office.says(action="unregister", bot_id="b")
    assert office.topics == (("quotes", "AAPL"),)


def test_only_bad_names_or_a_strange_account_is_an_error() -> None:
    """Nothing of it was followed."""
    office = Office()
    office.view()
    office.says(**ASK, symbols=["bad one"])
    office.says(**ASK, symbols=[], account_id="stranger")
    assert [a["status"] for a in office.told()] == ["error", "error"]


@pytest.mark.parametrize(
    "message",
    [
        {"action": "unregister", "symbols": ["AAPL"], "reply_to": "r", "request_id": "q"},
        {"action": "buy", "reply_to": "r", "request_id": "q"},
        {"action": "register", "symbols": "AAPL", "reply_to": "r", "request_id": "q"},
        {"action": "register", "symbols": [], "reply_to": "r", "request_id": "q"},
    ],
)
def test_a_bad_message_is_answered_where_it_can_be(message: dict[str, Any]) -> None:
    """An error with the reason; nothing is changed."""
    office = Office()
    office.says(**message)
    (answer,) = office.told()
    assert (answer["to"], answer["status"], answer["request_id"]) == ("r", "error", "q")
    assert answer["rejected"][0]["code"] == "bad_message"
    assert office.wanted == []


@pytest.mark.parametrize(
    "reply_to", ["price:AAPL", "order:x", "broker:status", "p:price:AAPL", "\n"]
)
def test_an_answer_cannot_forge_what_the_broker_says(reply_to: str) -> None:
    """The broker's own channels are no address."""
    office = Office()
    office.says(**(ASK | {"reply_to": reply_to}), symbols=["AAPL"])
    assert office.told() == []
    assert office.wanted == []


def test_an_unknown_asset_is_taken_back_and_told() -> None:
    """Its neighbours stay; the answer waits for the look-up."""
    office = Office(verify=True)
    office.view("AAPL", "AAPLL")
    office.says(**ASK, symbols=["AAPL", "AAPLL"])
    assert office.told() == []
    (question,) = office.registrar.unverified
    office.registrar.verified(question, frozenset({"AAPLL"}))
    office.settle()
    (answer,) = office.told()
    assert answer["accepted"] == ["AAPL"]
    assert answer["rejected"][0]["code"] == "unknown_symbol"
    assert office.wanted[-1] == ("AAPL",)


def test_listening_is_enough_and_ending_it_is_too() -> None:
    """A subscriber without a registration gets prices, for as long as it listens and a linger."""
    office = Office(linger_s=5.0)
    office.hears("MSFT", now=0.0)
    assert office.wanted[-1] == ("MSFT",)
    office.hears(now=1.0)
    office.hears(now=5.9)
    assert office.wanted[-1] == ("MSFT",)
    office.hears(now=6.0)
    assert office.wanted[-1] == ()


def test_a_symbol_that_somebody_listens_to_cannot_be_cut_off() -> None:
    """Even where listening alone brings nothing."""
    office = Office(discover=False)
    office.says(action="register", symbols=["AAPL"], bot_id="b")
    office.hears("AAPL", "IBM", now=0.0)
    office.says(action="unregister", bot_id="b")
    assert office.wanted[-1] == ("AAPL",)
    office.hears(now=1.0)
    assert office.wanted[-1] == ()


def test_a_bot_without_a_lease_to_whom_nobody_listens_is_forgotten() -> None:
    """After a while; who listens, has a lease or follows orders is not."""
    office = Office(idle_s=600.0, discover=False)
    office.says(action="register", symbols=["A"], bot_id="gone")
    office.says(action="register", symbols=["B"], bot_id="listener")
    office.says(action="register", symbols=["C"], account_id="acc")
    office.says(action="register", symbols=["D"], bot_id="leased", ttl=86_400)
    office.hears("B", now=500.0)
    office.hears("B", now=600.0)
    assert office.wanted[-1] == ("B", "D")
    assert office.registrar.registry.account_names() == {"acc"}
    assert {"gone", "acc"} <= office.registrar.changed


def test_a_flood_is_the_flooders_own_trouble(caplog: pytest.LogCaptureFixture) -> None:
    """Over its allowance a bot's messages change nothing; others' do; later it may speak again."""
    office = Office(messages_per_second=10.0)
    for n in range(100):
        office.says(action="register", symbols=[f"S{n}"], bot_id="flood")
    assert len(office.wanted[-1]) == 20
    office.says(action="register", symbols=["OK"], bot_id="calm")
    assert "OK" in office.wanted[-1]
    office.says(1.0, action="register", symbols=["LATER"], bot_id="flood")
    assert "LATER" in office.wanted[-1]
    assert "over 10 messages/s" in caplog.text


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_many_registrations_at_once_are_one_line(
    caplog: pytest.LogCaptureFixture, level: int
) -> None:
    """The first as if it were alone; each of them at DEBUG; what changes nothing is not counted."""
    caplog.set_level(level, "alpaca_broker.bus.registrar")
    office = Office()
    wishes = [{"action": "register", "symbols": ["A", f"S{n}"]} for n in range(500)]
    for n, wish in enumerate([*wishes, wishes[0], {"action": "unregister", "symbols": ["A"]}]):
        message = wish | {"bot_id": f"bot{n % 500}"}
        office.registrar.hear(json.dumps(message).encode(), 0.0)
    office.settle()
    office.says(action="unregister", symbols=[], bot_id="bot7")
    office.settle()
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    assert told == [
        "bot0 registered A, S0 (and 500 more messages, of 1001 symbols in all)",
        "bot7 unregistered everything",
    ]
    more = [r.getMessage() for r in caplog.records if r.levelno == logging.DEBUG]
    assert (len(more) == 500) is (level == logging.DEBUG)
    assert more[:1] + more[-1:] == ["bot1 registered A, S1", "bot1 unregistered A"][: len(more)]


def test_many_forgotten_bots_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Whom nobody has heard for a while."""
    caplog.set_level(logging.INFO, "alpaca_broker.bus.registrar")
    office = Office(idle_s=10.0)
    for n in range(50):
        office.says(action="register", symbols=["A"], bot_id=f"bot{n}")
    caplog.clear()
    office.hears(now=20.0)
    (record,) = caplog.records
    assert "bot9 and 40 more" in record.getMessage()
    assert office.wanted[-1] == ()


def test_limits_are_rules(caplog: pytest.LogCaptureFixture) -> None:
    """Bytes and symbols of a message, symbols of a bot."""
    office = Office(limits=Limits(bytes=120, symbols=2), symbols_per_bot=3)
    office.says(action="register", symbols=["A", "B", "C"], bot_id="b")
    office.says(action="register", symbols=["A" * 200], bot_id="b")
    office.says(action="register", symbols=["A", "B"], bot_id="b")
    office.says(action="register", symbols=["C", "D"], bot_id="b")
    assert office.wanted == [("A", "B")]


def test_wishes_are_handed_on_only_when_they_change() -> None:
    """Renewing a lease is no news."""
    office = Office()
    for _ in range(3):
        office.says(action="register", symbols=["A"], bot_id="x", ttl=10)
    office.registrar.expire(11.0)
    office.settle(11.0)
    assert office.wanted == [("A",), ()]


def test_what_is_kept_is_taken_up_again() -> None:
    """Symbols in their order, the account, the lease on the wall's clock; the bot's word wins."""
    first = Office()
    first.says(0.0, action="register", symbols=["B", "A"], bot_id="x", ttl=100)
    first.says(0.0, action="register", symbols=["C"], account_id="acc")
    kept = {bot: first.registrar.registry.saved(bot, 1_000.0) for bot in ("x", "acc", "nobody")}
    assert kept["nobody"] is None
    second = Office()
    second.says(50.0, action="register", symbols=["Z"], bot_id="acc")
    for bot in ("x", "acc"):
        saved = kept[bot]
        assert saved is not None
        second.registrar.registry.restore(bot, saved, 50.0, 1_000.0)
    assert second.registrar.registry.topics() == tuple(("trades", symbol) for symbol in "ZBAC")
    assert second.registrar.registry.expire(99.9) == []
    assert second.registrar.registry.expire(100.0) == ["x"]


@pytest.mark.parametrize("payload", [b"", b"\x00", b"[" * 10_000, b"9" * 2_000_000])
def test_rubbish_is_survived(payload: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """One line, no exception, no change."""
    office = Office()
    office.registrar.hear(payload, 0.0)
    assert len(office.registrar.registry) == 0
    assert "a registration was not understood" in caplog.text
    assert max(len(record.getMessage()) for record in caplog.records) < 500
