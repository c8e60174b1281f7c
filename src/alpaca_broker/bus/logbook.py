"""Carries log records to `broker:logs`.

Owns the way from the bounded queue to Redis. What cannot be delivered waits there; it never logs
about itself, or a failing Redis would feed its own queue.
"""

from __future__ import annotations

import asyncio
import random
from time import monotonic

from redis.asyncio import Redis

from alpaca_broker.bus.redis_client import RedisError, deadline
from alpaca_broker.core.backoff import Patience
from alpaca_broker.telemetry import RecordQueue

AT_ONCE = 200


class Logbook:
    """Publishes log records until cancelled."""

    def __init__(self, client: Redis, channel: str, records: RecordQueue) -> None:
        self._client, self._channel, self._records = client, channel, records
        self._written = asyncio.Event()

    def wake(self) -> None:
        """There is something to publish."""
        self._written.set()

    async def run(self) -> None:
        """Publish what is written, until cancelled."""
        patience = Patience(random.uniform, first=0.2, ceiling=3.0, settled=5.0)
        while True:
            began = monotonic()
            try:
                while True:
                    self._written.clear()
                    await self.flush()
                    await self._written.wait()
            except (RedisError, OSError):
                await asyncio.sleep(patience.after(monotonic() - began))

    async def flush(self) -> None:
        """Publish everything that waits.

        Raises:
            redis.RedisError, OSError: nothing is lost, it waits for the next call.
        """
        records = self._records.take()
        while records:
            batch, rest = records[:AT_ONCE], records[AT_ONCE:]
            try:
                async with deadline(), self._client.pipeline(transaction=False) as commands:
                    for record in batch:
                        commands.publish(self._channel, record)
                    await commands.execute()
            except BaseException:
                self._records.put_back(records)
                raise
            records = rest
