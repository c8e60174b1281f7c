"""The wish to end, from a signal to whoever waits for it.

Owns the signal handlers while a command runs. A handler does nothing but note the wish, so a
second signal, at whatever moment, does nothing worse than the first.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue


class StopRequest:
    """Asked once, asked for ever. Call it from signal handlers or any thread."""

    def __init__(self) -> None:
        # Reentrant, unlike `threading.Event`: a handler may interrupt the very thread that waits.
        self._asked: SimpleQueue[None] = SimpleQueue()
        self._then: Callable[[], None] | None = None
        self.requested = False

    def __call__(self) -> None:
        """Ask for the end."""
        self.requested = True
        self._asked.put(None)
        if self._then is not None:
            self._then()

    def then(self, function: Callable[[], None]) -> None:
        """Pass the wish on to `function`, at once where it was uttered before."""
        self._then = function
        if self.requested:
            function()

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; True where the end was asked for."""
        if not self.requested:
            try:
                self._asked.get(timeout=max(0.0, timeout))
            except Empty:
                pass
        return self.requested


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM and a closed terminal into one wish to end.

    Afterwards they are ignored: nothing is left but the interpreter's own end, which a late second
    signal would turn into a traceback.
    """
    request = StopRequest()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else nohup wants us to stay
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, lambda *_: request())
    try:
        yield request
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
