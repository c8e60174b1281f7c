"""`alpaca-broker watch`: prices and orders as lines in a terminal.

Owns what is watched and what is said of it. The connection's life stands in `listening`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from typing import Annotated, Any

import typer

from alpaca_broker.cli import message_lines
from alpaca_broker.cli.shared_options import EnvFile
from alpaca_broker.cli.stop_request import stop_on_signals

NO_HEARTBEAT_S = 3.0
LEASE_S = 30
MOST_REFUSED = 100  # lines about them


def watch(
    symbols: Annotated[
        list[str] | None,
        typer.Argument(metavar="SYMBOL", help="What to watch; nothing means everything."),
    ] = None,
    orders: Annotated[
        list[str] | None,
        typer.Option(metavar="ACCOUNT_ID", help="An account's orders too; may be repeated."),
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="The broker's status at each change; alone, that only.")
    ] = False,
    register: Annotated[
        bool, typer.Option(help="Register the symbols, for as long as this runs.")
    ] = True,
    env_file: EnvFile = None,
) -> None:
    """Print prices and orders as they come, one line each, until Ctrl-C.

    With symbols it registers them as a bot of its own, and unregisters at the end.

    With nothing at all, it listens by pattern to whatever other bots have registered.
    """
    from alpaca_broker.cli import bot_redis
    from alpaca_broker.cli.listening import Listening
    from alpaca_broker.core.channels import ORDER, PRICE, Channels

    settings = bot_redis.settings_for_bots(env_file)
    channels = Channels(settings.channel_prefix)
    names, accounts = bot_redis.symbols_of(symbols or []), list(dict.fromkeys(orders or []))
    everything = not names and not accounts and not status
    patterns = [f"{channels.prefix}{PRICE}*"] if everything or "*" in names else []
    patterns += [f"{channels.prefix}{ORDER}*"] if everything else []
    exact = [channels.price(name) for name in names if name != "*"] + [
        channels.order(account) for account in accounts
    ]
    bot_id = _bot_id()
    reply_to = channels.reply(bot_id)
    wishes = _wishes(bot_id, names, accounts, reply_to) if register else []
    screen = Screen(with_status=status)
    listening = Listening(
        settings.redis(),
        channels=[channels.status, *exact, *([reply_to] if wishes else [])],
        patterns=patterns,
        registration_channel=channels.registration,
        registrations=[payload for payload, _ in wishes],
        farewells=[payload for _, payload in wishes],
        hear=screen.hear,
        say=screen.say,
    )
    if everything:
        screen.say(
            f"watching what other bots want, by pattern ({channels.price('*')}); registers nothing"
        )
    else:
        screen.say(_headline(names, accounts, bot_id if wishes else None))
    try:
        with stop_on_signals() as stop:
            listening.run(stop, screen.tick)
    except BrokenPipeError:
        # Whoever read our lines has gone (`| head`): what is still buffered has no reader.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Screen:
    """Prints messages as lines, and says when the broker falls silent."""

    def __init__(self, *, with_status: bool) -> None:
        self._with_status = with_status
        self._last_beat = time.monotonic()
        self._silent = False
        self._shown: str | None = None
        self._refused: set[str] = set()

    def hear(self, payload: bytes) -> None:
        """Print one message. Never raises for what somebody published."""
        now = time.time()
        try:
            message: Any = json.loads(payload)
        except (ValueError, RecursionError):
            message = None
        kind = message.get("type") if isinstance(message, dict) else None
        if kind == "price_update":
            self._print(message_lines.price_line(message, now))
        elif kind == "order_update":
            self._print(message_lines.order_line(message, now))
        elif kind == "gap":
            self.say(message_lines.gap_line(message))
        elif kind == "status":
            self._beat(message)
        elif kind == "registration":
            self._answered(message)
        else:
            text = message_lines.clean(payload.decode("utf-8", "replace"))
            self.say(f"not a message of the contract: {text}")

    def tick(self, connected: bool) -> None:
        """Look at the heartbeat; called many times a second."""
        now = time.monotonic()
        if not connected:
            self._last_beat = now  # that Redis is gone was said
        elif not self._silent and now - self._last_beat >= NO_HEARTBEAT_S:
            self._silent = True
            self.say("no heartbeat: prices may be stale (is the broker running?)")

    def say(self, text: str) -> None:
        """A line about the watching itself."""
        self._print(f"{message_lines.clock(time.time())} -- {text}", dim=True)

    def _answered(self, message: dict[str, Any]) -> None:
        """What is refused is said once, however often the registration is renewed."""
        for line in message_lines.rejected_lines(message):
            if line not in self._refused and len(self._refused) < MOST_REFUSED:
                self._refused.add(line)
                self.say(line)

    def _beat(self, message: dict[str, Any]) -> None:
        self._last_beat = time.monotonic()
        if self._silent:
            self._silent = False
            self.say("the heartbeat is back")
        if self._with_status:
            line = message_lines.status_line(message)
            is_news = line != self._shown
        else:
            line = message_lines.trouble_line(message)
            is_news = line != (self._shown or "broker live")  # that goes without saying at first
        self._shown = line
        if is_news:
            self.say(line)

    def _print(self, line: str, *, dim: bool = False) -> None:
        typer.echo(typer.style(line, dim=True) if dim and sys.stdout.isatty() else line)


def _bot_id() -> str:
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:40]
    return f"watch-{host}-{os.getpid()}"


def _wishes(
    bot_id: str, names: list[str], accounts: list[str], reply_to: str
) -> list[tuple[bytes, bytes]]:
    """What to say to register, and what to say at the end; a bot follows one account at most."""
    from alpaca_broker.cli.bot_redis import registration

    bots = [(bot_id, names, accounts[0] if accounts else None)] if names or accounts else []
    bots += [(f"{bot_id}.{n}", [], account) for n, account in enumerate(accounts[1:], 2)]
    return [
        (
            registration(
                *("register", symbols),
                account_id=account,
                bot_id=bot,
                ttl=LEASE_S,
                reply_to=reply_to,
            ),
            registration("unregister", [], bot_id=bot),
        )
        for bot, symbols, account in bots
    ]


def _headline(names: list[str], accounts: list[str], bot_id: str | None) -> str:
    if not names and not accounts:
        return "watching the broker's status"
    what = ", ".join([*names, *(f"orders of {account}" for account in accounts)])
    return f"watching {what}, " + (f"registered as {bot_id}" if bot_id else "registering nothing")
