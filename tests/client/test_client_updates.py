"""What a bot is handed: the ● fields are enough, and more does no harm."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpaca_broker.client import updates
from alpaca_broker.core import messages

PRICE = {"type": "price_update", "symbol": "AAPL", "price": 150.25, "timestamp": 1628107200}
ORDER = {
    "type": "order_update",
    "order_id": "id",
    "status": "filled",
    "filled_qty": 10,
    "filled_avg_price": 150.25,
    "side": "buy",
    "timestamp": 1628107300,
}


def dump(message: dict[str, Any]) -> bytes:
    """As somebody's JSON library writes it."""
    return json.dumps(message).encode()


def test_the_given_fields_are_enough() -> None:
    """The messages of the mission, to the letter, and as they were received."""
    price, order = updates.price(dump(PRICE)), updates.order(dump(ORDER))
    assert price is not None
    assert order is not None
    assert (price.symbol, price.price, price.timestamp, price.seq) == (
        "AAPL",
        150.25,
        1628107200,
        0,
    )
    assert (order.filled_qty, order.filled_avg_price) == (Decimal(10), Decimal("150.25"))
    assert (price.raw, order.raw) == (PRICE, ORDER)


@pytest.mark.parametrize("name", [*(PRICE | ORDER)])
def test_each_given_field_is_needed(name: str) -> None:
    """Without it, or with another type, a message is none."""
    for read, whole in ((updates.price, PRICE), (updates.order, ORDER)):
        if name in whole:
            without = {key: value for key, value in whole.items() if key != name}
            # The channel says what it is, so a missing type is forgiven; another one is not.
            assert (read(dump(without)) is None) == (name != "type")
            assert read(dump(whole | {name: ["x"]})) is None


def test_what_is_unknown_or_strange_is_tolerated() -> None:
    """New fields, and other fields of a new type, do not hide the price."""
    strange = {"new": {"deep": [1]}, "size": "many", "conditions": 7, "seq": None, "exchange": "V"}
    price = updates.price(dump(PRICE | strange))
    assert price is not None
    assert (price.price, price.size, price.seq, price.exchange) == (150.25, None, 0, "V")
    assert price.raw == PRICE | strange
    order = updates.order(dump(ORDER | {"qty": [], "legs": [{}], "filled_avg_price": None}))
    assert order is not None
    assert (order.qty, order.filled_avg_price) == (None, None)


@given(st.binary(max_size=200) | st.recursive(st.none(), st.lists).map(lambda v: dump({"a": v})))
def test_rubbish_is_none(payload: bytes) -> None:
    """Whatever bytes come: a value or None, never an error."""
    for read in (updates.price, updates.order, updates.status_or_gap, updates.answer):
        assert read(payload) is None


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (updates.PriceUpdate, messages.PriceUpdate),
        (updates.OrderUpdate, messages.OrderUpdate),
        (updates.Status, messages.Status),
        (updates.FeedStatus, messages.AccountStatus),
        (updates.BrokerGap, messages.Gap),
        (updates.Answer, messages.RegistrationAnswer),
        (updates.Rejected, messages.Rejected),
    ],
)
def test_every_field_of_the_broker_is_known(ours: type, theirs: type) -> None:
    """What the broker says can be read by its name; the tags are the same."""
    names = {f.encode_name for f in msgspec.structs.fields(theirs)}
    known = {f.encode_name for f in msgspec.structs.fields(ours)}
    assert names - known <= {"refused", "last", "contract", "account_id"}
    assert ours.__struct_config__.tag == theirs.__struct_config__.tag


def test_what_we_add_is_in_the_dict() -> None:
    """Skipped and repaired prices, snapshots and gaps show as such in dicts, too."""
    price, order = updates.price(dump(PRICE)), updates.order(dump(ORDER))
    assert price is not None
    assert order is not None
    price.skipped, price.repaired, order.snapshot = 2, True, True
    assert price.raw == PRICE | {"skipped": 2, "repaired": True}
    assert order.raw == ORDER | {"snapshot": True}
    gap = updates.Gap(reason="stale", symbols=("AAPL",), missed=2, began=1.0)
    assert gap.symbol == "AAPL"
    assert gap.raw["type"] == "gap"
    assert (gap.raw["from"], gap.raw["missed"], gap.raw["symbols"]) == (1.0, 2, ("AAPL",))
    assert updates.Gap(reason="broker gap", payload=b'{"type":"gap"}').raw == {"type": "gap"}


def test_the_brokers_own_messages_are_read() -> None:
    """As its types encode them."""
    feed = messages.FeedStatus(state="live", since=1.0, refused={"BAD": 405})
    status = messages.Status(
        epoch=7,
        leader="me",
        timestamp=1.0,
        state="live",
        feeds={"iex": feed},
        accounts={},
        bots=1,
    )
    heard = updates.status_or_gap(messages.encode(status))
    assert isinstance(heard, updates.Status)
    assert (heard.epoch, heard.feeds["iex"].state) == (7, "live")
    gap = messages.Gap(
        feed="iex", began=1.0, ended=2.0, symbols=["A"], reason="r", recovered=False, epoch=7
    )
    told = updates.status_or_gap(messages.encode(gap))
    assert isinstance(told, updates.BrokerGap)
    assert (told.began, told.ended, told.symbols) == (1.0, 2.0, ["A"])
