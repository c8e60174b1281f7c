"""All accounts' order events, in one loop of their own.

Owns the account streams and their Redis connections. An account's trouble never touches another,
and nothing here ever waits for market data.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from redis.asyncio import Redis

from alpaca_broker.alpaca.link import http_session
from alpaca_broker.bus.fence import Fence
from alpaca_broker.bus.journal import Journal
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.messages import AccountStatus
from alpaca_broker.settings import RedisTarget
from alpaca_broker.tenure import Tenure
from alpaca_broker.trading.account_stream import AccountStream

log = logging.getLogger(__name__)

# Account id and the name it was given; the name that has it already, or None.
Claim = Callable[[str, str], str | None]


class OrderProducer:
    """Keeps every configured account's order stream alive and recorded."""

    def __init__(
        self,
        streams: Callable[[Claim], tuple[AccountStream, ...]],
        *,
        channels: Channels,
        target: RedisTarget,
        client: Callable[[], Redis],
        fence: Fence,
        journal_length: int,
    ) -> None:
        # New ones for each epoch: nothing of the last one is known to be true any more.
        self._make_streams = streams
        self._claims: dict[str, str] = {}
        self._streams = streams(self._claim)
        self._account_names: frozenset[str] = frozenset()
        self._received: dict[str, float] = {}
        self._recorded_before = 0
        self._channels, self._target, self._make_client = channels, target, client
        self._fence, self._journal_length = fence, journal_length
        self._tenure = Tenure()

    @property
    def status(self) -> dict[str, AccountStatus]:
        """What the heartbeat says of each account. May be read from any thread."""
        return {stream.name: stream.status for stream in self._streams}

    @property
    def events(self) -> int:
        """How many order events were recorded."""
        return self._recorded_before + sum(stream.lane.recorded for stream in self._streams)

    def lead(self, epoch: int, received: dict[str, float]) -> None:
        """Speak under this epoch from now on; until then nothing is opened.

        `received` says until when a broker before us heard each account, in epoch seconds.
        """
        self._received = received
        self._tenure.begin(epoch)

    def unlead(self) -> None:
        """Another broker leads: close everything, and drop what is not recorded."""
        self._tenure.end()

    def named(self, account_names: frozenset[str]) -> None:
        """Bots follow orders under these ids or numbers."""
        self._account_names = account_names
        for stream in self._streams:
            stream.named(account_names)

    async def run(self) -> None:
        """Keep all accounts alive while we lead, until cancelled."""
        await self._tenure.run(self._serve)

    async def _serve(self, epoch: int) -> None:
        """One epoch; at an end in order what was read is recorded.

        Raises:
            ExceptionGroup of Superseded: another broker leads.
        """
        self._recorded_before = self.events
        self._claims.clear()
        self._streams = self._make_streams(self._claim)
        for stream in self._streams:
            stream.begin(epoch, self._received)
            stream.named(self._account_names)
        client = self._make_client()
        try:
            async with asyncio.TaskGroup() as writers:
                writing = [
                    writers.create_task(
                        stream.write(
                            lambda account_id: self._journal(client, account_id, epoch),
                            self._target,
                        ),
                        name=f"writer {stream.label}",
                    )
                    for stream in self._streams
                ]
                try:
                    await self._read()
                finally:
                    if self._tenure.epoch == epoch:
                        await self._drain()
                    for task in writing:
                        task.cancel()
        finally:
            await client.aclose()

    async def _read(self) -> None:
        async with http_session() as http, asyncio.TaskGroup() as readers:
            for stream in self._streams:
                readers.create_task(stream.stay_connected(http), name=f"reader {stream.label}")
            await asyncio.Event().wait()  # a refused account does not end the others

    def _claim(self, account_id: str, label: str) -> str | None:
        """Take an account for a stream; the name of the one that has it already, or None."""
        holder = self._claims.setdefault(account_id, label)
        return None if holder == label else holder

    async def _drain(self) -> None:
        left = sum([await stream.lane.drain() for stream in self._streams])
        if left:
            log.error("%d order events were not recorded before the end", left)

    def _journal(self, client: Redis, account_id: str, epoch: int) -> Journal:
        return Journal(
            client,
            self._channels,
            account_id,
            epoch=epoch,
            length=self._journal_length,
            fence=self._fence,
        )
