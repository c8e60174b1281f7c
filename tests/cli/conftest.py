"""Real commands in processes of their own, and a real Redis for them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from support import eventually

from alpaca_broker.embedded import EmbeddedRedis

OURS = ("REDIS_", "ALPACA_", "PAPER_ALPACA_", "CHANNEL_PREFIX", "LOG_LEVEL", "PRICE", "ORDER_")


class Command:
    """An `alpaca-broker` process whose output goes to files."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], environment: dict[str, str]):
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "alpaca_broker", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=environment,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def says(self, text: str) -> None:
        """Wait until `text` is in the output."""

        def said() -> bool:
            if text in self.out + self.err:
                return True
            assert self.process.poll() is None, f"it ended: {self.out}{self.err}"
            return False

        eventually(said)

    def code(self, within_s: float = 90.0) -> int:
        """Wait for the end; the exit code."""
        return self.process.wait(within_s)

    def end(self, number: signal.Signals = signal.SIGTERM, within_s: float = 90.0) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.code(within_s)


Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts commands in empty folders and an environment without our variables."""
    commands: list[Command] = []

    def start_one(*arguments: str, **variables: str) -> Command:
        clean = {k: v for k, v in os.environ.items() if not k.upper().startswith(OURS)}
        folder = tmp_path / str(len(commands))
        folder.mkdir()
        command = Command(folder, arguments, clean | {"COLUMNS": "100"} | variables)
        commands.append(command)
        return command

    yield start_one
    for command in commands:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait(60)


def is_listening(port: int) -> bool:
    """Whether anybody takes connections there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def listening() -> Callable[[int], bool]:
    """Asks whether anybody listens on a local port."""
    return is_listening


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    """A Redis of this module's own."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def bot(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    """A plain Redis client, as a bot has it."""
    with redis.Redis("127.0.0.1", server.port, decode_responses=True) as client:
        yield client
