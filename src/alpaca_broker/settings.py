"""What the broker is told: the environment first, then `configs/.env`.

Owns names, defaults and checks of all settings. A wrong or missing value becomes a `ConfigError` of
one line that names the variable and where it was found; secrets never enter a text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from msgspec import Struct
from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.sources import read_env_file

from alpaca_broker.core.accounts import (
    LIVE,
    PAPER,
    Environment,
    KeyPair,
    account_names,
    named_accounts,
)
from alpaca_broker.core.feeds import Feed, Feeds
from alpaca_broker.errors import ConfigError

ENV_FILE = Path("configs/.env")

StockFeed = Literal["iex", "sip", "delayed_sip", "test", "boats", "overnight"]
CryptoFeed = Literal["us", "us-1", "eu-1"]
OptionFeed = Literal["indicative", "opra"]
WhenBehind = Literal["conflate", "wait"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def _upper(value: Any) -> Any:
    return value.strip().upper() if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


class RedisTarget(Struct, frozen=True):
    """Where Redis is, and how to be let in. Its repr shows no secret."""

    host: str
    port: int
    db: int
    username: str | None = None
    password: str | None = None
    tls: bool = False
    tls_ca: str | None = None
    unix_path: str | None = None

    def __repr__(self) -> str:
        return f"RedisTarget({self.where!r})"

    @property
    def where(self) -> str:
        """The address, for messages; without user and password."""
        return self.unix_path or f"{self.host}:{self.port}"

    def options(self, client_name: str) -> dict[str, Any]:
        """The same as keyword arguments of a redis-py client, which CLIENT LIST then names."""
        options: dict[str, Any] = {"host": self.host, "port": self.port}
        if self.unix_path is not None:
            options = {"unix_socket_path": self.unix_path}
        elif self.tls:
            options |= {"ssl": True, "ssl_ca_certs": self.tls_ca}
        login = {"username": self.username, "password": self.password}
        return options | login | {"db": self.db, "client_name": client_name}


class Settings(BaseSettings):
    """All settings; each field is the variable of the same name in upper case."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    paper_alpaca_api_key_id: SecretStr | None = None
    paper_alpaca_api_secret_key: SecretStr | None = None
    alpaca_api_key_id: SecretStr | None = None
    alpaca_api_secret_key: SecretStr | None = None
    alpaca_accounts: str = ""
    _named: tuple[KeyPair, ...] = PrivateAttr(default=())
    _file: Path = PrivateAttr(default=ENV_FILE)

    alpaca_feed: Annotated[StockFeed, BeforeValidator(_lower)] = "iex"
    alpaca_crypto_feed: Annotated[CryptoFeed, BeforeValidator(_lower)] = "us"
    alpaca_option_feed: Annotated[OptionFeed, BeforeValidator(_lower)] = "indicative"
    alpaca_data_account: Annotated[str | None, BeforeValidator(_lower)] = None
    alpaca_data_stream_url: str = "wss://stream.data.alpaca.markets"
    alpaca_data_url: str = "https://data.alpaca.markets"
    alpaca_paper_url: str = "https://paper-api.alpaca.markets"
    alpaca_live_url: str = "https://api.alpaca.markets"

    redis_host: str = "127.0.0.1"
    redis_port: Annotated[int, Field(ge=1, le=65_535)] = 6379
    redis_db: Annotated[int, Field(ge=0, le=65_535)] = 0
    redis_username: str | None = None
    redis_password: SecretStr | None = None
    redis_tls: bool = False
    redis_tls_ca: Path | None = None
    redis_url: SecretStr | None = None

    channel_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{0,64}$")] = ""
    prices_when_behind: Annotated[WhenBehind, BeforeValidator(_lower)] = "conflate"
    price_buffer: Annotated[int, Field(ge=100, le=10_000_000)] = 50_000
    canary_symbol: Annotated[str, BeforeValidator(_upper)] = ""
    backfill_trades: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    max_symbols_per_bot: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    max_symbols_per_message: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    max_message_bytes: Annotated[int, Field(ge=200, le=100_000_000)] = 1_000_000
    max_messages_per_second: Annotated[float, Field(gt=0, le=100_000)] = 50.0
    symbol_linger: Annotated[float, Field(ge=0, le=3_600)] = 5.0
    feed_linger: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    forget_unheard_after: Annotated[float, Field(ge=1, le=31_536_000)] = 600.0
    listening_is_enough: bool = True
    check_symbols: bool = True
    reconcile_calls_per_minute: Annotated[float, Field(ge=1, le=100_000)] = 20.0
    order_journal_length: Annotated[int, Field(ge=100, le=10_000_000)] = 10_000
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] = "INFO"

    @field_validator(
        "alpaca_data_stream_url", "alpaca_paper_url", "alpaca_live_url", "alpaca_data_url"
    )
    @classmethod
    def _is_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
            raise ValueError("must be a URL such as https://host or ws://host:port")
        if parts.username or parts.password:
            raise ValueError("must not hold a user or password; keys have their own variables")
        if parts.path.rstrip("/") == "/v2":
            raise ValueError("must end before /v2, which the broker adds itself")
        return value.rstrip("/")

    @field_validator("canary_symbol")
    @classmethod
    def _is_symbol(cls, value: str) -> str:
        if not re.fullmatch(r"([A-Z0-9.]{1,21}(/[A-Z0-9]{1,10})?)?", value):
            raise ValueError(f"must be one symbol, such as SPY or BTC/USD, not {value!r}")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _tidied(cls, value: Any) -> Any:
        return tidied(value) if isinstance(value, str) else value

    @field_validator("alpaca_accounts")
    @classmethod
    def _are_names(cls, value: str) -> str:
        account_names(value)
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _redis_from_url(value.get_secret_value(), None)
        return value

    @property
    def env_file(self) -> Path:
        """Where to look for what the environment does not give; for messages."""
        return self._file

    def key_pairs(self) -> tuple[KeyPair, ...]:
        """The configured accounts: paper, live, and those that have names.

        Raises:
            ConfigError: no pair is configured, or half of one is missing.
        """
        pairs, problems = [], []
        kinds: tuple[tuple[Environment, tuple[str, str]], ...] = (("paper", PAPER), ("live", LIVE))
        for environment, names in kinds:
            key_id, secret = (self._secret(name.lower()) for name in names)
            if key_id and secret:
                pairs.append(KeyPair(environment, key_id, secret, variables=names))
            elif key_id or secret:
                missing = names[1] if key_id else names[0]
                problems.append(
                    f"{missing} is missing: set it in the environment or in {self.env_file}"
                )
        if problems:
            raise ConfigError(problems)
        if not (pairs or self._named):
            raise ConfigError(
                f"no Alpaca keys: set {' and '.join(PAPER)} (or {' and '.join(LIVE)}) in the "
                f"environment or in {self.env_file}"
            )
        return (*pairs, *self._named)

    def data_keys(self) -> KeyPair:
        """The pair that the market-data link uses: live if configured, else the first.

        Raises:
            ConfigError: the account that ALPACA_DATA_ACCOUNT names has no keys.
        """
        pairs = {pair.label.lower(): pair for pair in self.key_pairs()}
        wanted = self.alpaca_data_account or ("live" if "live" in pairs else next(iter(pairs)))
        if wanted in pairs:
            return pairs[wanted]
        names = {"paper": PAPER, "live": LIVE}.get(wanted)
        reason = f"{' and '.join(names)} are not set" if names else "ALPACA_ACCOUNTS has no such"
        raise ConfigError(f"ALPACA_DATA_ACCOUNT is {wanted}, but {reason}")

    def trading_url(self, environment: Environment) -> str:
        """The base URL of an account's REST and order stream."""
        return self.alpaca_live_url if environment == "live" else self.alpaca_paper_url

    def feeds(self) -> Feeds:
        """The configured market-data feeds."""
        return Feeds(self.alpaca_feed, self.alpaca_crypto_feed, self.alpaca_option_feed)

    def market_stream_url(self, feed: Feed) -> str:
        """The WebSocket of a market-data feed."""
        return _as_ws(self.alpaca_data_stream_url) + feed.path

    def trading_stream_url(self, environment: Environment) -> str:
        """The order stream of an account (Alpaca's page "Websocket Streaming")."""
        return _as_ws(self.trading_url(environment)) + "/stream"

    def redis(self) -> RedisTarget:
        """Where Redis is; `REDIS_URL` wins over the single variables."""
        ca = str(self.redis_tls_ca) if self.redis_tls_ca else None
        if self.redis_url is not None:
            return _redis_from_url(self.redis_url.get_secret_value(), ca)
        return RedisTarget(
            host=self.redis_host,
            port=self.redis_port,
            db=self.redis_db,
            username=self.redis_username,
            password=self._secret("redis_password"),
            tls=self.redis_tls,
            tls_ca=ca,
        )

    def secrets(self) -> tuple[str, ...]:
        """Every configured secret, for redaction."""
        names = [*map(str.lower, PAPER + LIVE), "redis_password", "redis_url"]
        named = [secret for pair in self._named for secret in (pair.key_id, pair.secret)]
        return tuple(s for s in (*map(self._secret, names), *named, self.redis().password) if s)

    def with_accounts(self, variables: Mapping[str, str]) -> Settings:
        """The same with the accounts that ALPACA_ACCOUNTS names, whose keys are among these.

        Raises:
            ConfigError: one line for each that is missing or wrong.
        """
        found = self.model_copy()
        names = account_names(self.alpaca_accounts)
        found._named = named_accounts(names, variables, str(self.env_file))
        return found

    def _secret(self, name: str) -> str | None:
        value: SecretStr | None = getattr(self, name)
        return (value.get_secret_value().strip() or None) if value else None


def load_settings(env_file: Path = ENV_FILE) -> Settings:
    """Read and check what the broker needs, keys included.

    Raises:
        ConfigError: one line for each wrong or missing value.
    """
    settings = read_settings(env_file).with_accounts(_variables(env_file))
    settings.data_keys()
    return settings


def read_settings(env_file: Path = ENV_FILE) -> Settings:
    """Read and check what is set; a bot needs no keys, only where Redis is.

    Raises:
        ConfigError: one line for each wrong value.
    """
    try:
        settings = Settings(_env_file=env_file)
    except ValidationError as error:
        raise ConfigError([_one_line(e, env_file) for e in error.errors()]) from None
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{env_file} cannot be read: {error}") from None
    settings._file = env_file
    return settings


def _variables(env_file: Path) -> dict[str, str]:
    """Every variable that is set, in upper case; the environment wins over the file."""
    written = read_env_file(env_file) if env_file.is_file() else {}
    given = [*written.items(), *os.environ.items()]
    return {name.upper(): tidied(value) for name, value in given if value and tidied(value)}


def tidied(value: str) -> str:
    """Without blanks around it, and without the quotes that `docker --env-file` keeps."""
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return value


def _one_line(error: Any, env_file: Path) -> str:
    name = str(error["loc"][0]).upper() if error["loc"] else "settings"
    where = "the environment" if name in {n.upper() for n in os.environ} else str(env_file)
    return f"{name} in {where}: {_reason(error)}"


def _reason(error: Any) -> str:
    """What is wrong, in plain words; what was given is shown, but for secrets."""
    context, given = error.get("ctx", {}), f", not {error['input']!r}"
    match error["type"]:
        case "int_parsing" | "int_from_float":
            return f"must be a whole number{given}"
        case "float_parsing":
            return f"must be a number{given}"
        case "bool_parsing" | "bool_type":
            return f"must be true or false{given}"
        case "literal_error":
            return f"must be {context['expected'].replace(chr(39), '')}{given}"
        case "greater_than_equal" | "greater_than":
            return f"must be at least {context.get('ge', context.get('gt'))}{given}"
        case "less_than_equal":
            return f"must be at most {context['le']}{given}"
        case "string_pattern_mismatch":
            return f"may hold letters, digits and . _ : - only (at most 64){given}"
    return str(error["msg"]).removeprefix("Value error, ")


def _as_ws(url: str) -> str:
    return "ws" + url.removeprefix("http") if url.startswith("http") else url


def as_http(url: str) -> str:
    """A base URL for REST, whichever of ws and http it was written with."""
    return "http" + url.removeprefix("ws") if url.startswith("ws") else url


def _redis_from_url(url: str, ca: str | None) -> RedisTarget:
    parts = urlsplit(url)
    password = unquote(parts.password) if parts.password else None
    username = unquote(parts.username) if parts.username else None
    if parts.scheme == "unix" and parts.path and not parts.query:
        return RedisTarget("", 0, 0, username, password, unix_path=unquote(parts.path))
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ValueError(
            "must be redis://[user:password@]host[:port][/db], rediss://… or unix:///path"
        )
    if parts.query or parts.fragment:
        raise ValueError("must end with the database number: options after ? are not understood")
    try:
        port, db = parts.port or 6379, int(parts.path.strip("/") or 0)
        if db < 0:
            raise ValueError
    except ValueError:
        raise ValueError("the port and the database number must be whole numbers") from None
    tls = parts.scheme == "rediss"
    return RedisTarget(parts.hostname, port, db, username, password, tls, ca)
