"""Everything that a broker says is held against the contract's schemas, whether a bot hears or not.

Whoever starts a broker, in this process or in another, calls `overhear`; at the end of the test
`nothing_wrong` ends and joins the threads and says what was wrong. Patterns of what only brokers
say, never of the registrations: `PUBLISH` answers how many listened, and who asks that must not
count us. Cheap: of prices only the first ones are heard at all.
"""

from __future__ import annotations

import json
import socket
import threading

import hiredis
from contract_schema import offence

SPOKEN = ("price:*", "order:*", "broker:status", "broker:logs", "reply:*")
PRICES = 2_000  # then no more of them are heard
AGAIN_AFTER_S = 0.1  # where the server is away


_open: dict[tuple[int, str], Overhearing] = {}


def overhear(port: int, prefix: str = "") -> Overhearing:
    """From now on listen to what is said on this server under this prefix."""
    if (port, prefix) not in _open:
        _open[port, prefix] = Overhearing(port, prefix)
    return _open[port, prefix]


def nothing_wrong() -> int:
    """End all listening; fails where a message was wrong. Returns how many were looked at."""
    ears = list(_open.values())
    _open.clear()
    for ear in ears:
        ear.close()
    offences = [offence for ear in ears for offence in ear.offences]
    assert not offences, offences
    return sum(ear.checked for ear in ears)


class Overhearing:
    """Listens to one deployment until it is closed."""

    def __init__(self, port: int, prefix: str) -> None:
        self._port = port
        self._patterns = [prefix + name for name in SPOKEN]
        self._prices, self._left = (prefix + "price:").encode(), PRICES
        self.offences: list[str] = []
        self.checked = 0
        self._closed = threading.Event()
        self._socket: socket.socket | None = self._connect()
        self._thread = threading.Thread(target=self._run, name="overhearing", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and wait for it."""
        self._closed.set()
        if (heard := self._socket) is not None:
            try:
                heard.shutdown(socket.SHUT_RDWR)  # wakes the thread
            except OSError:
                pass  # the server was quicker
        self._thread.join(60)
        assert not self._thread.is_alive(), "the overhearing thread does not end"

    def _connect(self) -> socket.socket | None:
        try:
            heard = socket.create_connection(("127.0.0.1", self._port), 5)
        except OSError:
            return None
        heard.settimeout(None)
        heard.sendall(_command("PSUBSCRIBE", *self._patterns))
        return heard

    def _run(self) -> None:
        while not self._closed.is_set():
            if (heard := self._socket) is not None:
                with heard:
                    self._listen(heard)
                self._socket = None
            if not self._closed.wait(AGAIN_AFTER_S):
                self._socket = self._connect()
        if self._socket is not None:  # it came while we were told to end
            self._socket.close()

    def _listen(self, heard: socket.socket) -> None:
        reader = hiredis.Reader()
        try:
            while not self._closed.is_set() and (data := heard.recv(65_536)):
                reader.feed(data)
                while (reply := reader.gets()) is not False:
                    if type(reply) is list and reply[0] == b"pmessage":
                        self._look_at(reply[2], reply[3])
                if self._left == 0:
                    self._left = -1
                    heard.sendall(_command("PUNSUBSCRIBE", self._patterns.pop(0)))
        except OSError:
            pass  # the server is away

    def _look_at(self, channel: bytes, payload: bytes) -> None:
        if channel.startswith(self._prices):
            if self._left <= 0:
                return
            self._left -= 1
        try:
            message = json.loads(payload)
        except ValueError:
            return  # a test's own rubbish: a broker's encoder makes none
        self.checked += 1
        if isinstance(message, dict) and (problem := offence(message)) is not None:
            self.offences.append(f"{problem}, on {channel!r}: {message}")


def _command(*words: str) -> bytes:
    return hiredis.pack_command(words)  # type: ignore[arg-type]
