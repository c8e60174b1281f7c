"""Small tools for tests: waiting for a condition, a broker in its surroundings, a plain bot."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

import redis
from contract_schema import offence
from overhearing import overhear

from alpaca_broker.broker import AlpacaBroker
from alpaca_broker.core.channels import Channels
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.settings import Settings
from alpaca_broker.simulator import SimulatorThread

T = TypeVar("T")

KEY_ID, SECRET = "PKTEST", "secret-of-the-tests"
PATIENCE_S = 45.0  # costs time only where something is broken: a busy machine is not


def eventually(condition: Callable[[], T], within_s: float = PATIENCE_S, why: str = "") -> T:
    """The first true value of `condition`; fails where none came in time."""
    until = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < until, why or f"not within {within_s} s"
        time.sleep(0.01)
    return value


def settings(valkey_port: int, url: str, **changes: Any) -> Settings:
    """Settings of a paper account at a simulator, read from nowhere else."""
    values: dict[str, Any] = {
        "paper_alpaca_api_key_id": KEY_ID,
        "paper_alpaca_api_secret_key": SECRET,
        "alpaca_data_stream_url": url,
        "alpaca_data_url": url,
        "alpaca_paper_url": url,
        "alpaca_live_url": url,
        "redis_port": valkey_port,
        "symbol_linger": 0.0,
    }
    return Settings(_env_file=None, **(values | changes))


class Stopwatch:
    """How long something took, as this process lived it.

    A process that the scheduler does not let run, or a whole machine that stands still, does not
    age: what is due in five seconds is late by our doing only if we could have been quicker.
    """

    TICK_S = 0.02

    def __init__(self) -> None:
        self.seconds = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stopwatch", daemon=True)

    def _run(self) -> None:
        before = time.monotonic()
        while not self._over.wait(self.TICK_S):
            now = time.monotonic()
            self.seconds += min(now - before, 2 * self.TICK_S)
            before = now

    def start(self) -> Stopwatch:
        """From now on."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Until now; may be called again."""
        self._over.set()
        self._thread.join()

    def __enter__(self) -> Stopwatch:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


_held: list[socket.socket] = []


def closed_port() -> int:
    """A port on which nobody listens, nor will before this process ends: it is ours."""
    holds = socket.socket()
    holds.bind(("127.0.0.1", 0))
    _held.append(holds)
    port: int = holds.getsockname()[1]
    return port


def free_port() -> int:
    """A port on which nobody listens yet; somebody else may, before we do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def frozen(server: EmbeddedRedis) -> Iterator[None]:
    """Redis is stopped as a whole, with all its connections open."""
    with redis.Redis(port=server.port) as plain:
        process = int(plain.info("server")["process_id"])
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


class Bot:
    """A plain redis-py subscriber, as somebody without our library would write it."""

    def __init__(self, port: int, *channels: str) -> None:
        self._client = redis.Redis(port=port)
        self._pubsub = self._client.pubsub()
        self._early: deque[Any] = deque()  # what came while we waited for a confirmation
        if channels:
            self.subscribe(*channels)

    def subscribe(self, *channels: str) -> None:
        """Subscribe, and return once the server has confirmed."""
        self._pubsub.subscribe(*channels)
        self._confirmed("subscribe", len(channels))

    def subscribe_to_pattern(self, pattern: str) -> None:
        """The same with a pattern."""
        self._pubsub.psubscribe(pattern)
        self._confirmed("psubscribe", 1)

    def _confirmed(self, kind: str, count: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while count:
            assert time.monotonic() < until, f"Redis did not confirm: {kind}"
            if (message := self._pubsub.get_message(timeout=1)) is not None:
                count -= message["type"] == kind
                self._early.append(message)

    def send(self, channel: str, message: Any) -> int:
        """Publish a message (bytes as they are, else as JSON); returns the receivers."""
        data = message if isinstance(message, bytes) else json.dumps(message)
        return int(self._client.publish(channel, data))

    def next(self, within_s: float = PATIENCE_S) -> tuple[str, dict[str, Any]]:
        """The next message: its channel and its decoded data."""
        until = time.monotonic() + within_s
        while (left := until - time.monotonic()) > 0:
            early = self._early
            message = early.popleft() if early else self._pubsub.get_message(timeout=left)
            if message is not None and message["type"] in ("message", "pmessage"):
                channel, found = message["channel"].decode(), json.loads(message["data"])
                # Whatever a bot of the tests hears is held against the contract's schemas.
                assert (problem := offence(found)) is None, f"{problem}, on {channel}: {found}"
                return channel, found
        raise AssertionError(f"no message within {within_s} s")

    def until(
        self, condition: Callable[[str, dict[str, Any]], bool], within_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """The next message that meets the condition."""
        end = time.monotonic() + within_s
        while True:
            channel, message = self.next(max(0.01, end - time.monotonic()))
            if condition(channel, message):
                return message

    def close(self) -> None:
        self._pubsub.close()
        self._client.close()

    def __enter__(self) -> Bot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Rig:
    """A broker that runs between a Valkey and a simulator."""

    def __init__(
        self,
        valkey: EmbeddedRedis,
        simulator: SimulatorThread,
        *,
        prefix: str = "",
        **changes: Any,
    ) -> None:
        self.valkey, self.simulator = valkey, simulator
        self.channels = Channels(prefix)
        self.settings = settings(valkey.port, simulator.url, channel_prefix=prefix, **changes)
        self.broker = AlpacaBroker(self.settings)

    def configure(self, variables: dict[str, str], **changes: Any) -> None:
        """Before the start: other settings, and the variables of named accounts."""
        self.settings = self.settings.model_copy(update=changes).with_accounts(variables)
        self.broker = AlpacaBroker(self.settings)

    def start(self, *, live: bool = True) -> Rig:
        """Start the broker; with `live`, wait until both streams are."""
        overhear(self.valkey.port, self.channels.prefix)
        self.broker.start()
        if live:
            eventually(lambda: self.broker.status().state == "live", why="the broker is not live")
        return self

    def bot(self, *channels: str) -> Bot:
        """A plain bot that hears these channels."""
        return Bot(self.valkey.port, *channels)

    def register(self, *symbols: str, bot_id: str = "tester", **more: Any) -> None:
        """Register symbols, and wait until Alpaca has confirmed them."""
        message = {"action": "register", "symbols": list(symbols), "bot_id": bot_id, **more}
        with self.bot() as bot:
            eventually(lambda: bot.send(self.channels.registration, message))
        eventually(lambda: set(symbols) <= set(self.broker.symbols), why=f"{symbols} not live")

    def __enter__(self) -> Rig:
        return self.start()

    def stop(self) -> None:
        """Stop the broker; how long that may take is test_shutdown.py's matter."""
        eventually(self.broker.stop, why="a thread of the broker did not end")

    def __exit__(self, *_: object) -> None:
        self.stop()


def rest(
    url: str, method: str, path: str, body: dict[str, Any] | None = None, key: str = KEY_ID
) -> Any:
    """One call of the simulator's REST, as a bot would make it; returns the decoded answer."""
    request = urllib.request.Request(  # noqa: S310 - loopback
        url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": SECRET},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310
        text = answer.read()
    return json.loads(text) if text else None


def buy(url: str, symbol: str = "AAPL", qty: int = 1, key: str = KEY_ID, **more: Any) -> Any:
    """Place a market order for `symbol`; returns the order."""
    order = {"symbol": symbol, "qty": str(qty), "side": "buy", "type": "market"}
    return rest(url, "POST", "/v2/orders", order | {"time_in_force": "day"} | more, key)
