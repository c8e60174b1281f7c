"""Makes docs/asyncapi.yaml: the contract for machines, from the types that the broker encodes.

    python docs/make_asyncapi.py > docs/asyncapi.yaml

The shape of each message comes from the code, what a field means from the tables in contract.md; a
field that one of them lacks ends it with an error. Writes YAML by itself, so it needs no package
that the broker does not need; nothing that runs imports it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import Struct, UnsetType

from alpaca_broker.core import messages, registration

PAGE = Path(__file__).with_name("contract.md")

Schema = dict[str, Any]

SENT = (
    *(messages.PriceUpdate, messages.OrderUpdate, messages.Status, messages.FeedStatus),
    *(messages.AccountStatus, messages.Gap, messages.RegistrationAnswer, messages.Rejected),
    *(messages.QuoteUpdate, messages.BarUpdate, messages.TradingStatus, messages.PrintedTrade),
    *(messages.TradeCorrection, messages.TradeCancel, messages.NewsItem),
    *(messages.OrderbookUpdate, messages.LogRecord),
)
HEARD = registration.RegistrationMessage
TYPES: dict[str, type[Struct]] = {t.__name__: t for t in SENT} | {"Registration": HEARD}

SYMBOL = {
    "description": "Alpaca's spelling, as in AAPL, BRK.B, BTC/USD, AAPL251219C00150000.",
    "examples": ["AAPL", "BRK.B", "BTC/USD"],
}
ACCOUNT = {
    "description": "Alpaca's account `id`, a UUID; or the account number, if a bot registered "
    "with it: the same events, in addition.",
    "examples": ["0d774e2b-92ef-510b-8c31-202aceadaee5"],
}


def _market_data(
    prefix: str, summary: str, *spoken: str
) -> tuple[str | None, str, Schema, tuple[str, ...], str]:
    return f"{prefix}{{symbol}}", summary, {"symbol": SYMBOL}, spoken, "send"


# channel: address, what it is, its parameters, its messages, and who speaks there.
CHANNELS: dict[str, tuple[str | None, str, Schema, tuple[str, ...], str]] = {
    "registration": (
        "broker:registration",
        "What bots want to hear. Only bots write here.",
        {},
        ("Registration",),
        "receive",
    ),
    "price": (
        "price:{symbol}",
        "One message for each trade, live only, numbered without holes.",
        {"symbol": SYMBOL},
        ("PriceUpdate",),
        "send",
    ),
    "quote": _market_data("quote:", "Each change of the best bid or ask.", "QuoteUpdate"),
    "bar": _market_data("bar:", "Bars of a minute, corrected ones, the day's so far.", "BarUpdate"),
    "trading_status": _market_data(
        "trading_status:", "Halts, resumptions, the bands of LULD.", "TradingStatus"
    ),
    "correction": _market_data(
        "correction:", "Trades that were corrected or taken back.", "TradeCorrection", "TradeCancel"
    ),
    "backfill": _market_data("backfill:", "Trades that were recovered.", "PriceUpdate"),
    "news": _market_data("news:", "Articles; `*` for all.", "NewsItem"),
    "orderbook": _market_data("orderbook:", "The book, and its changes.", "OrderbookUpdate"),
    "order": (
        "order:{account_id}",
        "One message for each event of an order of the account; also kept in the journal.",
        {"account_id": ACCOUNT},
        ("OrderUpdate",),
        "send",
    ),
    "status": (
        "broker:status",
        "The heartbeat, every second and at every change, and every gap.",
        {},
        ("Status", "Gap"),
        "send",
    ),
    "logs": ("broker:logs", "What the broker logs.", {}, ("LogRecord",), "send"),
    "answer": (
        None,
        "Answers to registrations, on the channel that `reply_to` names, taken verbatim.",
        {},
        ("RegistrationAnswer",),
        "send",
    ),
}

KEYS: Schema = {
    "broker:status": {"kind": "string, expires after 5 s", "holds": "Status"},
    "broker:gaps": {"kind": "stream", "field": "data", "holds": "Gap"},
    "price:last": {"kind": "hash", "field": "symbol", "holds": "PriceUpdate"},
    "journal:order:{account_id}": {
        "kind": "stream, entry id SEQ-0",
        "field": "data",
        "holds": "OrderUpdate",
    },
    "orders:open:{account_id}": {"kind": "hash", "field": "order_id", "holds": "OrderUpdate"},
}

DESCRIPTION = (
    "What bots and the broker say to each other over Redis. contract.md beside this file says the "
    "same in words, with the rules that no schema can hold. The deployment's CHANNEL_PREFIX, empty "
    "by default, stands before every channel and every key. Each message is one JSON object in "
    "UTF-8; fields may be added, so leave alone what you do not know."
)


def document() -> Schema:
    """The AsyncAPI 3.0 document, seen from the broker: it sends prices and receives wishes."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Alpaca Broker Service",
            "version": f"{messages.CONTRACT}.0.0",
            "description": DESCRIPTION,
        },
        "defaultContentType": "application/json",
        "servers": {
            "redis": {
                "host": "127.0.0.1:6379",
                "protocol": "redis",
                "description": "REDIS_HOST and REDIS_PORT, or REDIS_URL, of the deployment. "
                "Pub/sub ignores database numbers.",
            }
        },
        "channels": {name: _channel(name) for name in CHANNELS},
        "operations": {name: operation for name, operation in _operations()},
        "components": {"messages": _messages(), "schemas": schemas()},
        "x-redis-keys": {
            name: key | {"holds": {"$ref": f"#/components/schemas/{key['holds']}"}}
            for name, key in KEYS.items()
        },
    }


def _channel(name: str) -> Schema:
    address, summary, parameters, spoken, _ = CHANNELS[name]
    channel: Schema = {"address": address, "description": summary}
    if parameters:
        channel["parameters"] = parameters
    channel["messages"] = {m: {"$ref": f"#/components/messages/{m}"} for m in spoken}
    return channel


def _operations() -> Iterator[tuple[str, Schema]]:
    for name, (_, summary, _, spoken, action) in CHANNELS.items():
        if name == "answer":
            continue  # the reply of `registration`
        operation: Schema = {
            "action": action,
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": summary,
            "messages": [{"$ref": f"#/channels/{name}/messages/{m}"} for m in spoken],
        }
        if action == "receive":
            operation["reply"] = {
                "address": {"location": "$message.payload#/reply_to"},
                "channel": {"$ref": "#/channels/answer"},
                "messages": [{"$ref": "#/channels/answer/messages/RegistrationAnswer"}],
            }
        yield name, operation


def _messages() -> Schema:
    return {
        name: {
            "name": name,
            "summary": _docstring(TYPES[name]).partition("\n")[0],
            "payload": {"$ref": f"#/components/schemas/{name}"},
        }
        for _, _, _, spoken, _ in CHANNELS.values()
        for name in spoken
    }


def schemas() -> dict[str, Schema]:
    """The JSON Schema of each message and of what is inside them, by name."""
    _, found = msgspec.json.schema_components(
        list(TYPES.values()), ref_template="#/components/schemas/{name}"
    )
    found["Registration"] = found.pop(HEARD.__name__)
    assert set(found) == set(TYPES), set(found) ^ set(TYPES)
    meanings = field_meanings(PAGE.read_text())
    return {name: _schema(name, found[name], meanings.get(name, {})) for name in TYPES}


def _schema(name: str, found: Schema, meanings: dict[str, str]) -> Schema:
    kind = TYPES[name]
    properties = {f: _simple(p) for f, p in found["properties"].items()}
    if name == "RegistrationAnswer":  # msgspec cannot know what its Raw holds
        properties["last"]["additionalProperties"] = {"$ref": "#/components/schemas/PriceUpdate"}
    if missing := set(properties) ^ set(meanings):
        raise SystemExit(f"{name} in {PAGE.name} and in the code differ: {sorted(missing)}")
    for field, schema in properties.items():
        properties[field] = {"description": meanings[field]} | schema
    return {
        "description": " ".join(_docstring(kind).split()),
        "type": "object",
        "required": [f for f in properties if f == "type" or f in _always_there(kind)],
        "properties": properties,
        "additionalProperties": True,
    }


def _always_there(kind: type[Struct]) -> set[str]:
    """The fields that no message of this kind lacks: a default is sent like any other value."""
    fields = msgspec.structs.fields(kind)
    if kind is HEARD or kind.__struct_config__.omit_defaults:
        return {f.encode_name for f in fields if f.required}
    return {f.encode_name for f in fields if UnsetType not in get_args(f.type)}


def _simple(schema: Schema) -> Schema:
    """The same in fewer words; decimals as the numbers that they are on the wire."""
    if schema.get("format") == "decimal":
        return {"type": "number"}
    simple = {k: v for k, v in schema.items() if k != "default"}
    if "anyOf" in simple:
        merged: Schema = {}
        for option in map(_simple, simple.pop("anyOf")):
            merged |= {k: v for k, v in option.items() if k != "type"}
            merged.setdefault("type", []).append(option["type"])
        if "number" in merged["type"]:
            merged["type"] = [t for t in merged["type"] if t != "integer"]
        simple = {"type": merged.pop("type")} | merged | simple
    if len(simple.get("enum", ())) == 1:
        simple["const"] = simple.pop("enum")[0]
    if isinstance(simple.get("items"), dict):
        simple["items"] = _simple(simple["items"])
    if "pattern" in simple:
        simple["pattern"] = simple["pattern"].replace("\\Z", "$")  # JSON Schema's dialect
    return simple


def _docstring(kind: type[Struct]) -> str:
    if kind is HEARD:
        return "What a bot wants to hear, or no longer wants."
    return inspect.cleandoc(kind.__doc__ or "")


def field_meanings(page: str) -> dict[str, dict[str, str]]:
    """What the tables of contract.md say of each field: schema name → field → meaning.

    A table belongs to the schema that the line `Name` in [asyncapi.yaml](asyncapi.yaml) before it
    names; its first column holds field names, its last one the meaning.
    """
    meanings: dict[str, dict[str, str]] = {}
    name = ""
    for line in page.splitlines():
        if found := re.match(r"`(\w+)` in \[asyncapi\.yaml\]", line):
            name = found.group(1)
        elif not line.startswith("|") and name in meanings:
            name = ""  # its table has ended
        elif name and line.startswith("| `"):
            cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
            for field in re.findall(r"`(\w+)`", cells[0]):
                meaning = cells[-1].replace("\\|", "|")
                meanings.setdefault(name, {})[field] = meaning
    return meanings


_PLAIN = re.compile(r"[A-Za-z_$/][A-Za-z0-9_$/.{}-]*( [A-Za-z0-9_$/.{}-]+)*\Z")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def to_yaml(value: Any, indent: int = 0) -> Iterator[str]:
    """The lines of a value of dicts, lists and scalars; the same value, the same lines."""
    pad = "  " * indent
    pairs = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for key, item in pairs:
        lead = f"{pad}-" if key is None else f"{pad}{_scalar(key)}:"
        if isinstance(item, dict | list) and item:
            lines = list(to_yaml(item, indent + 1))
            if key is None:  # the first line of an item stands behind its dash
                yield f"{lead} {lines.pop(0).lstrip()}"
            else:
                yield lead
            yield from lines
        else:
            yield f"{lead} {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.match(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)  # JSON's scalars are YAML's, too


def text() -> str:
    """The whole file."""
    head = "# Made by docs/make_asyncapi.py from the code's types: do not edit.\n"
    return head + "\n".join(to_yaml(document())) + "\n"


if __name__ == "__main__":
    print(text(), end="")
