"""A named thread that runs one coroutine on its own event loop.

Owns the thread and the loop. Other threads reach it only through `call`, with immutable values.
Stopping cancels the coroutine once, which then closes what it opened; the owner joins.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from alpaca_broker.errors import UsageError


class LoopThread:
    """Runs `main()` until it ends, fails, or is told to stop."""

    def __init__(
        self,
        name: str,
        main: Callable[[], Coroutine[Any, Any, None]],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._main, self._on_failure = main, on_failure
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)

    @property
    def name(self) -> str:
        """The thread's name."""
        return self._thread.name

    def start(self) -> None:
        """Start the thread and wait until its loop takes calls."""
        self._thread.start()
        self._ready.wait()

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Have `function(*args)` run in the loop; silently nothing once the loop has ended."""
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # the loop is closed: there is nobody left to tell

    def stop(self) -> None:
        """Ask the coroutine to end; returns at once and may be called again."""
        self.call(self._cancel)

    def join(self, timeout: float) -> bool:
        """Wait for the thread; False where it has not ended in time."""
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _cancel(self) -> None:
        if self._task is not None and not self._stopping:
            self._stopping = True
            self._task.cancel()  # once: a second cancel would break into the closing

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                self._loop = runner.get_loop()
                runner.run(self._supervised())
            self._unless_stopping(UsageError(f"thread {self.name} ended by itself"))
        except asyncio.CancelledError as error:
            self._unless_stopping(error)
        except BaseException as error:
            self._on_failure(error)
        finally:
            self._ready.set()

    def _unless_stopping(self, error: BaseException) -> None:
        if not self._stopping:
            self._on_failure(error)

    async def _supervised(self) -> None:
        self._task = asyncio.current_task()
        self._ready.set()
        await self._main()
