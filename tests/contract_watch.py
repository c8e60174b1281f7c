"""Hears what every broker of a test run says, and compares it with docs/asyncapi.yaml.

A process of its own, so that the broker under test does not pay for it. It listens to the channels
of each real broker (under the prefix of its own that a test gives it), from before that broker
starts until after it has stopped, and to the answers. It exempts:

- `broker:registration`: what bots say is theirs, and tests say rubbish on purpose;
- prefixes without a real broker: there a test plays the broker;
- on `broker:status`, what has no `epoch`: a broker never omits it;
- answers under an epoch that no real broker's heartbeat has, since their channels have no prefix;
- servers that a test has for itself, to stop, freeze or fill.

So whoever plays the broker in a test does it under a prefix without one. `Watch` is the test's
side; as a program (`python contract_watch.py PORT`) it is the listener.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from selectors import EVENT_READ, DefaultSelector
from typing import Any

import hiredis
from contract_schema import Validator, load_generator

ANSWERS = "*repl*"  # how tests and the client library name their channels for answers
MOST_REPORTED = 10

TAGS = {
    "price_update": "PriceUpdate",
    "order_update": "OrderUpdate",
    "status": "Status",
    "gap": "Gap",
    "log": "LogRecord",
    "registration": "RegistrationAnswer",
}
STATUS = {"status", "gap"}
SAID_ON = {
    "price:": {"price_update"},
    "order:": {"order_update"},
    "broker:status": STATUS,
    "broker:logs": {"log"},
}


class Judge:
    """What is said on which channel, against the schemas. No I/O."""

    def __init__(self) -> None:
        self._validator = Validator(load_generator().schemas())
        self.prefixes: set[str] = set()
        self._epochs: set[int] = set()
        self._answers: deque[tuple[str, bytes, dict[str, Any]]] = deque(maxlen=100_000)
        self.seen: Counter[str] = Counter()
        self.offences: list[str] = []

    def hear(self, channel: str, payload: bytes) -> None:
        """Take one message; what is wrong with it goes into `offences`."""
        try:
            message = json.loads(payload)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            message = {}
        allowed = self._allowed(channel)
        if allowed is None:
            self._answers.append((channel, payload, message))  # whose it is may show later
        elif allowed != STATUS or "epoch" in message:
            self._compare(allowed, channel, payload, message)

    def end(self) -> None:
        """Everything is heard: take the answers of the brokers that were heard."""
        for channel, payload, message in self._answers:
            if message.get("epoch") in self._epochs:
                self._compare({"registration"}, channel, payload, message)

    def _compare(
        self, allowed: set[str], channel: str, payload: bytes, message: dict[str, Any]
    ) -> None:
        tag = message.get("type")
        if tag in allowed:
            self.seen[tag] += 1
            problem = self._validator.problem(TAGS[tag], message)
        else:
            problem = f"type is {tag!r}, not {' or '.join(sorted(allowed))}"
        if tag == "status" and problem is None:
            self._epochs.add(message["epoch"])
        if problem is not None and len(self.offences) < MOST_REPORTED:
            said = payload[:600].decode(errors="replace")
            self.offences.append(f"{problem}, on {channel}: {said}")

    def _allowed(self, channel: str) -> set[str] | None:
        for prefix in self.prefixes:
            name = channel.removeprefix(prefix)
            if name != channel or not prefix:
                for known, tags in SAID_ON.items():
                    if name.startswith(known):
                        return tags
        return None


class Watch:
    """The listener, as tests use it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._following: Counter[str] = Counter()
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._order("hello")

    def follow(self, prefix: str) -> None:
        """A broker begins under this prefix: listen from now on."""
        self._following[prefix] += 1
        if self._following[prefix] == 1:
            self._order(f"follow {prefix}")

    def leave(self, prefix: str) -> None:
        """It has stopped: all it said is heard, and nothing after it."""
        self._following[prefix] -= 1
        if self._following[prefix] == 0:
            self._order(f"leave {prefix}")

    def end(self) -> tuple[dict[str, int], list[str]]:
        """How many messages of each type were compared, and what was wrong."""
        seen, offences = json.loads(self._order("end"))
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        return seen, offences

    def _order(self, words: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(words + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the listener ended with {self._process.wait(10)}"
        return answer


@contextmanager
def watched(port: int) -> Iterator[Watch]:
    """Every broker that works with the server at `port` is listened to, while this lasts.

    On leaving it fails with the first messages that do not keep the contract.
    """
    from alpaca_broker.broker import AlpacaBroker  # not above: the listener does not need it

    watch = Watch(port)
    start, stop = AlpacaBroker.start, AlpacaBroker.stop
    followed: set[int] = set()

    def is_ours(broker: AlpacaBroker) -> bool:
        return broker._settings.redis().port == port

    def start_watched(broker: AlpacaBroker) -> None:
        if is_ours(broker):
            followed.add(id(broker))
            watch.follow(broker._settings.channel_prefix)
        start(broker)

    def stop_watched(broker: AlpacaBroker) -> bool:
        ended = stop(broker)
        if id(broker) in followed:
            followed.discard(id(broker))
            watch.leave(broker._settings.channel_prefix)
        return ended

    AlpacaBroker.start, AlpacaBroker.stop = start_watched, stop_watched  # type: ignore[method-assign]
    try:
        yield watch
    finally:
        AlpacaBroker.start, AlpacaBroker.stop = start, stop  # type: ignore[method-assign]
        _, offences = watch.end()
    assert not offences, "\n".join(["these messages do not keep the contract:", *offences])


class _Listener:
    """The process: orders on standard input, messages from Redis, one answer line per order."""

    def __init__(self, port: int) -> None:
        self._judge = Judge()
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._reader = hiredis.Reader()
        self._tell("PSUBSCRIBE", ANSWERS)

    def run(self) -> None:
        with DefaultSelector() as selector:
            selector.register(self._socket, EVENT_READ, self._hear)
            selector.register(sys.stdin, EVENT_READ, self._obey)
            while all(key.data() for key, _ in selector.select()):
                pass

    def _obey(self) -> bool:
        word, _, prefix = sys.stdin.readline().rstrip("\n").partition(" ")
        if word == "follow":
            self._judge.prefixes.add(prefix)
            self._tell("SUBSCRIBE", f"{prefix}broker:status", f"{prefix}broker:logs")
            self._tell("PSUBSCRIBE", f"{prefix}price:*", f"{prefix}order:*")
        elif word == "leave":
            self._tell("UNSUBSCRIBE", f"{prefix}broker:status", f"{prefix}broker:logs")
            self._tell("PUNSUBSCRIBE", f"{prefix}price:*", f"{prefix}order:*")
            self._judge.prefixes.discard(prefix)
        elif word != "hello":  # the end, or the tests are gone
            self._tell("PING")
            self._judge.end()
            print(json.dumps([self._judge.seen, self._judge.offences]), flush=True)
            return False
        print("done", flush=True)
        return True

    def _tell(self, *words: str) -> None:
        """Give Redis a command and wait for its confirmation: all that was said is then heard."""
        self._socket.sendall(hiredis.pack_command(words))
        answers = len(words) - 1 or 1
        while answers > 0:
            answers -= self._receive()

    def _hear(self) -> bool:
        self._receive()
        return True

    def _receive(self) -> int:
        """Take what has come; how many confirmations were in it."""
        data = self._socket.recv(1 << 20)
        if not data:
            raise SystemExit("Redis closed the connection")
        self._reader.feed(data)
        confirmations = 0
        while (reply := self._reader.gets()) is not False:
            if reply[0] in (b"message", b"pmessage"):
                self._judge.hear(reply[-2].decode(), reply[-1])
            else:
                confirmations += 1
        return confirmations


if __name__ == "__main__":
    _Listener(int(sys.argv[1])).run()
