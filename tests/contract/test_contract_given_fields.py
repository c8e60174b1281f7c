"""A bot that knows only the ● fields, against a real broker and its servers.

What is read here is written with nothing of ours: channel names, fields and types are spelled out.
Numbers are compared as they stand in the message, digit by digit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
import redis
from support import PATIENCE_S, Rig, buy, eventually

from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread

Hear = Callable[[str], bytes]

PRICE = ("type", "symbol", "price", "timestamp")
ORDER = ("type", "order_id", "status", "filled_qty", "filled_avg_price", "side", "timestamp")


@pytest.fixture(scope="module")
def plain() -> Iterator[Rig]:
    """A broker under no prefix, for all tests here; its market is silent but for what they say."""
    with EmbeddedRedis() as valkey, SimulatorThread(SimulatorOptions(rate=0.001)) as simulator:
        with Rig(valkey, simulator) as running:
            yield running


@pytest.fixture
def hear(plain: Rig) -> Iterator[Callable[..., Hear]]:
    """Subscribes to a channel; what it gives waits for the next message that holds a text."""
    client = redis.Redis(port=plain.valkey.port)
    pubsub = client.pubsub(ignore_subscribe_messages=True)

    def subscribe(channel: str) -> Hear:
        pubsub.subscribe(channel)
        pubsub.get_message(timeout=PATIENCE_S)

        def following(text: str) -> bytes:
            while (message := pubsub.get_message(timeout=PATIENCE_S)) is not None:
                if text.encode() in message["data"]:
                    return bytes(message["data"])
            raise AssertionError(f"nothing with {text} came on {channel}")

        return following

    yield subscribe
    pubsub.close()
    client.close()


def say(rig: Rig, message: dict[str, Any]) -> None:
    """A registration with ● fields only."""
    with redis.Redis(port=rig.valkey.port) as client:
        eventually(lambda: client.publish("broker:registration", json.dumps(message)))


def digits(payload: bytes, field: str) -> str:
    """A number as it stands in the message."""
    found = re.search(rb'"%b":(-?[0-9.eE+-]+|null)[,}]' % field.encode(), payload)
    assert found is not None, payload
    return found.group(1).decode()


def trade(rig: Rig, symbol: str, price: str) -> None:
    """A print with exactly these digits."""
    frame = (
        f'[{{"T":"t","S":"{symbol}","p":{price},"s":1,"i":1,"x":"V","c":["@"],"z":"C",'
        '"t":"2021-08-04T20:00:00Z"}]'
    )
    rig.simulator.call(rig.simulator.simulator.emit_raw, "iex", frame.encode())


@pytest.mark.parametrize(
    "price", ["150.25", "0.1", "1234567.89", "0.00000123", "99999.999", "67250.123456789", "150"]
)
def test_a_price_update(plain: Rig, hear: Any, price: str) -> None:
    """{"type": "price_update", "symbol": "AAPL", "price": 150.25, "timestamp": 1628107200}"""
    say(plain, {"action": "register", "symbols": ["AAPL"], "account_id": "somebody"})
    eventually(lambda: "AAPL" in plain.broker.symbols)
    prices = hear("price:AAPL")
    trade(plain, "AAPL", price)
    payload = prices("1628107200")
    message = json.loads(payload)
    kinds = {field: type(message[field]) for field in PRICE}
    assert kinds == {"type": str, "symbol": str, "price": float, "timestamp": float}
    assert (message["type"], message["symbol"]) == ("price_update", "AAPL")
    assert (message["price"], message["timestamp"]) == (float(price), 1628107200)
    assert Decimal(digits(payload, "price")) == Decimal(price)  # every digit, and no other


@pytest.mark.parametrize(("qty", "limit"), [("10", "1000.25"), ("0.123456789", "1000.1")])
def test_an_order_update(plain: Rig, hear: Any, qty: str, limit: str) -> None:
    """{"type": "order_update", "order_id": "…", "status": "filled", "filled_qty": 10, …}"""
    (account_id,) = plain.broker.status().accounts
    say(plain, {"action": "register", "symbols": [], "account_id": account_id})
    orders = hear(f"order:{account_id}")
    order = buy(plain.simulator.url, qty=qty, type="limit", limit_price=limit)  # type: ignore[arg-type]
    new, filled = orders('"event":"new"'), orders('"event":"fill"')
    for payload, status in ((new, "new"), (filled, "filled")):
        message = json.loads(payload)
        assert set(ORDER) <= set(message)
        assert message["type"] == "order_update"
        assert (message["order_id"], message["status"]) == (order["id"], status)
        assert message["side"] == "buy"
        assert type(message["timestamp"]) is float
    assert (digits(new, "filled_qty"), digits(new, "filled_avg_price")) == ("0", "null")
    assert digits(filled, "filled_qty") == qty
    told = plain.simulator.call(plain.simulator.simulator.ledger, account_id)[-1]["order"]
    assert digits(filled, "filled_avg_price") == told["filled_avg_price"]
    assert digits(filled, "limit_price") == told["limit_price"]


def test_both_ways_to_take_a_symbol_back(plain: Rig) -> None:
    """{"action": "unregister", …} with the symbols, and without any."""
    wish = {"action": "register", "symbols": ["IBM", "TSLA", "SPY"], "account_id": "another"}
    say(plain, wish)
    eventually(lambda: {"IBM", "TSLA", "SPY"} <= plain.broker.symbols)
    say(plain, wish | {"action": "unregister", "symbols": ["TSLA"]})
    eventually(lambda: "TSLA" not in plain.broker.symbols)
    assert {"IBM", "SPY"} <= plain.broker.symbols
    say(plain, {"action": "unregister", "symbols": [], "account_id": "another"})
    eventually(lambda: not {"IBM", "SPY"} & plain.broker.symbols)


def test_log_records_come_on_their_channel(plain: Rig, hear: Any) -> None:
    """broker:logs, as JSON objects."""
    logs = hear("broker:logs")
    say(plain, {"action": "register", "symbols": ["GOOGL"], "account_id": "talker"})
    assert "GOOGL" in json.loads(logs("talker registered"))["message"]


def test_what_is_kept_is_what_was_said(plain: Rig, hear: Any) -> None:
    """`price:last`, the journal and the open orders hold messages, to the byte."""
    (account_id,) = plain.broker.status().accounts
    say(plain, {"action": "register", "symbols": ["MSFT"], "account_id": account_id})
    eventually(lambda: "MSFT" in plain.broker.symbols)
    prices = hear("price:MSFT")
    trade(plain, "MSFT", "231.17")
    price = prices("231.17")
    orders = hear(f"order:{account_id}")
    far = buy(plain.simulator.url, type="limit", limit_price="0.10")
    new = orders(far["id"])
    with redis.Redis(port=plain.valkey.port) as client:
        eventually(lambda: client.hget("price:last", "MSFT") == price)
        seq = json.loads(new)["seq"]
        ((_, entry),) = client.xrange(f"journal:order:{account_id}", f"{seq}-0", f"{seq}-0")
        assert entry[b"data"] == new
        assert client.hget(f"orders:open:{account_id}", far["id"]) == new
