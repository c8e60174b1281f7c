"""The processes of a run: started, spoken to, looked at from outside, ended.

Owns every process it starts: `Processes` ends all of them, whatever happens. What they cost is read
from /proc, so that nothing that is measured has to measure itself.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import redis

from alpaca_broker.core.channels import Channels
from alpaca_broker.embedded import EmbeddedRedis

ROOT = Path(__file__).resolve().parent.parent
KEY_ID, SECRET = "PKBENCH", "secret-of-the-benchmark"  # the simulator's
WITHIN_S = 60.0
QUIET = 20  # commands in a tenth of a second

T = TypeVar("T")


class BenchError(Exception):
    """Something did not run as it should; the text says what it said."""


def until(
    condition: Callable[[], T], why: str, within_s: float = WITHIN_S, every_s: float = 0.002
) -> T:
    """The first true value of `condition`.

    Raises:
        BenchError: none came in time.
    """
    end = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise BenchError(f"not within {within_s:.0f} s: {why}")
        time.sleep(every_s)
    return value


class Process:
    """One process; what it says is kept in a file."""

    def __init__(self, *words: str, env: dict[str, str], talks: bool) -> None:
        self.name = " ".join(words[1:3])
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self.began = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, *words],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else self._said,
            stderr=self._said,
        )
        self.pid = self._process.pid

    @property
    def cpu_s(self) -> float:
        """Processor time so far, of all threads that run."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    @property
    def memory_mb(self) -> float:
        """Resident memory in MB of 10**6 bytes."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) * 1024 / 1e6 if found else 0.0

    @property
    def said(self) -> str:
        """Its last words."""
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - 1500))
        return self._said.read().decode(errors="replace")

    def pause(self) -> None:
        """Stop it where it is; its backlog stays as it is."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def ask_to_end(self) -> None:
        """Tell it; may be called again."""
        if self._process.poll() is not None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        else:
            self._process.terminate()
        self.resume()

    def end(self, within_s: float = 8.0) -> None:
        """Tell it, and see to it; may be called again."""
        self.ask_to_end()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()


class Child(Process):
    """A process of `bench.children`."""

    def __init__(self, name: str, *words: str, env: dict[str, str]) -> None:
        super().__init__("-m", f"bench.children.{name}", *words, env=env, talks=True)
        self._hear()

    def do(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Ask for something, and wait for the answer.

        Raises:
            BenchError: the process ended instead.
        """
        assert self._process.stdin is not None
        line = json.dumps({"do": what} | arguments) + "\n"
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise BenchError(f"{self.name} ended:\n{self.said}") from error
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise BenchError(f"{self.name} ended:\n{self.said}")
        found: dict[str, Any] = json.loads(line)
        return found


class Feeder(Child):
    """A simulator with prepared trades."""

    def __init__(self, *, env: dict[str, str]) -> None:
        super().__init__("feeder", env=env)
        self.url: str = self.do("where")["url"]

    def has_client(self) -> bool:
        """Whether somebody is authenticated, and has asked for something."""
        state = self.do("state")
        return bool(state["live"] and state["subscribed"])


class Broker(Process):
    """`alpaca-broker run`, with a feeder of its own, an account at the desk and a prefix."""

    def __init__(self, feeder: Feeder, prefix: str, env: dict[str, str]) -> None:
        super().__init__("-m", "alpaca_broker", "run", env=env, talks=False)
        self.feeder, self.prefix = feeder, prefix


class Processes:
    """Everything that one measurement needs, on one Valkey; ended with it."""

    def __init__(self) -> None:
        self._stack, self._started = ExitStack(), list[Process]()
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._env = kept | {"PYTHONPATH": str(ROOT)}
        self._prefixes = 0

    def __enter__(self) -> Self:
        unbounded: Any = {"client-output-buffer-limit": "pubsub 0 0 0"}
        server = EmbeddedRedis(**unbounded)
        self.port = self._stack.enter_context(server).port
        self.redis = redis.Redis(port=self.port)
        self._stack.callback(self.redis.close)
        self._desk = ""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._started:
            process.ask_to_end()  # all at once, for each takes its time
        self._stack.close()

    def _own(self, process: Process) -> None:
        self._started.append(process)
        self._stack.callback(process.end)

    def child(self, name: str, *words: str, **more: str) -> Child:
        """Start one of `bench.children`."""
        child = Child(name, *words, env=self._env | more)
        self._own(child)
        return child

    def feeder(self) -> Feeder:
        """Start a feeder."""
        feeder = Feeder(env=self._env)
        self._own(feeder)
        return feeder

    def desk(self, *words: str) -> str:
        """Start a simulator that answers REST and has the accounts; its address."""
        words = ("-m", "alpaca_broker", "simulate", "--port", "0", *words)
        simulator = Process(*words, env=self._env, talks=False)
        self._own(simulator)
        pattern = re.compile(r"http://[0-9.]+:[0-9]+")
        found: list[str] = until(lambda: pattern.findall(simulator.said), "the simulator listens")
        return found[0]

    def environment(self, feeder: Feeder, prefix: str, desk: str, **more: str) -> dict[str, str]:
        """The settings of a broker."""
        return self._env | {
            "PAPER_ALPACA_API_KEY_ID": KEY_ID,
            "PAPER_ALPACA_API_SECRET_KEY": SECRET,
            "ALPACA_FEED": "sip",
            "ALPACA_DATA_STREAM_URL": feeder.url.replace("http", "ws"),
            "ALPACA_DATA_URL": desk,
            "ALPACA_PAPER_URL": desk,
            "ALPACA_LIVE_URL": desk,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.port),
            "CHANNEL_PREFIX": prefix,
            "CHECK_SYMBOLS": "false",  # the simulator lists other symbols than ours
            "FORGET_UNHEARD_AFTER": "31536000",  # also where nobody listens, on purpose
            **more,
        }

    def broker(
        self, *, desk: str = "", prefix: str | None = None, live: bool = True, **more: str
    ) -> Broker:
        """Start a broker; with `live`, return once it is."""
        if not desk:
            desk = self._desk = self._desk or self.desk()
        self._prefixes += 1
        prefix, feeder = f"b{self._prefixes}:" if prefix is None else prefix, self.feeder()
        broker = Broker(feeder, prefix, self.environment(feeder, prefix, desk, **more))
        self._own(broker)
        if live:
            self.until_live(broker)
        return broker

    def status(self, broker: Broker) -> dict[str, Any]:
        """The broker's last heartbeat; empty where there is none."""
        found = self.redis.get(Channels(broker.prefix).status)
        status: dict[str, Any] = json.loads(found) if isinstance(found, bytes) else {}
        return status

    def until_live(self, broker: Broker) -> None:
        """Wait for a heartbeat that says so."""
        try:
            until(lambda: self.status(broker).get("state") == "live", "a live broker")
        except BenchError as error:
            raise BenchError(f"{error}\n{broker.said}") from error

    def register(self, broker: Broker, names: list[str], bot_id: str = "bench") -> None:
        """Register symbols, and wait until Alpaca has confirmed them."""
        wish = {"action": "register", "symbols": names, "bot_id": bot_id}
        channel = Channels(broker.prefix).registration
        until(lambda: self.redis.publish(channel, json.dumps(wish)), "a broker that listens")
        until(
            lambda: self.status(broker)["feeds"]["sip"]["symbols"] >= len(names),
            f"{len(names)} symbols, confirmed",
        )

    def settle(self) -> None:
        """Wait until nothing is published any more but heartbeats."""
        before = -1
        while (now := self.published()) - before > QUIET:
            before = now
            time.sleep(0.1)

    def published(self) -> int:
        """How many PUBLISH commands the server has carried out."""
        found: Any = self.redis.info("commandstats")
        return int(found.get("cmdstat_publish", {}).get("calls", 0))
