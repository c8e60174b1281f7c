"""Curves as SVG, written by hand: no library draws so little.

Owns the drawing. Pure: a plot in, a text out. x is logarithmic, y as the plot wants it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

from bench.results import Plot

WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, TOP, BOTTOM = 76, 20, 44, 78
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
MOST_POINTS = 300

Scale = Callable[[float], float]


def svg(plot: Plot) -> str:
    """The whole picture; empty where there is nothing to draw."""
    points = [point for line in plot.lines.values() for point in line]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x = _logarithmic(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    low, high = (min(ys), max(ys)) if plot.log_y else (0.0, max(ys))
    below, above = HEIGHT - BOTTOM, TOP
    y = _logarithmic(low, high, below, above) if plot.log_y else _linear(low, high, below, above)
    parts = [_frame(plot)]
    parts += [_x_mark(x(value), value) for value in _x_marks(xs)]
    marks = _decades(low, high) if plot.log_y else [high * step / 4 for step in range(5)]
    parts += [_y_mark(y(value), value) for value in marks]
    for number, (name, line) in enumerate(plot.lines.items()):
        parts.append(_line(line, x, y, number))
        parts.append(_legend(name, number))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'
    )


def _linear(low: float, high: float, begin: float, end: float) -> Scale:
    width = (high - low) or 1.0
    return lambda value: begin + (value - low) / width * (end - begin)


def _logarithmic(low: float, high: float, begin: float, end: float) -> Scale:
    scale = _linear(math.log10(low), math.log10(high), begin, end)
    return lambda value: scale(math.log10(value))


def _x_marks(xs: list[float]) -> list[float]:
    different = sorted(set(xs))
    return different if len(different) <= 6 else _decades(different[0], different[-1])


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, … between the bounds; only powers of ten where there are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= 3 else (1,)
    marks = [step * 10.0**power for power in powers for step in steps]
    return [mark for mark in marks if low <= mark <= high]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def _frame(plot: Plot) -> str:
    middle, title = (LEFT + WIDTH - RIGHT) / 2, escape(plot.title)
    right, below = WIDTH - RIGHT, HEIGHT - BOTTOM
    return (
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n'
        f'<text x="{middle}" y="24" text-anchor="middle" font-size="15">{title}</text>\n'
        f'<path d="M{LEFT} {TOP}V{below}H{right}" fill="none" stroke="#444"/>\n'
        f'<text x="{middle}" y="{below + 36}" text-anchor="middle">{escape(plot.x)}</text>\n'
        f'<text transform="translate(16 {(TOP + below) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(plot.y)}</text>"
    )


def _x_mark(place: float, value: float) -> str:
    below = HEIGHT - BOTTOM
    return (
        f'<path d="M{place:.1f} {below}v5" stroke="#444"/>'
        f'<text x="{place:.1f}" y="{below + 18}" text-anchor="middle">{_number(value)}</text>'
    )


def _y_mark(place: float, value: float) -> str:
    return (
        f'<path d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
        f'<text x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{_number(value)}</text>'
    )


def _line(points: list[tuple[float, float]], x: Scale, y: Scale, number: int) -> str:
    colour = COLOURS[number % len(COLOURS)]
    every = -(-len(points) // MOST_POINTS)
    kept = [*points[:-1:every], points[-1]]
    places = [(round(x(a), 1), round(y(b), 1)) for a, b in kept]
    path = " ".join(f"{a},{b}" for a, b in places)
    drawn = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    if len(places) <= 10:
        drawn += "".join(f'<circle cx="{a}" cy="{b}" r="3.5" fill="{colour}"/>' for a, b in places)
    return drawn


def _legend(name: str, number: int) -> str:
    across = LEFT + (number % 2) * 270
    down = HEIGHT - 26 + (number // 2) * 17
    colour = COLOURS[number % len(COLOURS)]
    return (
        f'<path d="M{across} {down - 4}h22" stroke="{colour}" stroke-width="3"/>'
        f'<text x="{across + 28}" y="{down}">{escape(name)}</text>'
    )
