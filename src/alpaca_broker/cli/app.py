"""The commands, put together: names, groups and the help text.

Owns the typer application. What a command does stands in its own module, which imports what is
heavy only once it runs, so that help comes at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from alpaca_broker import __version__
from alpaca_broker.cli.bench import bench
from alpaca_broker.cli.demo.command import demo
from alpaca_broker.cli.register import register, unregister
from alpaca_broker.cli.run import run
from alpaca_broker.cli.simulate import simulate
from alpaca_broker.cli.watch import watch

_RUN, _TRY, _STEER = "Run it", "Try it without keys", "Look and steer"

_EXAMPLES = """[bold]Examples[/bold]
  alpaca-broker demo             all at once, nothing to set up
  alpaca-broker run              the broker, with the keys in configs/.env
  alpaca-broker watch AAPL MSFT  their prices, live in this terminal
  alpaca-broker watch --status   how the broker is, at each change
  alpaca-broker simulate --speed 60 --ticks spy_20131007_trade.zip"""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EXAMPLES,
)

app.command(rich_help_panel=_RUN)(run)
app.command(rich_help_panel=_TRY)(demo)
app.command(rich_help_panel=_TRY)(simulate)
app.command(rich_help_panel=_TRY)(bench)
app.command(rich_help_panel=_STEER)(watch)
app.command(rich_help_panel=_STEER)(register)
app.command(rich_help_panel=_STEER)(unregister)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"alpaca-broker {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """The hub between Alpaca's streams and many trading bots.

    One connection up, Redis pub/sub down: every bot gets the prices and orders it wants.
    """
