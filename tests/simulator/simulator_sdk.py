"""How the tests run Alpaca's own streams: in a thread, as its users do."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def running(stream: Any, wake: Callable[[], object]) -> Iterator[None]:
    """Run a stream as its users do; `wake` causes a message, so that it notices the stop."""
    thread = threading.Thread(target=stream.run, name="sdk stream")
    thread.start()
    try:
        yield
    finally:
        stream.stop()
        wake()
        thread.join(60)
        assert not thread.is_alive()


def until(condition: Callable[[], object], seconds: float = 45.0) -> None:
    """Wait until a condition holds; fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)
