"""`alpaca-broker run`: the broker, in the foreground, until it is told to end.

Owns the order of starting and stopping around `AlpacaBroker`; the broker's own order is its own.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from alpaca_broker.cli.shared_options import EnvFile
from alpaca_broker.cli.stop_request import StopRequest, stop_on_signals

if TYPE_CHECKING:
    from alpaca_broker.settings import Settings

log = logging.getLogger(__name__)


def run(
    embedded_redis: Annotated[
        bool,
        typer.Option(
            "--embedded-redis",
            help="Start a Redis server of our own on a free local port. It ends with the broker "
            "and keeps nothing.",
        ),
    ] = False,
    env_file: EnvFile = None,
) -> None:
    """Run the broker until Ctrl-C or SIGTERM.

    Settings come from the environment first, then from configs/.env.

    What cannot be reached yet, Alpaca or Redis, is tried again for ever.
    """
    from alpaca_broker import telemetry
    from alpaca_broker.cli.bot_redis import existing
    from alpaca_broker.settings import load_settings

    settings = load_settings(existing(env_file))
    telemetry.set_up(settings.log_level, telemetry.Redactor(settings.secrets()))
    with stop_on_signals() as stop, ExitStack() as parts:
        if embedded_redis:
            settings = _with_embedded_redis(settings, parts)
        ended = _serve(settings, stop)
    if not ended:
        # A thread that hangs would keep the interpreter from ending; it has had its time.
        sys.stderr.flush()
        os._exit(1)


def _serve(settings: Settings, stop: StopRequest) -> bool:
    from alpaca_broker.broker import AlpacaBroker

    broker = AlpacaBroker(settings)
    stop.then(broker.request_stop)
    try:
        broker.start()
        broker.wait()
    finally:
        log.info("stopping")
        ended = broker.stop()
    log.info("stopped")
    return ended


def _with_embedded_redis(settings: Settings, parts: ExitStack) -> Settings:
    from alpaca_broker.embedded import EmbeddedRedis

    server = parts.enter_context(EmbeddedRedis())
    log.info(
        "embedded Redis at 127.0.0.1:%d: look in with `redis-cli -p %d`, point bots at it with "
        "REDIS_PORT=%d",
        *(server.port, server.port, server.port),
    )
    place: dict[str, object] = {"redis_host": "127.0.0.1", "redis_port": server.port, "redis_db": 0}
    nothing = dict.fromkeys(("redis_url", "redis_username", "redis_password", "redis_tls_ca"))
    return settings.model_copy(update=place | nothing | {"redis_tls": False})
