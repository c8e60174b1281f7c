"""What a measurement hands back.

Owns the shapes: figures that are held against targets, tables for the eye, curves for the plots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.figures import Spread


@dataclass
class Table:
    """Rows of text under a title."""

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)


@dataclass
class Plot:
    """Curves over a logarithmic x: `lines` are points by name."""

    name: str
    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    log_y: bool = False


@dataclass
class Result:
    """One measurement."""

    figures: dict[str, Spread] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def thousands(value: float) -> str:
    """A rate for the eye."""
    return f"{value:,.0f}"


def spread(found: Spread, digits: int = 2) -> str:
    """Median (min to max)."""
    return f"{found.median:,.{digits}f} ({found.min:,.{digits}f} to {found.max:,.{digits}f})"
