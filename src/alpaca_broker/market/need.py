"""Whether anybody wants anything of a feed, and how long nobody has.

Owns the waiting for both. One that is always needed never waits. Runs in one loop.
"""

from __future__ import annotations

import asyncio


class Need:
    """A need that comes and goes."""

    def __init__(self, *, always: bool, linger_s: float) -> None:
        self._always, self._linger_s = always, linger_s
        self._needed, self._needless = asyncio.Event(), asyncio.Event()
        self.set(False)

    @property
    def is_there(self) -> bool:
        """Whether it is there now."""
        return self._needed.is_set()

    def set(self, needed: bool) -> None:
        """It came, or it went."""
        if needed or self._always:
            self._needed.set()
            self._needless.clear()
        else:
            self._needed.clear()
            self._needless.set()

    async def begins(self) -> None:
        """Returns as soon as it is there."""
        await self._needed.wait()

    async def ends(self) -> None:
        """Returns once it has been gone for a while."""
        while True:
            await self._needless.wait()
            try:
                async with asyncio.timeout(self._linger_s):
                    await self._needed.wait()
            except TimeoutError:
                return
