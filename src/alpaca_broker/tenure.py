"""Work that is done for as long as this process leads, and begun again when it leads again.

Owns the coming and going of the epoch in one loop. What it runs is cancelled at the end of an epoch
and closes what it opened; nothing of it is carried over into the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from alpaca_broker.bus.journal import Superseded

log = logging.getLogger(__name__)

FOUND_OUT_WITHIN_S = 5.0


class Tenure:
    """Zero or one epoch. `begin` and `end` are called in the loop that runs it."""

    def __init__(self) -> None:
        self.epoch = 0
        self._changed = asyncio.Event()

    def begin(self, epoch: int) -> None:
        """We lead under this epoch."""
        self.epoch = epoch
        self._changed.set()

    def end(self) -> None:
        """We lead no more."""
        self.begin(0)

    async def run(self, serve: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        """Run `serve(epoch)` in each epoch that is ours, until cancelled."""
        while True:
            self._changed.clear()
            if epoch := self.epoch:
                await self._serve(epoch, serve(epoch))
            else:
                await self._changed.wait()

    async def _serve(self, epoch: int, serving: Coroutine[Any, Any, None]) -> None:
        """One epoch. Without a task group: up to Python 3.12 one whose member fails while it ends
        leaves its caller marked as cancelled, and leadership would end without a word.
        """
        task = asyncio.create_task(serving, name=f"epoch {epoch}")
        over = asyncio.create_task(self._is_over(epoch), name=f"end of epoch {epoch}")
        try:
            await asyncio.wait((task, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
            over.cancel()
            await asyncio.gather(task, over, return_exceptions=True)
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not _is_superseded(failure):
            raise failure
        # Where a script was refused, the lease's keeper is about to find out. If it does not, what
        # refused is gone (a Redis that failed over has lost it), and we lead: it is begun again.
        try:
            async with asyncio.timeout(None if failure is None else FOUND_OUT_WITHIN_S):
                await self._is_over(epoch)
        except TimeoutError:
            log.warning("epoch %d was refused once, and is still ours: going on", epoch)

    async def _is_over(self, epoch: int) -> None:
        while self.epoch == epoch:
            await self._changed.wait()
            self._changed.clear()


def _is_superseded(failure: BaseException) -> bool:
    if isinstance(failure, BaseExceptionGroup):
        return failure.split(Superseded)[1] is None
    return isinstance(failure, Superseded)
