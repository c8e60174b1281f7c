"""`run`: wrong settings in one line each, and a clean end whatever is unreachable."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import pytest
import redis
from support import closed_port, eventually

from alpaca_broker.simulator import SimulatorOptions, SimulatorThread

SECRET = "very-secret-value"
KEYS = {"PAPER_ALPACA_API_KEY_ID": "key", "PAPER_ALPACA_API_SECRET_KEY": SECRET}


def nowhere() -> dict[str, str]:
    """Variables that keep every connection on this machine, where nobody listens."""
    names = ("DATA_STREAM_URL", "DATA_URL", "PAPER_URL", "LIVE_URL")
    return {f"ALPACA_{name}": f"http://127.0.0.1:{closed_port()}" for name in names}


def test_missing_keys_are_one_line(start: Any) -> None:
    """Without keys the message names the variables; exit code 2."""
    command = start("run")
    assert command.code() == 2
    assert command.err == (
        "alpaca-broker: no Alpaca keys: set PAPER_ALPACA_API_KEY_ID and "
        "PAPER_ALPACA_API_SECRET_KEY (or ALPACA_API_KEY_ID and ALPACA_API_SECRET_KEY) in the "
        "environment or in configs/.env\n"
    )
    assert command.out == ""


def test_each_wrong_setting_is_one_line(start: Any) -> None:
    """All problems at once, each with its variable; no traceback and no secret."""
    command = start("run", REDIS_PORT="many", ALPACA_FEED="bloomberg", **KEYS)
    assert command.code() == 2
    lines = command.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("alpaca-broker: ALPACA_FEED in the environment: ")
    assert lines[1].startswith("alpaca-broker: REDIS_PORT in the environment: ")
    assert SECRET not in command.err


def test_half_a_key_pair_names_the_other_half(start: Any) -> None:
    """A key id without its secret says which variable is missing."""
    command = start("run", PAPER_ALPACA_API_KEY_ID="key")
    assert command.code() == 2
    assert command.err == (
        "alpaca-broker: PAPER_ALPACA_API_SECRET_KEY is missing: set it in the environment or in "
        "configs/.env\n"
    )


def test_a_named_settings_file_must_exist(start: Any) -> None:
    """A mistyped --env-file is not silently ignored."""
    command = start("run", "--env-file", "nothing.env", **KEYS)
    assert command.code() == 2
    assert command.err == "alpaca-broker: nothing.env does not exist: check --env-file\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_unreachable_redis_is_explained_and_tried_again(start: Any, number: signal.Signals) -> None:
    """The advice is logged, the broker keeps trying, and a signal ends it with 0."""
    port = closed_port()
    command = start("run", REDIS_PORT=str(port), **KEYS, **nowhere())
    command.says(f"Redis at 127.0.0.1:{port} cannot be reached: is it running?")
    assert command.process.poll() is None
    assert command.end(number) == 0
    assert "Traceback" not in command.err
    assert SECRET not in command.err + command.out


def test_a_second_signal_does_nothing_worse(start: Any) -> None:
    """An impatient user still gets the orderly end."""
    command = start("run", REDIS_PORT=str(closed_port()), **KEYS, **nowhere())
    command.says("cannot be reached")
    command.process.send_signal(signal.SIGINT)
    command.process.send_signal(signal.SIGINT)
    assert command.end() == 0
    assert "Traceback" not in command.err


def test_embedded_redis_says_where_it_is_and_ends_with_the_broker(
    start: Any, listening: Any
) -> None:
    """With --embedded-redis the broker beats on a port of its own, which is gone afterwards."""
    with SimulatorThread(SimulatorOptions()) as simulator:
        urls = dict.fromkeys(nowhere(), simulator.url)
        # The user's own Redis settings must not reach into the embedded server's.
        other = {"REDIS_URL": "redis://user:pass@127.0.0.1:1/3"}
        command = start("run", "--embedded-redis", **KEYS, **urls, **other)
        command.says("iex feed is live")
        match = re.search(r"redis-cli -p (\d+)`.* REDIS_PORT=(\d+)", command.err)
        assert match is not None
        assert match[1] == match[2]
        with redis.Redis("127.0.0.1", int(match[1])) as client:

            def state() -> str:
                status = json.loads(client.get("broker:status"))
                return str(status["feeds"]["iex"]["state"])

            eventually(lambda: state() == "live")  # it is logged first
        assert command.end() == 0
    assert not listening(int(match[1]))


def test_refused_keys_end_with_advice(start: Any) -> None:
    """Keys that Alpaca refuses for good: one line that says what to check, exit code 2."""
    with SimulatorThread(SimulatorOptions(keys={"other": "pair"})) as simulator:
        urls = dict.fromkeys(nowhere(), simulator.url)
        command = start("run", "--embedded-redis", **KEYS, **urls)
        assert command.code() == 2
    last = command.err.splitlines()[-1]
    assert last.startswith("alpaca-broker: Alpaca refused everything (")
    assert "PAPER_ALPACA_API_KEY_ID" in last
    assert "Traceback" not in command.err
    assert SECRET not in command.err
