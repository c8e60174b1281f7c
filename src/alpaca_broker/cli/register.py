"""`alpaca-broker register` and `unregister`: one registration message, as a bot sends it.

Owns nothing that lasts: it publishes once, waits for the broker's answer, and tells it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from alpaca_broker.cli.shared_options import EnvFile
from alpaca_broker.errors import BrokerError, ConfigError

if TYPE_CHECKING:
    from redis.client import PubSub

    from alpaca_broker.cli.message_lines import Message

_Account = Annotated[
    str | None, typer.Option("--account", help="Whose orders the bot follows.", metavar="ID")
]
_Bot = Annotated[
    str | None, typer.Option("--bot-id", help="Who asks; else the account.", metavar="NAME")
]
_Wait = Annotated[
    float,
    typer.Option(
        min=0,
        max=600,
        metavar="SECONDS",
        help="How long the broker has for its answer; 0 does not wait for one.",
    ),
]

WAIT_S = 10.0


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
    wait: _Wait = WAIT_S,
    env_file: EnvFile = None,
) -> None:
    """Register symbols, or an account, for a bot, and tell the broker's answer.

    The exit code is 1 where all of it was refused, or no broker answered.
    """
    if not (bot_id or account):
        typer.echo(
            "note: without --bot-id or --account the wish joins the shared pool, which no "
            "unregister empties",
            err=True,
        )
    names = _names(symbols)
    wish = _Wish(action="register", symbols=names, account=account, bot_id=bot_id, ttl=ttl)
    _say(wish, wait, env_file)


def unregister(
    symbols: Annotated[
        list[str] | None,
        typer.Argument(metavar="SYMBOL", help="Symbols; none means everything."),
    ] = None,
    account: _Account = None,
    bot_id: _Bot = None,
    wait: _Wait = WAIT_S,
    env_file: EnvFile = None,
) -> None:
    """Take symbols, or everything, from what a bot has registered, and tell the answer."""
    if not (bot_id or account):
        raise ConfigError("whose? name --bot-id or --account: the shared pool is everyone's")
    names = _names(symbols)
    wish = _Wish(action="unregister", symbols=names, account=account, bot_id=bot_id)
    _say(wish, wait, env_file)


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """What is said to the broker."""

    action: str
    symbols: list[str]
    account: str | None
    bot_id: str | None
    ttl: float | None = None

    def __str__(self) -> str:
        what = ", ".join(self.symbols)
        if not what:
            is_back = self.action == "unregister"
            what = "everything" if is_back else f"account {self.account}"
        return f"{self.action} {what} for {self.bot_id or self.account or 'the shared pool'}"

    def message(self, reply_to: str | None) -> bytes:
        """As the contract has it."""
        from alpaca_broker.cli.bot_redis import registration

        return registration(
            *(self.action, self.symbols),
            account_id=self.account,
            bot_id=self.bot_id,
            ttl=self.ttl,
            reply_to=reply_to,
        )


def _names(words: list[str] | None) -> list[str]:
    from alpaca_broker.cli.bot_redis import symbols_of

    return symbols_of(words or [])


def _say(wish: _Wish, wait_s: float, env_file: Path | None) -> None:
    """Publish it, and tell what comes of it.

    Raises:
        BrokerError: nobody heard it, nobody answered, or Redis is in trouble.
        typer.Exit: all of it was refused, which is told.
    """
    from redis.exceptions import RedisError

    from alpaca_broker.bus.redis_client import advice
    from alpaca_broker.cli import bot_redis
    from alpaca_broker.core.channels import Channels

    settings = bot_redis.settings_for_bots(env_file)
    target, channels = settings.redis(), Channels(settings.channel_prefix)
    reply_to = channels.reply(token_hex(8)) if wait_s else None
    payload = wish.message(reply_to)
    try:
        with (
            bot_redis.client(target, "alpaca-broker:register") as redis,
            redis.pubsub(ignore_subscribe_messages=True) as pubsub,
        ):
            if reply_to is not None:
                pubsub.subscribe(reply_to)
                pubsub.get_message(timeout=bot_redis.ANSWER_WITHIN_S)  # that it is subscribed
            heard_by = int(redis.publish(channels.registration, payload))
            if not heard_by:
                raise BrokerError(
                    f"no broker is listening on {channels.registration} at {target.where}: start "
                    f"one with `alpaca-broker run`"
                )
            if reply_to is None:
                listeners = "1 listener" if heard_by == 1 else f"{heard_by} listeners"
                typer.echo(f"{wish}: {listeners} heard it")
                return
            answer = _answer(pubsub, wait_s)
    except (RedisError, OSError) as error:
        raise BrokerError(advice(error, target)) from error
    if answer is None:
        raise BrokerError(
            f"{wish}: no broker answered within {wait_s:g} s. `alpaca-broker watch --status` shows "
            f"whether one leads"
        )
    _tell(wish, answer, wait_s)


def _answer(pubsub: PubSub, wait_s: float) -> Message | None:
    """The last word in time; one that is pending only where no other came."""
    until = monotonic() + wait_s
    found: Message | None = None
    while (left := until - monotonic()) > 0:
        message = pubsub.get_message(timeout=left)
        if message is None or message["type"] != "message":
            continue
        try:
            answer = json.loads(message["data"])
        except (ValueError, RecursionError):
            continue  # whoever it was, the broker's own is yet to come
        if not isinstance(answer, dict):
            continue
        if not answer.get("pending"):
            return answer
        if found is None:
            typer.echo("the broker has it, and waits for Alpaca ...", err=True)
        found = answer
    return found


def _tell(wish: _Wish, answer: Message, wait_s: float) -> None:
    from alpaca_broker.cli.message_lines import accepted_lines, rejected_lines

    accepted = accepted_lines(answer, taken_back=wish.action == "unregister")
    rejected = rejected_lines(answer)
    for line in accepted:
        typer.echo(line)
    for line in rejected:
        typer.echo(line, err=True)
    if answer.get("pending"):
        whether = "the rest is" if accepted or rejected else "it is"
        typer.echo(
            f"Alpaca is not connected, so {whether} not decided within {wait_s:g} s: the broker "
            f"keeps it and asks for it as soon as it can"
        )
    elif answer.get("status") == "error":
        raise typer.Exit(1)
    elif not (accepted or rejected):
        typer.echo(f"{wish}: done")
