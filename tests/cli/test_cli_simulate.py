"""`simulate`: what it prints is what a broker needs."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from support import PATIENCE_S, eventually
from typer.testing import CliRunner

from alpaca_broker.cli import main
from alpaca_broker.cli.app import app
from alpaca_broker.simulator.fault_script import listing


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
    with build_opener(ProxyHandler({})).open(request, timeout=PATIENCE_S) as response:
        assert response.status == 200
    assert command.end(number) == 0
    assert command.err == ""


def test_a_typo_can_be_practised(start: Any) -> None:
    """What is no asset is not found, however it was typed; all else is."""
    command = start("simulate", "--port", "0", "--unknown-asset", "aaple")
    command.says("PAPER_ALPACA_API_SECRET_KEY=")
    (address,) = re.findall("ALPACA_PAPER_URL=http://(.*)", command.out)
    found = {}
    for symbol in ("AAPLE", "AAPL"):
        keys = {"APCA-API-KEY-ID": "demo", "APCA-API-SECRET-KEY": "demo-secret"}
        request = Request(f"http://{address}/v2/assets/{symbol}", headers=keys)
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=5) as response:
                found[symbol] = response.status
        except HTTPError as error:
            found[symbol] = error.code
    assert found == {"AAPLE": 404, "AAPL": 200}


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
        (
            ("--fault", "mute"),
            "'mute' is no fault: a fault is NAME@WHEN[+DURATION][:COUNT, STREAM or PATH], as in "
            "mute@10s or cut@1m:market",
        ),
        (
            ("--fault", "mut@10s"),
            "no such fault: 'mut'; did you mean mute? `--fault help` lists them",
        ),
        (("--time", "soon"), "time must be \"now\" or like 2026-11-27T12:59, not 'soon'"),
        (("--key", "half"), "--key takes a key id and a secret, as in --key demo:secret"),
    ],
)
def test_a_wrong_option_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    """The option at fault is named; exit code 2."""
    with pytest.raises(SystemExit) as end:
        main(["simulate", "--port", "0", *arguments])
    assert end.value.code == 2
    assert capsys.readouterr().err == f"alpaca-broker: {message}\n"


def test_given_keys_are_not_repeated_in_full(start: Any) -> None:
    """The secret that was given with --key is not printed."""
    command = start("simulate", "--port", "0", "--key", "me:hidden-word")
    command.says("PAPER_ALPACA_API_KEY_ID=me")
    assert command.end() == 0
    assert "hidden-word" not in command.out + command.err


def test_faults_happen_and_are_said_beside_the_settings(start: Any) -> None:
    """From the first connection on: the socket is cut, standard error says so, orders came."""
    command = start("simulate", "--port", "0", "--orders", "200", "--fault", "cut@100ms:trading")
    command.says("PAPER_ALPACA_API_SECRET_KEY=")
    settings = command.out
    port = int(re.search(r"127\.0\.0\.1:(\d+)", settings)[1])  # type: ignore[index]
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as raw:
        raw.sendall(
            b"GET /stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\n\r\n"
        )
        with contextlib.suppress(ConnectionResetError):
            while frames := raw.recv(4096):
                assert frames.startswith(b"HTTP/1.1 101")  # and no close frame
    said = "fault cut@100ms:trading: the sockets break without a close frame\n"
    command.says(said)
    request = Request(
        f"http://127.0.0.1:{port}/v2/orders?status=all",
        headers={"APCA-API-KEY-ID": "demo", "APCA-API-SECRET-KEY": "demo-secret"},
    )

    def orders() -> bytes:
        with build_opener(ProxyHandler({})).open(request, timeout=PATIENCE_S) as response:
            return bytes(response.read())

    eventually(lambda: b'"client_order_id":"flow1.0"' in orders())
    assert command.end() == 0
    assert (command.out, command.err) == (settings, said)


def test_fault_help_lists_every_fault() -> None:
    """One line each, and no simulator is started."""
    result = CliRunner().invoke(app, ["simulate", "--fault", "help"])
    assert result.exit_code == 0
    assert result.output.splitlines()[3:] == listing()


def test_the_page_on_practising_has_every_fault_as_it_is() -> None:
    """docs/practising.md and the code say the same."""
    page = (Path(__file__).parents[2] / "docs" / "practising.md").read_text()
    rows = re.findall(r"^\| `(\S+@WHEN.*?)` \| (.*) \|$", page, re.MULTILINE)
    assert [f"{usage:<42} {meaning}" for usage, meaning in rows] == listing()
