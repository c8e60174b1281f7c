"""redis-py connections, as every part but the hot path uses them.

Owns their names and deadlines. Retries are switched off: each caller has its own patience, and
knows whether its command may be sent twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from alpaca_broker.core.lease import Link, link_of
from alpaca_broker.errors import tls_refusal
from alpaca_broker.settings import RedisTarget

ANSWER_WITHIN_S = 5.0
CONNECT_WITHIN_S = 3.0


# A new connection, and what Redis calls it.
OnConnected = Callable[[Any, Link], Awaitable[None]]


def connect(
    target: RedisTarget, name: str, *, on_connected: OnConnected | None = None
) -> redis.Redis:
    """A client for `target`; `name` shows in Redis' CLIENT LIST. Nothing is opened yet."""
    return redis.Redis(
        **target.options(name),
        protocol=2,  # nothing here needs 3, whose greeting takes two more questions
        redis_connect_func=None if on_connected is None else _greeting(on_connected),
        # Deadlines are the callers', by `deadline()`: redis-py's own would send by way of
        # asyncio.wait_for, which on Python 3.11 can swallow a cancellation (seen: a thread that
        # did not end).
        socket_timeout=None,
        socket_connect_timeout=CONNECT_WITHIN_S,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
    )


def _greeting(on_connected: OnConnected) -> Callable[[Any], Awaitable[None]]:
    """What redis-py says first over each new connection, and then asks what Redis calls it."""

    async def greet(connection: Any) -> None:
        await connection.on_connect()
        await connection.send_command("CLIENT", "INFO")
        try:
            found = link_of(await connection.read_response())
        except ResponseError:
            found = Link()  # not permitted: then nobody can cut it, either
        await on_connected(connection, found)

    return greet


def deadline() -> asyncio.Timeout:
    """The time that Redis has for an answer; over it, TimeoutError (which is an OSError)."""
    return asyncio.timeout(ANSWER_WITHIN_S)


def advice(error: Exception, target: RedisTarget) -> str:
    """What went wrong with Redis and what to look at, for a person."""
    where = target.where
    if isinstance(error, (AuthenticationError, AuthenticationWrongNumberOfArgsError)):
        return f"Redis at {where} refused the login: check REDIS_USERNAME and REDIS_PASSWORD"
    if isinstance(error, NoPermissionError):
        return f"Redis at {where} does not permit it: check the user's ACL rules ({error})"
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return f"Redis at {where} does not answer: overloaded, without TLS, or behind a firewall"
    if (refusal := tls_refusal(error)) is not None:
        return f"TLS to Redis at {where} failed: {refusal}. Check REDIS_TLS and REDIS_TLS_CA"
    if isinstance(error, RedisConnectionError | OSError):
        return (
            f"Redis at {where} cannot be reached: is it running? Check REDIS_HOST and REDIS_PORT "
            f"(or REDIS_URL), or start the broker with --embedded-redis"
        )
    return f"Redis at {where}: {error}"


__all__ = ["OnConnected", "RedisError", "advice", "connect", "deadline"]
