"""The thread that calls a bot's handlers.

Owns one thread, which starts with the first handler: handlers never run at the same time, and a
slow one delays the others, but neither the listening nor the lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock, Thread, current_thread
from typing import Any

from alpaca_broker.client.inbox import Bell, Item, Portion
from alpaca_broker.client.subscription import Subscription

log = logging.getLogger("alpaca_broker.client")

HANDLER_ENDS_WITHIN_S = 10.0


class Dispatcher:
    """Calls handlers, one after the other, in one thread that starts with the first."""

    def __init__(self, plain: bool) -> None:
        self._plain = plain
        self._bell = Bell()
        self._lock = Lock()
        self._handlers: tuple[tuple[Subscription, Callable[[Any], object], Portion], ...] = ()
        self._thread: Thread | None = None
        self._closed = False

    def add(self, subscription: Subscription, handler: Callable[[Any], object]) -> None:
        """Call `handler` with what comes."""
        with self._lock:
            self._handlers = (*self._handlers, (subscription, handler, Portion()))
            subscription.inbox.bell = self._bell.ring
            self._bell.ring()
            if self._thread is None and not self._closed:
                self._thread = Thread(None, self._run, "alpaca-broker-handlers", daemon=True)
                self._thread.start()

    def close(self, within_s: float) -> None:
        """Call nobody any more; a handler that runs has some seconds to end."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._bell.ring()
        if thread is None or thread is current_thread():
            return
        thread.join(within_s)
        if thread.is_alive():
            log.warning("a handler does not end: its thread is left behind")

    def _run(self) -> None:
        while not self._closed:
            idle = True
            for subscription, handler, portion in self._handlers:
                taken = portion.take(subscription.inbox)
                idle = idle and not taken
                for item in taken:
                    if self._closed:
                        return
                    self._call(handler, item)
            if idle:
                self._bell.wait()

    def _call(self, handler: Callable[[Any], object], item: Item) -> None:
        try:
            handler(item.raw if self._plain else item)
        except (Exception, SystemExit):
            log.exception("a handler failed: %r", handler)
