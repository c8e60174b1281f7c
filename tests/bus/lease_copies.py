"""A copy's keeper of the lease alone, for tests: it runs for as long as a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from support import PATIENCE_S

from alpaca_broker.bus.fence import Fence
from alpaca_broker.bus.lease import LeaseKeeper
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.lease import Link
from alpaca_broker.settings import RedisTarget


class Copy:
    """A keeper, and what it said."""

    def __init__(self, port: int, prefix: str, name: str, *keys: str) -> None:
        self.fence = Fence()
        self.epochs: list[int] = []
        self.keeper = LeaseKeeper(
            RedisTarget("127.0.0.1", port, 0),
            Channels(prefix),
            self.fence,
            leader=name,
            keys=list(keys) or ["key"],
            on_begin=self.epochs.append,
            on_end=lambda: self.epochs.append(0),
        )
        self.fence.on_entered = self.keeper.renew_now

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Copy]:
        """Run it until the block ends."""
        task = asyncio.create_task(self.keeper.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def has(self, client: Any) -> Link:
        """Make a client's connection one of this leader's; returns once the lease names it."""
        info = await client.client_info()
        link = Link(int(info["id"]), info["addr"])
        place = self.fence.enter(client, link, lambda: True)
        async with asyncio.timeout(PATIENCE_S):
            await self.fence.admit(place)
        return link


async def soon(condition: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Wait for a condition of this loop."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what sets it is not ours
            await asyncio.sleep(0.01)
