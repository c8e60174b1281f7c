"""Redis as a bot sees it: plain redis-py, and the contract's messages.

Owns how the command line reaches Redis and builds registrations. It uses nothing of the broker's
own way to Redis: what works here works for every bot.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from alpaca_broker.core.registration import BadRegistration, parse
from alpaca_broker.errors import ConfigError
from alpaca_broker.settings import ENV_FILE, RedisTarget, Settings, read_settings

ANSWER_WITHIN_S = 5.0
CONNECT_WITHIN_S = 3.0


def settings_for_bots(env_file: Path | None) -> Settings:
    """Where Redis is and which prefix is used; needs no keys.

    Raises:
        ConfigError: a setting is wrong, or the named file does not exist.
    """
    return read_settings(existing(env_file))


def existing(env_file: Path | None) -> Path:
    """The settings file to read. Only the default one may be missing.

    Raises:
        ConfigError: the named file does not exist.
    """
    if env_file is None:
        return ENV_FILE
    if not env_file.exists():
        raise ConfigError(f"{env_file} does not exist: check --env-file")
    return env_file


def client(target: RedisTarget, name: str) -> redis.Redis:
    """A client for `target` that fails at once instead of trying again. Nothing is opened yet."""
    return redis.Redis(
        **target.options(name),
        socket_timeout=ANSWER_WITHIN_S,
        socket_connect_timeout=CONNECT_WITHIN_S,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
    )


def symbols_of(words: Sequence[str]) -> list[str]:
    """Symbols as they were typed: any case, separated by blanks or commas."""
    names = [name.strip().upper() for word in words for name in word.split(",")]
    return list(dict.fromkeys(name for name in names if name))


def registration(
    action: str,
    symbols: Sequence[str],
    *,
    account_id: str | None = None,
    bot_id: str | None = None,
    ttl: float | None = None,
    reply_to: str | None = None,
) -> bytes:
    """The contract's message, checked with the broker's own eyes before it is sent.

    Raises:
        ConfigError: the broker would refuse it, or a symbol in it.
    """
    fields = {"account_id": account_id, "bot_id": bot_id, "ttl": ttl, "reply_to": reply_to}
    message = {"action": action, "symbols": list(symbols)}
    payload = json.dumps(message | {k: v for k, v in fields.items() if v is not None}).encode()
    try:
        checked = parse(payload)
    except BadRegistration as error:
        raise ConfigError(str(error)) from None
    if checked.rejected:
        raise ConfigError([f"{r.symbol}: {r.reason}" for r in checked.rejected])
    return payload
