"""What we want to reach, and whether a run did.

Owns the targets. A target is held against the median of a figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.results import Result, Table, spread


@dataclass(frozen=True)
class Target:
    """One line of the table."""

    what: str
    measurement: str
    figure: str
    bound: float
    at_least: bool = False

    def is_met(self, median: float) -> bool:
        """Whether that is enough."""
        return median >= self.bound if self.at_least else median <= self.bound

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


def _least(what: str, measurement: str, figure: str, bound: float) -> Target:
    return Target(what, measurement, figure, bound, at_least=True)


_RIVAL = "alpaca-py + redis.publish"
_AGE = "price latency at 2,000/s ÷ alpaca-py direct"
_OVER = "over capacity: "
TARGETS = (
    _least(f"throughput, 10 messages/frame ÷ {_RIVAL}", "throughput", "b10_l1_to_rival", 40),
    _least("throughput, 10 messages/frame ÷ ceiling", "throughput", "b10_l1_to_ceiling", 0.6),
    _least(f"throughput, 1 message/frame ÷ {_RIVAL}", "throughput", "b1_l1_to_rival", 25),
    Target(f"{_AGE}, median", "latency", "2000_p50_to_direct", 0.9),
    Target(f"{_AGE}, 99 %", "latency", "2000_p99_to_direct", 0.25),
    Target("order event's extra latency under saturation, 99 %, ms", "orders", "extra_p99_ms", 5),
    _least("throughput, 10,000 symbols ÷ 10", "symbols", "s10000_to_fewest", 0.9),
    Target("broker CPU, 1,000 bots ÷ 1", "bots", "n1000_cpu_to_one", 1.05),
    Target("memory at rest, MB", "symbols", "mb_rest", 75),
    Target("memory with 10,000 symbols, MB", "symbols", "s10000_mb_registered", 110),
    Target("start() to live, s", "start", "start_to_live_s", 0.3),
    Target("process start to live, s", "start", "process_to_live_s", 1.2),
    Target(f"{_OVER}newest price of a symbol, oldest, ms", "overload", "staleness_ms", 250),
    Target(f"{_OVER}neither published nor told", "overload", "unaccounted", 0),
    _least(f"{_OVER}share of heartbeats that say so", "overload", "conflating", 0.9),
    Target(f"{_OVER}memory growth in its second half, MB", "overload", "memory_growth_mb", 5),
)


def table(results: Mapping[str, Result]) -> Table:
    """Every target whose measurement was made."""
    found = Table("Targets", ["figure", "target", "this run: median (min to max)", ""])
    for target in TARGETS:
        result = results.get(target.measurement)
        if result is None or (figure := result.figures.get(target.figure)) is None:
            continue
        verdict = "reached" if target.is_met(figure.median) else "**not reached**"
        found.rows.append([target.what, target.wanted, spread(figure), verdict])
    return found
