"""docs/contract.md against the code: its messages are real, its names and numbers are ours."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from contract_schema import DOCS, TAGS, Validator, load_generator

from alpaca_broker.core import registration
from alpaca_broker.core.answers import REASONS, UNKNOWN
from alpaca_broker.core.channels import HEARD_ON, MARKET_DATA, Channels
from alpaca_broker.core.messages import FeedState
from alpaca_broker.core.registry import MOST_BOTS
from alpaca_broker.settings import Settings

PAGE = (DOCS / "contract.md").read_text()
MESSAGES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
GENERATOR = load_generator()

GIVEN = {
    "Registration": {"action", "symbols", "account_id"},
    "PriceUpdate": {"type", "symbol", "price", "timestamp"},
    "OrderUpdate": {
        *("type", "order_id", "status", "filled_qty", "filled_avg_price", "side", "timestamp"),
    },
}


def name_of(message: dict[str, Any]) -> str:
    """The schema that a message belongs to."""
    return TAGS[message["type"]] if "type" in message else "Registration"


def test_the_page_shows_every_kind_of_message() -> None:
    """One of each at least."""
    assert {name_of(m) for m in MESSAGES} == {"Registration", *TAGS.values()}


@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
def test_each_message_is_what_the_code_encodes(message: dict[str, Any]) -> None:
    """Decoded by the types strictly, valid by the schema, without a field too many."""
    name, data = name_of(message), json.dumps(message).encode()
    msgspec.json.decode(data, type=GENERATOR.TYPES[name])
    schemas = GENERATOR.schemas()
    assert Validator(schemas).problem(name, message) is None
    assert set(message) <= set(schemas[name]["properties"])
    if name == "Registration":
        assert registration.parse(data).rejected == ()


@pytest.mark.parametrize("name", GIVEN)
def test_given_fields_are_marked(name: str) -> None:
    """● stands beside those that may never change, and beside no other."""
    table = PAGE.split(f"`{name}` in [asyncapi.yaml]")[1].split("\n\n")[1]
    assert set(re.findall(r"^\| `(\w+)` \| ● \|", table, re.MULTILINE)) == GIVEN[name]


def test_every_channel_and_key_is_named() -> None:
    """What `Channels` spells is on the page, and in asyncapi.yaml what bots use."""
    names = Channels()
    spelled = {v for v in vars(names).values() if v}
    spelled |= {names.price("SYMBOL"), names.order("ACCOUNT_ID"), names.journal("ACCOUNT_ID")}
    spelled |= {names.open_orders("ACCOUNT_ID")}
    spelled |= {names.market_data(kind, "SYMBOL") for kind in MARKET_DATA}
    assert {name for name in spelled if f"`{name}`" not in PAGE} == set()
    document = GENERATOR.document()
    machines = {channel["address"] for channel in document["channels"].values()}
    machines |= set(document["x-redis-keys"])
    spelled -= {names.registry, names.epoch, names.received}  # the broker's own
    spelled -= {names.leader, names.deployment}
    for name in spelled:
        assert name.replace("SYMBOL", "{symbol}").replace("ACCOUNT_ID", "{account_id}") in machines


def test_every_code_and_state_is_explained() -> None:
    """Those of answers and those of feeds."""
    codes = {"bad_message", "bad_symbol", "unknown_account", "feed_refused", "more"}
    for word in {*codes, str(UNKNOWN.code), *map(str, REASONS), *FeedState.__args__}:
        assert re.search(rf"^\|.*`{word}`.*\|", PAGE, re.MULTILINE), word


def test_every_kind_of_data_is_named() -> None:
    """On the page, and with a channel on which it is heard."""
    for kind in registration.Kind.__args__:
        assert f"`{kind}`" in PAGE
        assert f"`{HEARD_ON[kind]}`" in PAGE


def test_limits_have_their_settings_defaults() -> None:
    """What the table says is what the code has."""
    rows = re.findall(r"^\| [^|]+ \| (?:`(\w+)`)? ?\| (\d+) \|", PAGE, re.MULTILINE)
    found = {name: int(value) for name, value in rows}
    assert found.pop("") == MOST_BOTS
    assert found == {
        name: Settings.model_fields[name.lower()].default
        for name in (
            *("MAX_SYMBOLS_PER_BOT", "MAX_SYMBOLS_PER_MESSAGE", "MAX_MESSAGE_BYTES"),
            *("MAX_MESSAGES_PER_SECOND", "ORDER_JOURNAL_LENGTH", "PRICE_BUFFER"),
            *("SYMBOL_LINGER", "FEED_LINGER", "FORGET_UNHEARD_AFTER", "BACKFILL_TRADES"),
        )
    }
    for name in re.findall(r"`([A-Z]+_[A-Z_]+)`", PAGE):
        assert name == "ACCOUNT_ID" or name.lower() in Settings.model_fields, name
