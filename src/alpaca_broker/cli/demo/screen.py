"""The demo as a picture in a terminal.

Owns the layout. It fits into 80 columns and as many lines as there are: what comes first matters
most.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections import deque
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from alpaca_broker.cli.demo.board import Board
from alpaca_broker.cli.demo.summary import connections, milliseconds, price
from alpaca_broker.cli.message_lines import clean, clock

WIDTH = 100
FRAME_LINES = 14  # everything but the rows of the two tables
ORDERS_SHOWN = 6

_STATES = {"live": "green", "filled": "green", "canceled": "yellow", "rejected": "red"}


class Warnings(logging.Handler):
    """Keeps the latest warnings for the screen. The demo's keys are invented: no secret to hide."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: deque[str] = deque(maxlen=2)

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{clock(record.created)} {record.levelname} {record.getMessage()}"
        self.lines.append(clean(text, 200))


def picture(
    board: Board, warnings: Warnings, port: int, columns: int, lines: int
) -> RenderableType:
    """The whole screen."""
    width = min(columns, WIDTH)
    orders = max(1, min(ORDERS_SHOWN, lines - FRAME_LINES - len(board.symbols)))
    parts: list[RenderableType] = [
        _headline(board, width),
        _prices(board, width),
        _orders(board, width, orders),
        _broker(board, port, width),
    ]
    parts += [
        Text(line, style="yellow", no_wrap=True, overflow="ellipsis") for line in warnings.lines
    ]
    return Group(*parts)


def _headline(board: Board, width: int) -> Table:
    line = Table.grid(expand=True)
    line.width = width
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right")
    minutes, seconds = divmod(int(board.seconds), 60)
    line.add_row(
        Text.assemble((" Alpaca Broker", "bold"), " demo, a pretend Alpaca, invented orders"),
        Text(f"{minutes:02d}:{seconds:02d}  Ctrl-C ends ", style="dim"),
    )
    return line


def _table(width: int, *columns: tuple[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, width=width, pad_edge=False, header_style="bold")
    for name, side in columns:
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=True)
    return table


def _prices(board: Board, width: int) -> Table:
    right = "right"
    table = _table(
        width,
        *(("symbol", "left"), ("last", right), ("change", right), ("trades/s", right)),
        *(("count", right), ("age ms", right), ("bots", right)),
    )
    for row in board.rows():
        change = Text("-")
        if row.change is not None:
            style = "green" if row.change > 0 else "red" if row.change < 0 else ""
            change = Text(f"{row.change:+.2%}", style=style)
        table.add_row(
            Text(row.symbol, style="bold"),
            price(row.last),
            change,
            f"{row.per_second:,.1f}",
            f"{row.count:,}",
            milliseconds(row.age_s),
            str(row.bots),
        )
    return table


def _orders(board: Board, width: int, most: int) -> Table:
    right = "right"
    table = _table(
        width,
        *(("time", "left"), ("symbol", "left"), ("side", "left"), ("filled", right)),
        *(("status", "left"), ("avg price", right), ("order", "left")),
    )
    recent = board.orders.recent(most)
    for update in recent:
        table.add_row(*_order_cells(update))
    for _ in range(most - len(recent)):
        table.add_row()
    return table


def _order_cells(update: dict[str, Any]) -> list[RenderableType]:
    status, average = clean(update["status"]), update["filled_avg_price"]
    return [
        clock(update["timestamp"])[:8],
        clean(update["symbol"]),
        clean(update["side"]),
        f"{clean(update['filled_qty'])}/{clean(update['qty'])}",
        Text(status.replace("_", " "), style=_STATES.get(status, "")),
        price(average),
        Text(clean(update["client_order_id"], 20), style="dim"),
    ]


def _broker(board: Board, port: int, width: int) -> Table:
    lines = Table.grid(padding=(0, 2))
    lines.width = width
    status = board.status
    state = str(status.get("state", "starting"))
    epoch = status.get("epoch", "-")
    head = Text.assemble(" broker ", (state, _STATES.get(state, "yellow")))
    lines.add_row(head, Text("; ".join(connections(board))))
    lines.add_row(
        " redis", f"127.0.0.1:{port}, {status.get('bots', 0)} bots registered, epoch {epoch}"
    )
    lines.add_row(
        Text(" look in", style="dim"), Text(f"REDIS_PORT={port} {_command()} watch", style="dim")
    )
    return lines


def _command() -> str:
    """What the user has to type: the name, or where it lies when that is not on the PATH."""
    if shutil.which("alpaca-broker"):
        return "alpaca-broker"
    return os.path.relpath(Path(sys.executable).parent / "alpaca-broker")
