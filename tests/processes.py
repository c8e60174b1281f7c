"""The command line as real processes, in an environment that holds nothing of the surroundings."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from types import TracebackType

from overhearing import overhear
from support import KEY_ID, PATIENCE_S, SECRET, eventually

ROOT = Path(__file__).resolve().parent.parent


def clean_environment(**values: str) -> dict[str, str]:
    """Only what a program needs to start, and the given values."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "error"} | values


def broker_environment(url: str, redis_port: int, **more: str) -> dict[str, str]:
    """The variables of a broker with a paper account at a simulator; what it says is checked."""
    overhear(redis_port, more.get("CHANNEL_PREFIX", ""))
    return clean_environment(
        PAPER_ALPACA_API_KEY_ID=KEY_ID,
        PAPER_ALPACA_API_SECRET_KEY=SECRET,
        ALPACA_DATA_STREAM_URL=url.replace("http", "ws"),
        ALPACA_DATA_URL=url,
        ALPACA_PAPER_URL=url,
        ALPACA_LIVE_URL=url,
        REDIS_HOST="127.0.0.1",
        REDIS_PORT=str(redis_port),
        **more,
    )


class Process:
    """`alpaca-broker …` as a process whose lines are collected; killed on leaving if need be."""

    def __init__(self, *arguments: str, env: dict[str, str], cwd: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "alpaca_broker", *arguments],
            env=env,
            cwd=cwd or ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: deque[str] = deque(maxlen=10_000)
        self._reader = threading.Thread(target=self._read, name="process output")
        self._reader.start()

    @property
    def output(self) -> str:
        """Everything that it has said."""
        return "\n".join(self.lines)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def says(self, text: str, within_s: float = 2 * PATIENCE_S) -> str:
        """Wait for a line that holds `text`, and return it."""
        return eventually(
            lambda: next((line for line in list(self.lines) if text in line), ""),
            within_s,
            why=f"it never said {text!r}, but:\n{self.output}",
        )

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def ends(self, within_s: float = 2 * PATIENCE_S) -> int:
        """Wait for its end; returns the exit code."""
        code = self._process.wait(within_s)
        self._reader.join(within_s)
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.ends()
        assert self._process.stdout is not None
        self._process.stdout.close()
