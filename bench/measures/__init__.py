"""The measurements, each to be run alone by its name (`--only`).

A measurement takes a plan and returns a `Result`; it starts all it needs, and ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from bench.plan import Plan
from bench.results import Result

Measure = Callable[[Plan], Result]

NAMES = (
    *("throughput", "receiving", "latency", "orders", "symbols"),
    *("bots", "start", "registrations", "overload"),
)


def measure(name: str) -> Measure:
    """The measurement of that name."""
    found: Measure = import_module(f"bench.measures.{name}").measure
    return found
