"""`simulate`: what it prints is what a broker needs."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_how_to_reach_it_and_ends_cleanly(start: Any, number: signal.Signals) -> None:
    """The printed lines are valid settings, with which the account answers."""
    command = start("simulate", "--port", "0")
    command.says("PAPER_ALPACA_API_SECRET_KEY=")
    first, *rest = command.out.splitlines()
    settings = dict(line.split("=", 1) for line in rest)
    assert first.startswith("# The simulator listens on http://127.0.0.1:")
    address = settings["ALPACA_PAPER_URL"].removeprefix("http://")
    assert settings == {
        "ALPACA_DATA_STREAM_URL": f"ws://{address}",
        "ALPACA_DATA_URL": f"http://{address}",
        "ALPACA_PAPER_URL": f"http://{address}",
        "ALPACA_LIVE_URL": f"http://{address}",
        "PAPER_ALPACA_API_KEY_ID": "demo",
        "PAPER_ALPACA_API_SECRET_KEY": "demo-secret",
    }
    request = Request(
        f"http://{address}/v2/account",
        headers={
            "APCA-API-KEY-ID": settings["PAPER_ALPACA_API_KEY_ID"],
            "APCA-API-SECRET-KEY": settings["PAPER_ALPACA_API_SECRET_KEY"],
        },
    )
    with build_opener(ProxyHandler({})).open(request, timeout=5) as response:
        assert response.status == 200
    assert command.end(number) == 0
    assert command.err == ""


def test_a_taken_port_is_one_line(start: Any) -> None:
    """Somebody else's port: what to do, exit code 1."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = start("simulate", "--port", str(port))
        assert command.code() == 1
    assert command.err == (
        f"alpaca-broker: port {port} on 127.0.0.1 is taken: choose another with --port, or 0 for "
        f"any free one\n"
    )


def test_a_bad_tick_file_is_one_line(start: Any, tmp_path: Path) -> None:
    """A file that is no tick file is named; exit code 2."""
    bad = tmp_path / "spy_20131007_trade.zip"
    bad.write_bytes(b"not a zip")
    command = start("simulate", "--port", "0", "--ticks", str(bad))
    assert command.code() == 2
    assert command.err.startswith(f"alpaca-broker: {bad}: is not a readable zip")
    assert len(command.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--speed", "fast"), "speed must be \"max\" or a positive number, not 'fast'"),
        (("--rate", "0"), "rate must be a positive number, not 0.0"),
        (("--time", "soon"), "time must be \"now\" or like 2026-11-27T12:59, not 'soon'"),
        (("--key", "half"), "--key takes a key id and a secret, as in --key demo:secret"),
    ],
)
def test_a_wrong_option_is_one_line(start: Any, arguments: tuple[str, ...], message: str) -> None:
    """The option at fault is named; exit code 2."""
    command = start("simulate", "--port", "0", *arguments)
    assert command.code() == 2
    assert command.err == f"alpaca-broker: {message}\n"


def test_given_keys_are_not_repeated_in_full(start: Any) -> None:
    """The secret that was given with --key is not printed."""
    command = start("simulate", "--port", "0", "--key", "me:hidden-word")
    command.says("PAPER_ALPACA_API_KEY_ID=me")
    assert command.end() == 0
    assert "hidden-word" not in command.out + command.err
