"""docs/asyncapi.yaml: made from the code, up to date, and whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from contract_schema import DOCS, Validator, load_generator

GENERATOR = load_generator()
DOCUMENT = GENERATOR.document()


def read_yaml(text: str) -> Any:
    """The YAML that the generator writes (block style, JSON's scalars), read independently."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]

    def scalar(word: str) -> Any:
        plain = word[0] not in '"[{-0123456789' and word not in ("true", "false", "null")
        return word if plain else json.loads(word)

    def block(indent: int) -> Any:
        found: Any = None
        while lines and len(lines[0]) - len(lines[0].lstrip()) == indent:
            line = lines.pop(0).strip()
            if line.startswith("- "):
                found = [] if found is None else found
                if re.match(r"""- ("[^"]*"|[^":]+):( |$)""", line):
                    lines.insert(0, " " * (indent + 2) + line[2:])
                    found.append(block(indent + 2))
                else:
                    found.append(scalar(line[2:]))
                continue
            match = re.match(r"""("[^"]*"|[^":]+):(?: (.+))?$""", line)
            assert match is not None, line
            found = {} if found is None else found
            value = match.group(2)
            found[scalar(match.group(1))] = block(indent + 2) if value is None else scalar(value)
        return found

    return block(0)


def references(value: Any) -> Iterator[str]:
    """Every `$ref` in it."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for member in value.values():
            yield from references(member)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def at(reference: str) -> Any:
    """What a reference within the document points to."""
    found: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def test_the_file_is_what_the_code_says() -> None:
    """To the byte; if not: python docs/make_asyncapi.py > docs/asyncapi.yaml."""
    assert (DOCS / "asyncapi.yaml").read_text() == GENERATOR.text()


def test_the_file_is_yaml_that_reads_as_the_document() -> None:
    """What is written is what is meant."""
    assert read_yaml((DOCS / "asyncapi.yaml").read_text()) == DOCUMENT


def test_every_reference_leads_somewhere() -> None:
    """And every schema and message is referred to."""
    found = set(references(DOCUMENT))
    assert all(isinstance(at(reference), dict) for reference in found)
    for part in ("messages", "schemas"):
        for name in DOCUMENT["components"][part]:
            assert f"#/components/{part}/{name}" in found


def test_it_has_the_shape_of_asyncapi_3() -> None:
    """The fields that AsyncAPI 3.0 requires, and none that it does not know."""
    assert re.fullmatch(r"3\.\d+\.\d+", DOCUMENT["asyncapi"])
    known = {"asyncapi", "info", "defaultContentType", "servers", "channels", "operations"}
    assert {k for k in DOCUMENT if not k.startswith("x-")} == known | {"components"}
    assert {"title", "version"} <= set(DOCUMENT["info"])
    for server in DOCUMENT["servers"].values():
        assert {"host", "protocol"} <= set(server) <= {"host", "protocol", "description"}
    for message in DOCUMENT["components"]["messages"].values():
        assert set(message) == {"name", "summary", "payload"}


@pytest.mark.parametrize("name", DOCUMENT["channels"])
def test_a_channels_parameters_are_those_of_its_address(name: str) -> None:
    """A channel has an address (the answer's is known at run time only) and messages."""
    channel = DOCUMENT["channels"][name]
    assert set(channel) <= {"address", "description", "parameters", "messages"}
    in_address = set(re.findall(r"{(\w+)}", channel["address"] or ""))
    assert set(channel.get("parameters", {})) == in_address
    assert channel["messages"]
    assert (channel["address"] is None) == (name == "answer")


@pytest.mark.parametrize("name", DOCUMENT["operations"])
def test_an_operation_speaks_its_channels_messages(name: str) -> None:
    """The broker sends all but registrations, which it receives and answers."""
    operation = DOCUMENT["operations"][name]
    assert set(operation) <= {"action", "channel", "summary", "messages", "reply"}
    channel = operation["channel"]["$ref"]
    told = {reference["$ref"] for reference in operation["messages"]}
    assert told == {f"{channel}/messages/{m}" for m in at(channel)["messages"]}
    assert operation["action"] == ("receive" if name == "registration" else "send")
    if name == "registration":
        assert operation["reply"]["address"] == {"location": "$message.payload#/reply_to"}


@pytest.mark.parametrize("name", GENERATOR.TYPES)
def test_a_schema_has_every_field_of_its_type(name: str) -> None:
    """Each with its meaning; what is always there is required; more is allowed."""
    schema, kind = DOCUMENT["components"]["schemas"][name], GENERATOR.TYPES[name]
    fields = {f.encode_name: f for f in msgspec.structs.fields(kind)}
    properties = schema["properties"]
    assert set(properties) - {"type"} == set(fields)
    assert all(one["description"] for one in properties.values())
    assert schema["additionalProperties"] is True
    assert set(schema["required"]) <= set(properties)
    assert {n for n, f in fields.items() if f.required} <= set(schema["required"])
    if kind.__struct_config__.tag is not None:
        assert properties["type"]["const"] == kind.__struct_config__.tag


def test_decimals_are_numbers_and_last_prices_are_prices() -> None:
    """What msgspec cannot know of the encoder's choices."""
    order = DOCUMENT["components"]["schemas"]["OrderUpdate"]["properties"]
    assert order["filled_qty"]["type"] == "number"
    assert order["limit_price"]["type"] == ["number", "null"]
    answer = DOCUMENT["components"]["schemas"]["RegistrationAnswer"]["properties"]
    assert answer["last"]["additionalProperties"] == {"$ref": "#/components/schemas/PriceUpdate"}


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"action": "register"}, None),
        ({"action": "register", "symbols": None, "ttl": 5, "bot_id": "a.b-c_1"}, None),
        ({"symbols": []}, "action is missing"),
        ({"action": "buy"}, "action is 'buy'"),
        ({"action": "register", "ttl": 4.9}, "ttl is 4.9"),
        ({"action": "register", "bot_id": "no blanks"}, "bot_id is"),
        ({"action": "register", "bot_id": "b\n"}, "bot_id is"),
        ({"action": "register", "request_id": "x" * 65}, "request_id is"),
        ({"action": "register", "channels": ["trade"]}, r"channels[0] is 'trade'"),
        ({"action": "register", "symbols": "AAPL"}, "symbols is 'AAPL', no array"),
    ],
)
def test_the_schema_refuses_what_the_broker_refuses(message: Any, problem: str | None) -> None:
    """A bot may check its registration by the file alone."""
    found = Validator(GENERATOR.schemas()).problem("Registration", message)
    assert (found is None) if problem is None else (found is not None and problem in found)
    kind = GENERATOR.TYPES["Registration"]
    if problem is None:
        msgspec.convert(message, kind)
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(message, kind)
