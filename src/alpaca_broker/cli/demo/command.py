"""`alpaca-broker demo`: everything at once, with nothing to set up.

Owns how long it runs and how it is shown: pictures in a terminal, a line a second elsewhere. What
plays stands in `stage`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from alpaca_broker.cli.stop_request import stop_on_signals
from alpaca_broker.errors import BrokerError

if TYPE_CHECKING:
    from alpaca_broker.cli.demo.screen import Warnings
    from alpaca_broker.cli.demo.stage import Stage

PICTURE_EVERY_S = 0.25
LINE_EVERY_S = 1.0


def demo(
    seconds: Annotated[
        float | None,
        typer.Option(min=0.5, metavar="N", help="End after this long; else at Ctrl-C."),
    ] = None,
    ticks: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Replay a day of real trades, such as spy_20131007_trade.zip; may be repeated.",
        ),
    ] = None,
    speed: Annotated[
        str, typer.Option(metavar="1|N|max", help="How many times faster a replay runs.")
    ] = "1",
    rate: Annotated[float, typer.Option(help="Invented trades per second and symbol.")] = 20.0,
) -> None:
    """Show everything at work: a pretend Alpaca, Redis, the broker and three bots.

    Needs no keys, no Redis and no network.
    """
    from alpaca_broker.cli.demo.screen import Warnings
    from alpaca_broker.cli.demo.stage import stage

    warnings = Warnings() if _is_terminal() else None
    _send_warnings(warnings)
    with stop_on_signals() as stop, ExitStack() as parts:
        playing = parts.enter_context(stage(stop, tuple(ticks or ()), speed, rate))
        if warnings is not None:
            by_itself = _in_pictures(playing, seconds, warnings)
        else:
            by_itself = _in_lines(playing, seconds)
        nothing = _summarize(playing)
        # The summary stands; what follows is the orderly end of all threads and of Redis.
    if by_itself and nothing:
        raise BrokerError(nothing)


def _send_warnings(screen: Warnings | None) -> None:
    """Log lines would tear a picture: there, only warnings are shown, below the tables."""
    from alpaca_broker import telemetry

    if screen is None:
        telemetry.set_up("WARNING", telemetry.Redactor())
        return
    logger = logging.getLogger(telemetry.LOGGER)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.addHandler(screen)


def _is_terminal() -> bool:
    from rich.console import Console

    # Asked of the file itself: rich also believes FORCE_COLOR, and sends controls into a pipe.
    return sys.stdout.isatty() and not Console().is_dumb_terminal


def _in_pictures(playing: Stage, seconds: float | None, warnings: Warnings) -> bool:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from alpaca_broker.cli.demo.screen import picture

    console = Console()

    def now() -> RenderableType:
        size = console.size
        return picture(playing.board, warnings, playing.redis_port, size.width, size.height)

    # No thread of rich's own: each picture is drawn by this loop.
    with Live(console=console, screen=True, auto_refresh=False) as live:
        by_itself = _until_end(
            playing, seconds, PICTURE_EVERY_S, lambda: live.update(now(), refresh=True)
        )
    console.print(now())  # the other screen is gone: leave the last picture in this one
    return by_itself


def _in_lines(playing: Stage, seconds: float | None) -> bool:
    from alpaca_broker.cli.demo.summary import second_line

    print(f"demo: Redis at 127.0.0.1:{playing.redis_port}, Alpaca pretended at {playing.url}")
    return _until_end(
        playing, seconds, LINE_EVERY_S, lambda: print(second_line(playing.board), flush=True)
    )


def _until_end(
    playing: Stage, seconds: float | None, every_s: float, draw: Callable[[], None]
) -> bool:
    """Draw until the time is over (True) or a signal came (False).

    Raises:
        BrokerError: the broker or a bot failed.
    """
    began = monotonic()
    next_draw = began
    while True:
        now = monotonic()
        if now >= next_draw:
            draw()
            next_draw = now + every_s
        if seconds is not None and now - began >= seconds:
            playing.check()
            return True
        end = next_draw if seconds is None else min(next_draw, began + seconds)
        if playing.broker.wait(max(0.0, end - monotonic())):
            playing.check()
            return False


def _summarize(playing: Stage) -> str | None:
    """Print the summary; what is missing, if anything."""
    from alpaca_broker.cli.demo.summary import summary

    board = playing.board
    for line in summary(board, playing.broker.counters["prices"]):
        print(line, flush=True)
    if not board.delivered:
        return "no price arrived"
    return None if board.orders.updates else "no order update arrived"
