"""Where a bot's Redis is, and what to look at when it cannot be reached.

Owns the choice between a URL, a target, a host and the settings, and the options of every
connection: no retries, short deadlines. Opens nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from redis import AuthenticationError, Redis
from redis import ConnectionError as RedisConnectionError
from redis import TimeoutError as RedisTimeoutError
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationWrongNumberOfArgsError, NoPermissionError
from redis.retry import Retry

from alpaca_broker import client
from alpaca_broker.errors import UsageError, tls_refusal

if TYPE_CHECKING:
    from alpaca_broker.settings import RedisTarget


class Place:
    """One Redis and one deployment's prefix. Its repr shows no secret."""

    def __init__(
        self, where: str, prefix: str, *, url: str | None = None, target: RedisTarget | None = None
    ) -> None:
        self.where, self.prefix = where, prefix
        self._url, self._target = url, target

    def __repr__(self) -> str:
        return f"Place({self.where!r}, {self.prefix!r})"

    def redis(self, name: str) -> Redis:
        """A client that fails at once instead of trying again. Nothing is opened yet."""
        options: dict[str, Any] = {
            "protocol": 2,  # what is pushed then has one form, whatever Redis' age
            "socket_timeout": client.ANSWER_WITHIN_S,
            "socket_connect_timeout": client.CONNECT_WITHIN_S,
            "retry": Retry(NoBackoff(), 0),  # sent twice would be worse than an error
        }
        if self._target is not None:
            return Redis(**self._target.options(name), socket_keepalive=True, **options)
        assert self._url is not None
        if not self._url.startswith("unix"):
            options["socket_keepalive"] = True
        return Redis.from_url(self._url, client_name=name, **options)


def find_place(
    url: str | None = None,
    target: RedisTarget | None = None,
    host: str | None = None,
    port: int = 6379,
    prefix: str | None = None,
) -> Place:
    """Where Redis is: as told, else as the settings say.

    The prefix is the settings' too where neither it nor a place was told, else empty.

    Raises:
        ConfigError: a setting is wrong.
        UsageError: the URL is none of Redis', or several places were told.
    """
    if sum(given is not None for given in (url, target, host)) > 1:
        raise UsageError("name Redis once: by url, by target or by host")
    if host is not None:
        url = f"redis://[{host}]:{port}" if ":" in host else f"redis://{host}:{port}"
    if url is not None:
        try:
            parts = urlsplit(url)
            port = parts.port or 6379
        except ValueError as error:
            raise UsageError(f"the port in the URL of Redis: {error}") from None
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise UsageError("a URL of Redis is redis://host:port/db, rediss://… or unix:///path")
        where = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{port}"
        return Place(where, prefix or "", url=url)
    if target is not None:
        return Place(target.where, prefix or "", target=target)
    target, prefix = from_settings(None, prefix)
    return Place(target.where, prefix, target=target)


def from_settings(target: RedisTarget | None, prefix: str | None) -> tuple[RedisTarget, str]:
    """What of the two is missing, as the settings say.

    Raises:
        ConfigError: a setting is wrong.
    """
    if target is None or prefix is None:
        # Not above: it takes longer to import than all the rest, and not everyone needs it.
        from alpaca_broker.settings import read_settings

        settings = read_settings()
        target = settings.redis() if target is None else target
        prefix = settings.channel_prefix if prefix is None else prefix
    return target, prefix


def advice(error: Exception) -> str:
    """What went wrong with Redis and what to look at, for a person."""
    match error:
        case AuthenticationError() | AuthenticationWrongNumberOfArgsError():
            return "it refused the login: check REDIS_USERNAME and REDIS_PASSWORD"
        case NoPermissionError():
            return f"it does not permit this: check the user's ACL rules ({error})"
        case RedisTimeoutError() | TimeoutError():
            return "no answer in time: is it overloaded, or a firewall in between?"
        case RedisConnectionError() | OSError() if (refusal := tls_refusal(error)) is not None:
            return f"TLS failed: {refusal}. Check REDIS_TLS and REDIS_TLS_CA, or the URL's"
        case RedisConnectionError() | OSError():
            return "it cannot be reached: is it running? Check REDIS_HOST and REDIS_PORT"
        case _:
            return str(error)
