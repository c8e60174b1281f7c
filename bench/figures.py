"""Many readings as few numbers: medians with their range, and distributions of times.

Owns the arithmetic, and nothing of what is measured. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

_STEP = math.log(1.01)  # a bin is 1 % wide
_FIRST_S = 1e-6


@dataclass(frozen=True)
class Spread:
    """The median of repeated readings, and how far they lie apart."""

    median: float
    min: float
    max: float
    n: int

    @classmethod
    def of(cls, readings: Sequence[float]) -> Spread:
        """From at least one reading."""
        return cls(median(readings), min(readings), max(readings), len(readings))

    def as_json(self) -> dict[str, Any]:
        """For the results' file."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Round by round, as they were measured side by side."""
    return Spread.of([a / b for a, b in zip(ours, theirs, strict=True) if b])


class Times:
    """A distribution of times, in bins of 1 %; can be sent and added up."""

    def __init__(self, bins: dict[int, int] | None = None, most: float = 0.0) -> None:
        self.bins: dict[int, int] = dict(bins or {})
        self.most = most

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Times:
        """From single times; what is below a microsecond, or negative, counts as one."""
        found = cls()
        for time in seconds:
            place = int(math.log(time / _FIRST_S) / _STEP) if time > _FIRST_S else 0
            found.bins[place] = found.bins.get(place, 0) + 1
            found.most = max(found.most, time)
        return found

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Times:
        """What `as_json` has made."""
        return cls({int(place): count for place, count in value["bins"].items()}, value["most"])

    def as_json(self) -> dict[str, Any]:
        """For a pipe."""
        return {"bins": self.bins, "most": self.most}

    def add(self, other: Times) -> None:
        """Take in another distribution."""
        for place, count in other.bins.items():
            self.bins[place] = self.bins.get(place, 0) + count
        self.most = max(self.most, other.most)

    @property
    def n(self) -> int:
        """How many times."""
        return sum(self.bins.values())

    def at(self, share: float) -> float:
        """The time below which this share of all lies, to one percent; 0 where there is none."""
        due, seen = share * self.n, 0
        for place in sorted(self.bins):
            seen += self.bins[place]
            if seen >= due:
                return min(_FIRST_S * math.exp((place + 0.5) * _STEP), self.most or math.inf)
        return 0.0

    def shares(self) -> list[tuple[float, float]]:
        """(time, share of all that took at most so long), for a curve."""
        total, seen, points = self.n, 0, []
        for place in sorted(self.bins):
            seen += self.bins[place]
            points.append((_FIRST_S * math.exp((place + 1) * _STEP), seen / total))
        return points

    def summary(self) -> dict[str, Any]:
        """What is reported: milliseconds."""
        named = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}
        found: dict[str, Any] = {name: round(self.at(q) * 1e3, 4) for name, q in named.items()}
        return found | {"max_ms": round(self.most * 1e3, 3), "n": self.n}
