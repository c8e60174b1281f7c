"""`demo`: everything at work, seen from outside."""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest

HOSTILE = {  # a user's own settings, none of which may reach the demo
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "REDIS_PASSWORD": "x",
    "ALPACA_API_KEY_ID": "real",
    "ALPACA_API_SECRET_KEY": "real-secret",
    "ALPACA_FEED": "sip",
    "CHANNEL_PREFIX": "mine:",
    "http_proxy": "http://127.0.0.1:1",
}


def redis_port(text: str) -> int:
    """Where the demo's Redis is."""
    match = re.search(r"Redis at 127\.0\.0\.1:(\d+)", text)
    assert match is not None
    return int(match[1])


def test_it_shows_prices_and_orders_and_ends_by_itself(start: Any, listening: Any) -> None:
    """Four seconds without a terminal: prices, orders, no hole, no control character."""
    command = start("demo", "--seconds", "4", **HOSTILE)
    assert command.code() == 0
    assert command.err == ""
    assert not re.search(r"[^\n\x20-\x7e]", command.out)
    prices = re.search(r"prices   ([\d,]+) published .* ([\d,]+) delivered", command.out)
    orders = re.search(r"orders   (\d+) updates of \d+ orders: .*\d filled", command.out)
    assert prices is not None
    assert orders is not None
    assert int(prices[1].replace(",", "")) > 100
    assert int(orders[1]) > 1
    assert "holes    0\n" in command.out
    assert "feed iex live, 6 symbols" in command.out
    assert not listening(redis_port(command.out))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_summary(
    start: Any, listening: Any, number: signal.Signals
) -> None:
    """An interrupted demo still says what it saw, and leaves nothing behind."""
    command = start("demo")
    command.says("feed iex live")
    command.process.send_signal(number)
    assert command.end(number) == 0  # a second one does nothing worse
    assert "The demo ran for" in command.out
    assert "Traceback" not in command.err
    assert not listening(redis_port(command.out))


def test_a_bad_tick_file_is_one_line(start: Any) -> None:
    """Nothing is started for a file that cannot be read; exit code 2."""
    command = start("demo", "--ticks", "spy_20131007_trade.zip")
    assert command.code() == 2
    assert command.err == "alpaca-broker: spy_20131007_trade.zip: No such file or directory\n"
