"""`alpaca-broker register` and `unregister`: one registration message, as a bot sends it.

Owns nothing that lasts: it publishes once and says how many heard it. The broker answers on its own
channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alpaca_broker.errors import BrokerError

_Account = Annotated[
    str | None, typer.Option("--account", help="Whose orders the bot follows.", metavar="ID")
]
_Bot = Annotated[
    str | None, typer.Option("--bot-id", help="Who asks; else the account.", metavar="NAME")
]
_EnvFile = Annotated[
    Path | None,
    typer.Option(help="Settings that the environment does not give.", show_default="configs/.env"),
]

_NOBODY_NAMED = "note: without --bot-id or --account the wish joins the shared pool"


def register(
    symbols: Annotated[
        list[str] | None, typer.Argument(metavar="SYMBOL", help='Symbols; "*" is every one.')
    ] = None,
    account: _Account = None,
    bot_id: _Bot = None,
    ttl: Annotated[
        float | None,
        typer.Option(
            min=5,
            max=86_400,
            metavar="SECONDS",
            help="Forget it after this long unless it is registered again.",
        ),
    ] = None,
    env_file: _EnvFile = None,
) -> None:
    """Register symbols, or an account, for a bot."""
    if not (bot_id or account):
        typer.echo(f"{_NOBODY_NAMED}, which no unregister empties", err=True)
    _publish("register", symbols or [], account, bot_id, ttl, env_file)


def unregister(
    symbols: Annotated[
        list[str] | None,
        typer.Argument(metavar="SYMBOL", help="Symbols; none means everything."),
    ] = None,
    account: _Account = None,
    bot_id: _Bot = None,
    env_file: _EnvFile = None,
) -> None:
    """Take symbols, or everything, from what a bot has registered."""
    if not (bot_id or account):
        typer.echo(f"{_NOBODY_NAMED}: an unregister for it is ignored", err=True)
    _publish("unregister", symbols or [], account, bot_id, None, env_file)


def _publish(
    action: str,
    words: list[str],
    account: str | None,
    bot_id: str | None,
    ttl: float | None,
    env_file: Path | None,
) -> None:
    from redis.exceptions import RedisError

    from alpaca_broker.bus.redis_client import advice
    from alpaca_broker.cli import bot_redis
    from alpaca_broker.core.channels import Channels

    settings = bot_redis.settings_for_bots(env_file)
    target, channels = settings.redis(), Channels(settings.channel_prefix)
    symbols = bot_redis.symbols_of(words)
    payload = bot_redis.registration(action, symbols, account_id=account, bot_id=bot_id, ttl=ttl)
    try:
        with bot_redis.client(target, "alpaca-broker:register") as client:
            heard_by = int(client.publish(channels.registration, payload))
    except (RedisError, OSError) as error:
        raise BrokerError(advice(error, target)) from error
    if not heard_by:
        raise BrokerError(
            f"no broker is listening on {channels.registration} at {target.where}: start one with "
            f"`alpaca-broker run`"
        )
    what = ", ".join(symbols) or ("everything" if action == "unregister" else f"account {account}")
    listeners = "1 listener" if heard_by == 1 else f"{heard_by} listeners"
    typer.echo(
        f"{action} {what} for {bot_id or account or 'the shared pool'}: {listeners} heard it"
    )
