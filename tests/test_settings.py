"""Settings: the exact names, the environment first, and one line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from alpaca_broker.broker import AlpacaBroker
from alpaca_broker.errors import ConfigError
from alpaca_broker.settings import Settings, load_settings, read_settings

KEYS = "PAPER_ALPACA_API_KEY_ID=PK1\nPAPER_ALPACA_API_SECRET_KEY=s3cret-s3cret\n"


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    """A file with a pair of paper keys."""
    path = tmp_path / ".env"
    path.write_text(KEYS)
    return path


def problem(env_file: Path) -> str:
    """What `load_settings` complains about; always one line."""
    with pytest.raises(ConfigError) as caught:
        load_settings(env_file)
    text = str(caught.value)
    assert "\n" not in text
    assert "s3cret" not in text
    return text


def test_the_file_is_read_and_the_environment_wins(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sources, in this order."""
    env_file.write_text(KEYS + "REDIS_PORT=7000\nREDIS_HOST=there\n")
    monkeypatch.setenv("REDIS_PORT", "7001")
    settings = load_settings(env_file)
    assert (settings.redis_host, settings.redis_port) == ("there", 7001)


def test_defaults_are_alpacas_own_places(env_file: Path) -> None:
    """The URLs and the feed that a user expects."""
    settings = load_settings(env_file)
    assert (
        settings.market_stream_url(settings.feeds().stocks)
        == "wss://stream.data.alpaca.markets/v2/iex"
    )
    assert settings.trading_stream_url("paper") == "wss://paper-api.alpaca.markets/stream"
    assert settings.trading_stream_url("live") == "wss://api.alpaca.markets/stream"
    assert settings.redis().where == "127.0.0.1:6379"
    assert (settings.log_level, settings.prices_when_behind) == ("INFO", "conflate")


@pytest.mark.parametrize(
    ("feed", "path"),
    [("sip", "/v2/sip"), ("boats", "/v1beta1/boats"), ("OVERNIGHT", "/v1beta1/overnight")],
)
def test_each_feed_has_its_path(env_file: Path, feed: str, path: str) -> None:
    """In whatever case it is written."""
    env_file.write_text(KEYS + f"ALPACA_FEED={feed}\nALPACA_DATA_STREAM_URL=http://h:1/\n")
    settings = load_settings(env_file)
    assert settings.market_stream_url(settings.feeds().stocks) == f"ws://h:1{path}"


def test_live_keys_serve_the_data_unless_told_otherwise(env_file: Path) -> None:
    """`live` if configured, else `paper`; ALPACA_DATA_ACCOUNT decides."""
    assert load_settings(env_file).data_keys().key_id == "PK1"
    env_file.write_text(KEYS + "ALPACA_API_KEY_ID=AK1\nALPACA_API_SECRET_KEY=x\n")
    assert load_settings(env_file).data_keys().key_id == "AK1"
    assert [p.environment for p in load_settings(env_file).key_pairs()] == ["paper", "live"]
    env_file.write_text(env_file.read_text() + "ALPACA_DATA_ACCOUNT=paper\n")
    assert load_settings(env_file).data_keys().key_id == "PK1"


def test_the_markets_hours_are_asked_for_with_the_keys_of_market_data(env_file: Path) -> None:
    """At the address of their environment; with those of other accounts only after them."""
    env_file.write_text(KEYS + "ALPACA_API_KEY_ID=AK1\nALPACA_API_SECRET_KEY=x\n")
    settings = load_settings(env_file)
    rests = [make(None) for make in AlpacaBroker(settings)._trading_rests()]  # type: ignore[arg-type]
    assert [(rest._headers["APCA-API-KEY-ID"], rest._base) for rest in rests] == [
        ("AK1", settings.alpaca_live_url),
        ("PK1", settings.alpaca_paper_url),
    ]


def test_named_accounts_are_read_from_both_places(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their variables as all others: quotes, whichever case, the environment first; never shown."""
    swing = "swing_alpaca_api_key_id='PK2'\nSWING_ALPACA_API_SECRET_KEY=other-s3cret\n"
    env_file.write_text(KEYS + "ALPACA_ACCOUNTS=swing\n" + swing)
    monkeypatch.setenv("SWING_ALPACA_ENVIRONMENT", "live")
    settings = load_settings(env_file)
    swing_pair = settings.key_pairs()[1]
    assert (swing_pair.label, swing_pair.environment, swing_pair.key_id) == ("swing", "live", "PK2")
    assert {"PK2", "other-s3cret"} <= set(settings.secrets())
    assert "s3cret" not in f"{settings!r} {settings.key_pairs()!r}"
    assert settings.data_keys().label == "paper"
    env_file.write_text(env_file.read_text() + "ALPACA_DATA_ACCOUNT=Swing\n")
    assert load_settings(env_file).data_keys().label == "swing"
    env_file.write_text("ALPACA_ACCOUNTS=swing\n" + swing)
    assert load_settings(env_file).data_keys().label == "swing"


def test_a_named_account_without_keys_is_named(env_file: Path) -> None:
    """By its variable."""
    env_file.write_text(KEYS + "ALPACA_ACCOUNTS=swing\nSWING_ALPACA_API_KEY_ID=PK2\n")
    assert problem(env_file).startswith("SWING_ALPACA_API_SECRET_KEY is missing")
    assert problem(env_file).endswith(f"in {env_file}")
    env_file.write_text(KEYS + "ALPACA_DATA_ACCOUNT=swing\n")
    assert problem(env_file) == "ALPACA_DATA_ACCOUNT is swing, but ALPACA_ACCOUNTS has no such"


def test_no_keys_names_what_to_set(tmp_path: Path) -> None:
    """Both pairs and the file."""
    empty = tmp_path / "empty.env"
    empty.touch()
    text = problem(empty)
    assert "PAPER_ALPACA_API_KEY_ID and PAPER_ALPACA_API_SECRET_KEY" in text
    assert str(empty) in text


def test_half_a_pair_names_the_missing_half(env_file: Path) -> None:
    """Whichever it is; an empty value is a missing one."""
    env_file.write_text("PAPER_ALPACA_API_KEY_ID=PK1\nPAPER_ALPACA_API_SECRET_KEY=\n")
    assert problem(env_file).startswith("PAPER_ALPACA_API_SECRET_KEY is missing")
    assert problem(env_file).endswith(f"in {env_file}")
    env_file.write_text(KEYS + "ALPACA_API_SECRET_KEY=x\n")
    assert problem(env_file).startswith("ALPACA_API_KEY_ID is missing")


def test_a_data_account_without_keys_is_named(env_file: Path) -> None:
    """Instead of falling back in silence."""
    env_file.write_text(KEYS + "ALPACA_DATA_ACCOUNT=live\n")
    assert "ALPACA_API_KEY_ID and ALPACA_API_SECRET_KEY are not set" in problem(env_file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_PORT", "abc"),
        ("REDIS_PORT", "0"),
        ("REDIS_DB", "-1"),
        ("REDIS_TLS", "perhaps"),
        ("REDIS_URL", "http://h"),
        ("REDIS_URL", "redis://:s3cret@h:port/0"),
        ("REDIS_URL", "redis://:s3cret@h/zero"),
        ("REDIS_URL", "redis://h?db=3"),
        ("REDIS_URL", "unix:///s?db=2"),
        ("REDIS_URL", "redis://h/-1"),
        ("ALPACA_PAPER_URL", "https://paper-api.alpaca.markets/v2"),
        ("LOG_LEVEL", "LOUD"),
        ("ALPACA_FEED", "siphon"),
        ("ALPACA_DATA_STREAM_URL", "stream.data.alpaca.markets"),
        ("ALPACA_PAPER_URL", "ftp://h"),
        ("ALPACA_LIVE_URL", "https://key:s3cret@h"),
        ("CHANNEL_PREFIX", "with space"),
        ("PRICES_WHEN_BEHIND", "drop"),
        ("PRICE_BUFFER", "1"),
        ("CANARY_SYMBOL", "SPY,QQQ"),
        ("ALPACA_ACCOUNTS", "paper"),
    ],
)
def test_a_wrong_value_names_the_variable_and_where_it_is(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """In the file, and in the environment."""
    env_file.write_text(KEYS + f"{name}={value}\n")
    assert problem(env_file).startswith(f"{name} in {env_file}: ")
    env_file.write_text(KEYS)
    monkeypatch.setenv(name, value)
    assert problem(env_file).startswith(f"{name} in the environment: ")


@pytest.mark.parametrize(
    ("url", "where", "tls", "db", "user", "password"),
    [
        ("redis://h", "h:6379", False, 0, None, None),
        ("rediss://u:p%40@h:7/3", "h:7", True, 3, "u", "p@"),
        ("redis://:p@h", "h:6379", False, 0, None, "p"),
        ("unix:///run/redis.sock", "/run/redis.sock", False, 0, None, None),
    ],
)
def test_redis_urls_are_read(
    env_file: Path,
    url: str,
    where: str,
    tls: bool,
    db: int,
    user: str | None,
    password: str | None,
) -> None:
    """REDIS_URL wins over the single variables."""
    env_file.write_text(KEYS + f"REDIS_URL={url}\nREDIS_HOST=other\nREDIS_PASSWORD=other\n")
    target = load_settings(env_file).redis()
    assert (target.where, target.tls, target.db) == (where, tls, db)
    assert (target.username, target.password) == (user, password)


def test_blanks_and_quotes_around_a_value_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker --env-file` keeps the quotes that people write."""
    monkeypatch.setenv("PAPER_ALPACA_API_KEY_ID", '"PK1"')
    monkeypatch.setenv("PAPER_ALPACA_API_SECRET_KEY", " 's3cret' ")
    monkeypatch.setenv("REDIS_HOST", ' "there" ')
    monkeypatch.setenv("REDIS_PORT", "'7000'")
    settings = load_settings(Path("none"))
    assert settings.data_keys().key_id == "PK1"
    assert settings.data_keys().secret == "s3cret"
    assert settings.redis().where == "there:7000"


def test_what_was_given_is_shown_unless_it_is_secret(env_file: Path) -> None:
    """In plain words."""
    env_file.write_text(KEYS + "REDIS_PORT=abc\n")
    assert problem(env_file).endswith("must be a whole number, not 'abc'")
    env_file.write_text(KEYS + "LOG_LEVEL=LOUD\n")
    assert "must be DEBUG, INFO" in problem(env_file)


def test_secrets_stay_out_of_every_repr(env_file: Path) -> None:
    """Settings, key pairs, the Redis target."""
    env_file.write_text(KEYS + "REDIS_URL=redis://:p4ssword@h\n")
    settings = load_settings(env_file)
    shown = f"{settings!r} {settings.key_pairs()!r} {settings.redis()!r} {settings.data_keys()}"
    assert "s3cret" not in shown
    assert "p4ssword" not in shown
    assert {"PK1", "s3cret-s3cret", "p4ssword"} <= set(settings.secrets())


def test_a_bot_needs_no_keys(tmp_path: Path) -> None:
    """Only where Redis is."""
    assert read_settings(tmp_path / "none").redis().port == 6379


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    """Not a traceback."""
    path = tmp_path / ".env"
    path.write_bytes(b"\xff\xfe\x00REDIS_PORT=1")
    assert str(path) in problem(path)


def test_every_setting_is_frozen(env_file: Path) -> None:
    """What is shared between threads cannot be changed."""
    settings = load_settings(env_file)
    with pytest.raises(ValueError, match="frozen"):
        settings.redis_port = 1
    assert isinstance(settings, Settings)
