"""What people hear of a Redis that is away: each reason, once."""

from __future__ import annotations

import logging

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from alpaca_broker.bus.reachability import MOST_REASONS, Reachability
from alpaca_broker.settings import RedisTarget


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of it."""
    return [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]


def test_the_first_reason_hides_no_other_one(caplog: pytest.LogCaptureFixture) -> None:
    """A machine that was busy for a moment, and then what is really wrong; neither again."""
    redis = Reachability(RedisTarget("127.0.0.1", 6379, 0))
    for error in (RedisTimeoutError(), RedisConnectionError(), RedisTimeoutError()):
        redis.failed(error)
    slow, gone = errors(caplog)
    assert "does not answer" in slow
    assert "cannot be reached: is it running?" in gone
    assert not redis.is_up
    redis.answered()
    redis.failed(RedisTimeoutError())
    assert errors(caplog)[2:] == [slow]


def test_reasons_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """However many texts a server thinks of."""
    redis = Reachability(RedisTarget("127.0.0.1", 6379, 0))
    for number in range(50):
        redis.failed(ValueError(f"reason {number}"))
    assert len(errors(caplog)) == MOST_REASONS
