"""The demo in words: a line a second where there is no terminal, and the summary at the end.

Owns the wording; pure. No line holds a control character.
"""

from __future__ import annotations

from alpaca_broker.cli.demo.board import Board
from alpaca_broker.cli.message_lines import clean, is_unused, symbol_count


def milliseconds(seconds: float | None) -> str:
    """`0.8`, or `-` where nothing was measured."""
    return "-" if seconds is None else f"{seconds * 1000:.1f}"


def price(value: float | None) -> str:
    """A price with at least cents."""
    if value is None:
        return "-"
    return f"{value:,.2f}" if round(value, 2) == value else f"{value:,.4f}"


def connections(board: Board) -> list[str]:
    """What the broker's heartbeat says, one entry for each connection."""
    status = board.status
    if not status:
        return ["no heartbeat yet"]
    lines = [
        f"feed {clean(name)} {clean(feed['state'])}, {symbol_count(feed)}"
        for name, feed in status["feeds"].items()
        if not is_unused(feed)
    ]
    lines += [
        f"{clean(a['environment'])} account {clean(a.get('account_number') or name)} "
        f"{clean(a['state'])}"
        for name, a in status["accounts"].items()
    ]
    return lines


def second_line(board: Board) -> str:
    """One line of progress."""
    rows = board.rows()
    rate = sum(row.per_second for row in rows)
    shown = next((row for row in rows if row.last is not None), rows[0])
    return (
        f"{board.seconds:4.0f} s  {sum(row.count for row in rows):,} prices ({rate:,.0f}/s)  "
        f"{shown.symbol} {price(shown.last)}  age {milliseconds(shown.age_s)} ms  "
        f"{board.orders.updates} order updates  {'; '.join(connections(board))}"
    )


def summary(board: Board, published: int) -> list[str]:
    """The end of the demo."""
    seconds, orders = board.seconds, board.orders
    placed = sum(orders.counts().values())
    states = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in orders.counts().items())
    return [
        f"The demo ran for {seconds:.1f} s.",
        f"prices   {published:,} published ({published / max(seconds, 0.1):,.0f}/s), "
        f"{board.delivered:,} delivered to {board.bots} bots, to each what it asked for",
        f"orders   {orders.updates:,} updates of {placed} {'order' if placed == 1 else 'orders'}: "
        f"{states or 'none'}",
        f"holes    {board.holes}",
        f"latency  median {milliseconds(board.age(0.5))} ms, p99 {milliseconds(board.age(0.99))} "
        f"ms, from the broker's receipt to a bot",
    ]
