"""Order events: Alpaca's strings become the contract's numbers, and the same event is the same."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from alpaca_broker.core.messages import OrderUpdate, encode
from alpaca_broker.core.orders import bot_of, dedupe_key, is_open, order_event


def payload(event: str = "fill", **changes: Any) -> dict[str, Any]:
    """A `trade_updates` payload; `order__x` changes the order's `x`."""
    order = {
        "id": "61e69015",
        "client_order_id": "momentum.42",
        "symbol": "AAPL",
        "side": "buy",
        "status": "filled",
        "filled_qty": "10",
        "filled_avg_price": "150.2500",
        "qty": "10",
        "notional": None,
        "order_type": "limit",
        "type": "limit",
        "order_class": "",
        "limit_price": "150.30",
        "stop_price": None,
        "time_in_force": "day",
    }
    data: dict[str, Any] = {
        "event": event,
        "timestamp": "2021-08-04T21:35:00.5Z",
        "event_id": "01F",
        "execution_id": "e1",
        "price": "150.25",
        "qty": "10",
        "position_qty": "-10",
        "order": order,
    }
    for name, value in changes.items():
        target = order if name.startswith("order__") else data
        target[name.removeprefix("order__")] = value
    return data


def update(data: dict[str, Any]) -> OrderUpdate:
    """The update of a payload that has one."""
    found = order_event(data, account_id="acc", environment="paper", received_at=5.0)
    assert found is not None
    return found.update


def test_a_fill_has_every_field_of_the_contract() -> None:
    """Numbers are JSON numbers with Alpaca's digits; the ● fields keep their types."""
    message = json.loads(encode(update(payload())), parse_float=Decimal)
    expected = {
        "type": "order_update",
        "order_id": "61e69015",
        "status": "filled",
        "filled_qty": 10,
        "filled_avg_price": Decimal("150.2500"),
        "side": "buy",
        "timestamp": Decimal("1628112900.5"),
        "event": "fill",
        "symbol": "AAPL",
        "client_order_id": "momentum.42",
        "account_id": "acc",
        "environment": "paper",
        "order_type": "limit",
        "order_class": None,
        "qty": 10,
        "notional": None,
        "limit_price": Decimal("150.30"),
        "stop_price": None,
        "time_in_force": "day",
        "execution_price": Decimal("150.25"),
        "execution_qty": 10,
        "execution_id": "e1",
        "position_qty": -10,
        "bot_id": "momentum",
        "received_at": 5.0,
        "seq": 0,
        "journal_id": "",
        "epoch": 0,
        "source": "stream",
    }
    assert message == expected
    assert b'"filled_avg_price":150.2500' in encode(update(payload()))


def test_nothing_filled_is_zero_and_null() -> None:
    """A new order: quantity 0, no average price, no execution."""
    new = update(payload("new", order__filled_qty="0", order__filled_avg_price=None))
    assert (new.filled_qty, new.filled_avg_price) == (0, None)
    assert (new.execution_price, new.execution_qty, new.execution_id) == (None, None, None)


@pytest.mark.parametrize("missing", ["timestamp", "event_id", "execution_id", "price", "qty"])
def test_an_event_that_lacks_a_field_is_still_an_event(missing: str) -> None:
    """It may be a fill: only the id, the status and the event's name are needed."""
    data = payload()
    del data[missing]
    assert update(data).order_id == "61e69015"


@pytest.mark.parametrize("order", [None, "x", {}, {"id": 1, "status": "new"}, {"id": "1"}])
def test_what_names_no_order_is_none(order: object) -> None:
    """So that it is complained about instead of passed on."""
    data = payload() | {"order": order}
    assert order_event(data, account_id="a", environment="paper", received_at=0.0) is None


def test_a_fill_is_the_same_from_whichever_source() -> None:
    """Fills are told apart by order and cumulative quantity, not by an id that REST lacks."""
    one = update(payload(order__filled_qty="10"))
    other = update(payload("partial_fill", order__filled_qty="10.000", event_id="other"))
    assert dedupe_key(one, "01F") == dedupe_key(other, "other")
    long, other_long = (update(payload(order__filled_qty="1" * 35 + d)) for d in "12")
    assert dedupe_key(long, None) != dedupe_key(other_long, None)
    blank = update(payload(order__filled_qty=None))
    assert dedupe_key(blank, "1") != dedupe_key(blank, "2")
    more = update(payload("partial_fill", order__filled_qty="11"))
    assert dedupe_key(one, None) != dedupe_key(more, None)


def test_other_events_are_told_apart_by_their_id_or_by_what_they_say() -> None:
    """With and without an `event_id`."""
    one, two = update(payload("canceled")), update(payload("new"))
    assert dedupe_key(one, "1") != dedupe_key(one, "2")
    assert dedupe_key(one, None) == dedupe_key(update(payload("canceled")), None)
    assert dedupe_key(one, None) != dedupe_key(two, None)


@pytest.mark.parametrize(
    ("client_order_id", "bot"),
    [
        ("momentum.42", "momentum"),
        ("a.b.c", "a"),
        ("plain", None),
        (".x", None),
        ("x.", None),
        ("a b.c", None),
        (None, None),
        ("", None),
    ],
)
def test_the_bot_is_read_from_the_client_order_id(
    client_order_id: str | None, bot: str | None
) -> None:
    """`BOT.rest`, else nobody's."""
    assert bot_of(client_order_id) == bot


@pytest.mark.parametrize("status", ["new", "partially_filled", "held", "done_for_day", "accepted"])
def test_an_order_that_can_change_is_open(status: str) -> None:
    """done_for_day resumes the next day."""
    assert is_open(update(payload(order__status=status)))


@pytest.mark.parametrize("status", ["filled", "canceled", "expired", "replaced", "rejected"])
def test_an_order_that_cannot_change_is_closed(status: str) -> None:
    """So it leaves the open orders."""
    assert not is_open(update(payload(order__status=status)))
