"""A bot's ear: a thread with a plain redis-py subscription.

Owns the thread and its connection. What a bot does with a message is its own; this calls it, in
this thread only.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

Message = dict[str, Any]

LOOK_EVERY_S = 0.1
ANSWER_WITHIN_S = 5.0


class Listener:
    """Subscribes, registers, and hands every message to `hear(message, now)` until it ends."""

    def __init__(
        self,
        name: str,
        port: int,
        channels: Sequence[str],
        *,
        hear: Callable[[Message, float], None],
        failed: Callable[[BaseException], None],
        idle: Callable[[], None] = lambda: None,
        symbols: Sequence[str] = (),
    ) -> None:
        self._name, self._port, self._channels = name, port, channels
        self._hear, self._failed, self._idle = hear, failed, idle
        self._symbols = symbols
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"bot {name}")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; returns at once."""
        self._stopped.set()

    def join(self) -> None:
        """Wait until it has unregistered and ended."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with (
                redis.Redis("127.0.0.1", self._port, socket_timeout=ANSWER_WITHIN_S) as client,
                client.pubsub(ignore_subscribe_messages=True) as pubsub,
            ):
                # First the ear, then the wish: so not even the first price is missed.
                pubsub.subscribe(*self._channels)
                self._say(client, "register", list(self._symbols))
                while not self._stopped.is_set():
                    message = pubsub.get_message(timeout=LOOK_EVERY_S)
                    if message is not None:
                        self._hear(json.loads(message["data"]), time.time())
                    self._idle()
                self._say(client, "unregister", [])
        except BaseException as error:
            self._failed(error)

    def _say(self, client: redis.Redis, action: str, symbols: list[str]) -> None:
        """Publish until somebody listens: what is published to nobody is gone."""
        if not self._symbols:
            return
        message = {"action": action, "symbols": symbols, "bot_id": self._name}
        while not client.publish("broker:registration", json.dumps(message)):
            if self._stopped.wait(0.05):
                return
