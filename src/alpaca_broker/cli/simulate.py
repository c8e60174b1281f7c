"""`alpaca-broker simulate`: a pretend Alpaca in the foreground, to practise against.

Owns the process around the simulator: options, what is printed when it is ready, how it ends.
Standard output is a valid settings file, ready to be pasted into `configs/.env`.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alpaca_broker.cli.stop_request import StopRequest, stop_on_signals
from alpaca_broker.errors import BrokerError, ConfigError

if TYPE_CHECKING:
    from alpaca_broker.simulator import Fault, SimulatorOptions


def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes any free one.")
    ] = 8765,
    ticks: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Replay a day of real ticks, such as spy_20131007_trade.zip; may be repeated. "
            "Without it the market is invented.",
        ),
    ] = None,
    speed: Annotated[
        str, typer.Option(metavar="1|N|max", help="How many times faster a replay runs.")
    ] = "1",
    seed: Annotated[int, typer.Option(help="Same seed, same invented prices.")] = 1,
    rate: Annotated[
        float, typer.Option(help="Invented trades per second and subscribed symbol.")
    ] = 20.0,
    batch: Annotated[int, typer.Option(min=1, help="Most messages in one frame.")] = 50,
    symbol_limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Refuse more symbols than this, as small plans do."),
    ] = None,
    unknown_asset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SYMBOL",
            help="Have no such asset, as with a typo: the list of assets does not know it; may be "
            "repeated.",
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="now|MOMENT",
            help="Pretend that it is a moment such as 2026-11-27T12:59 in New York, with the hours "
            "its calendar has; `now` keeps the real hours. Without it the market never closes.",
        ),
    ] = None,
    keep_hours: Annotated[
        bool,
        typer.Option("--keep-hours", help="Let no stock trade while the market is closed."),
    ] = False,
    news_per_min: Annotated[
        float, typer.Option(min=0, help="Invented news articles a minute; 0 for none.")
    ] = 6.0,
    incidents_per_min: Annotated[
        float,
        typer.Option(
            min=0,
            help="Corrections, cancellations, halts and late trades a minute and invented stock.",
        ),
    ] = 0.0,
    recent_sip: Annotated[
        bool,
        typer.Option(
            "--recent-sip/--no-recent-sip",
            help="Whether REST has SIP data of the last 15 minutes, which small plans lack.",
        ),
    ] = True,
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID:SECRET",
            help="Accept only this pair of keys; may be repeated. Without it any pair will do.",
        ),
    ] = None,
    orders: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=1000,
            metavar="N",
            help="Let N order events a second happen on the account, mixed by the seed.",
        ),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME@WHEN",
            help="Let something go wrong, as in mute@10s, cut@20s:market or 406@30s+90s, counted "
            "from the first connection; may be repeated. `--fault help` lists all.",
        ),
    ] = None,
) -> None:
    """Pretend to be Alpaca: market data, order events and REST on one local port."""
    from alpaca_broker import telemetry
    from alpaca_broker.simulator import SimulatorOptions, TickFileError, script

    if "help" in (fault or []):
        _list_faults()
        return
    telemetry.set_up("WARNING", telemetry.Redactor())
    try:
        options = SimulatorOptions(
            host=host,
            port=port,
            keys=_pairs(key or []),
            ticks=tuple(ticks or ()),
            speed=speed,
            seed=seed,
            rate=rate,
            batch=batch,
            symbol_limit=symbol_limit,
            unknown_assets=[symbol.upper() for symbol in unknown_asset or []],
            time=time or ("now" if keep_hours else None),
            quiet_when_closed=keep_hours,
            news_per_min=news_per_min,
            incidents_per_min=incidents_per_min,
            recent_sip=recent_sip,
        )
        faults = script(fault or [])
    except ValueError as error:
        raise ConfigError(str(error)) from error
    try:
        with stop_on_signals() as stop:
            _serve(options, stop, faults, orders)
    except TickFileError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise BrokerError(_why_not_listening(error, options)) from error


def _list_faults() -> None:
    from alpaca_broker.simulator.fault_script import listing

    print("--fault NAME@WHEN[+DURATION][:COUNT, STREAM or PATH]; times as in 500ms, 10s, 1.5m")
    print("STREAM is market, trading or all; WHEN counts from the first connection\n")
    for line in listing():
        print(line)


def _serve(
    options: SimulatorOptions, stop: StopRequest, faults: list[Fault], orders: float | None
) -> None:
    import asyncio

    import uvloop

    from alpaca_broker.simulator import Simulator, practise, serve

    async def until_stopped() -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()

        def end() -> None:
            loop.call_soon_threadsafe(ended.set)  # the one call that a handler may make

        stop.then(end)
        try:
            await serve(options, ready=ready, stop=ended, beside=beside)
        finally:
            stop.then(lambda: None)

    def tell(fault: Fault) -> None:  # not on standard output, which may be a settings file
        print(f"fault {fault}: {fault.meaning}", file=sys.stderr, flush=True)

    async def beside(simulator: Simulator) -> None:
        await practise(simulator, faults, tell, key_id=_key_id(options), orders_per_s=orders)

    def ready(simulator: Simulator) -> None:
        for line in _announcement(options, simulator.port):
            print(line)
        print(flush=True, end="")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_stopped())


def _pairs(words: list[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        key_id, colon, secret = word.partition(":")
        if not (key_id and colon and secret):
            raise ConfigError("--key takes a key id and a secret, as in --key demo:secret")
        pairs[key_id] = secret
    return pairs


def _key_id(options: SimulatorOptions) -> str:
    return next(iter(options.keys), "demo")


def _announcement(options: SimulatorOptions, port: int) -> list[str]:
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where a broker on this machine finds us
    host = everywhere.get(options.host, options.host)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    names = ", ".join(path.name for path in options.tick_paths())
    market = f"replaying {names} at speed {options.speed}" if names else "an invented market"
    if options.time is not None:
        market += f" and the hours of {options.time}"
    lines = [
        f"# The simulator listens on http://{address} with {market}; Ctrl-C ends it.",
        f"ALPACA_DATA_STREAM_URL=ws://{address}",
        f"ALPACA_DATA_URL=http://{address}",
        f"ALPACA_PAPER_URL=http://{address}",
        f"ALPACA_LIVE_URL=http://{address}",
        f"PAPER_ALPACA_API_KEY_ID={_key_id(options)}",
    ]
    if options.keys:
        return [*lines, "# PAPER_ALPACA_API_SECRET_KEY is the one given with --key"]
    return [*lines, "PAPER_ALPACA_API_SECRET_KEY=demo-secret"]


def _why_not_listening(error: OSError, options: SimulatorOptions) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {options.port} on {options.host} is taken: choose another with --port, or 0 "
            f"for any free one"
        )
    reason = error.strerror or str(error)
    return f"cannot listen on {options.host}, port {options.port}: {reason}"
