"""docs/make_asyncapi.py for tests, and a validator of the JSON Schemas that it makes.

The validator knows exactly the keywords that are used there, and refuses any other: a keyword that
nobody checks would be a promise that nobody keeps. Compiled, since it sees every message of a run.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"

Schema = dict[str, Any]
Check = Callable[[Any, str], str | None]  # a value and where it is; what is wrong with it

IS = {
    "string": lambda v: type(v) is str,
    "number": lambda v: type(v) is int or type(v) is float,
    "integer": lambda v: type(v) is int,
    "boolean": lambda v: type(v) is bool,
    "null": lambda v: v is None,
    "array": lambda v: type(v) is list,
    "object": lambda v: type(v) is dict,
}
KNOWN = {
    *("description", "type", "const", "enum", "required", "properties", "additionalProperties"),
    *("items", "minimum", "maximum", "maxLength", "pattern"),
}
REF = "#/components/schemas/"


TAGS = {
    "price_update": "PriceUpdate",
    "quote_update": "QuoteUpdate",
    "bar_update": "BarUpdate",
    "trading_status": "TradingStatus",
    "trade_correction": "TradeCorrection",
    "trade_cancel": "TradeCancel",
    "news": "NewsItem",
    "orderbook_update": "OrderbookUpdate",
    "order_update": "OrderUpdate",
    "status": "Status",
    "gap": "Gap",
    "log": "LogRecord",
    "registration": "RegistrationAnswer",
}


@cache
def _validator() -> Validator:
    return Validator(load_generator().schemas())


def offence(message: Any) -> str | None:
    """What breaks the contract in a message of the broker's, or None.

    The broker's are those with an `epoch`, and log records: what tests say themselves has none.
    """
    tag = TAGS.get(message.get("type", ""))
    if tag is None or not ("epoch" in message or tag == "LogRecord"):
        return None
    return _validator().problem(tag, message)


def load_generator() -> ModuleType:
    """docs/make_asyncapi.py as a module."""
    spec = importlib.util.spec_from_file_location("make_asyncapi", DOCS / "make_asyncapi.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Validator:
    """Finds what is wrong with a message of a named schema."""

    def __init__(self, schemas: dict[str, Schema]) -> None:
        self._schemas = schemas
        self._checks: dict[str, Check] = {}
        for name in schemas:
            self._named(name)

    def problem(self, name: str, message: Any) -> str | None:
        """What is wrong with the message, and where; None where nothing is."""
        return self._checks[name](message, name)

    def _named(self, name: str) -> Check:
        if name not in self._checks:
            self._checks[name] = lambda value, at: self._checks[name](value, at)  # may hold itself
            self._checks[name] = self._compile(self._schemas[name])
        return self._checks[name]

    def _compile(self, schema: Schema) -> Check:
        if "$ref" in schema:
            return self._named(schema["$ref"].removeprefix(REF))
        assert set(schema) <= KNOWN, f"a keyword that is not checked: {set(schema) - KNOWN}"
        checks = [check for check in (_typed(schema), _valued(schema)) if check]
        if "object" in _types(schema):
            checks.append(self._members(schema))
        if "items" in schema:
            checks.append(self._items(self._compile(schema["items"])))

        def check(value: Any, at: str) -> str | None:
            for one in checks:
                if problem := one(value, at):
                    return problem
            return None

        return check

    def _members(self, schema: Schema) -> Check:
        required = schema.get("required", [])
        known = {name: self._compile(one) for name, one in schema.get("properties", {}).items()}
        rest = schema["additionalProperties"]
        other = None if rest is True else self._compile(rest)

        def check(value: Any, at: str) -> str | None:
            for name in required:
                if name not in value:
                    return f"{at}.{name} is missing"
            for name, member in value.items():
                one = known.get(name, other)
                if one is not None and (problem := one(member, f"{at}.{name}")):
                    return problem
            return None

        return check

    @staticmethod
    def _items(item: Check) -> Check:
        def check(value: Any, at: str) -> str | None:
            for number, one in enumerate(value or ()):
                if problem := item(one, f"{at}[{number}]"):
                    return problem
            return None

        return check


def _types(schema: Schema) -> list[str]:
    types = schema.get("type", [])
    return types if isinstance(types, list) else [types]


def _typed(schema: Schema) -> Check | None:
    tests = [IS[name] for name in _types(schema)]
    if not tests:
        return None

    def check(value: Any, at: str) -> str | None:
        if any(test(value) for test in tests):
            return None
        return f"{at} is {value!r}, no {' or '.join(_types(schema))}"

    return check


def _valued(schema: Schema) -> Check | None:
    allowed = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
    low, high = schema.get("minimum", float("-inf")), schema.get("maximum", float("inf"))
    longest = schema.get("maxLength", float("inf"))
    # In JSON Schema's dialect $ is the very end; in Python's a line break may follow it.
    pattern = re.compile(re.sub(r"\$$", r"\\Z", schema.get("pattern", "")))
    if not {"enum", "const", "minimum", "maximum", "maxLength", "pattern"} & set(schema):
        return None

    def check(value: Any, at: str) -> str | None:
        if value is None and "null" in _types(schema):
            return None
        fits = allowed is None or value in allowed
        if isinstance(value, str):
            fits = fits and len(value) <= longest and pattern.search(value) is not None
        elif isinstance(value, int | float):
            fits = fits and low <= value <= high
        return None if fits else f"{at} is {value!r}"

    return check
