"""What is neither prices nor orders: registrations, the heartbeat, the log records.

Owns the third loop, so that a saturated feed delays no sign of life and no registration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
from redis.asyncio import Redis

from alpaca_broker.alpaca.assets import Assets
from alpaca_broker.alpaca.link import http_session
from alpaca_broker.alpaca.rest import TradingRest
from alpaca_broker.bus.desk import Desk
from alpaca_broker.bus.heartbeat import Heartbeat
from alpaca_broker.bus.logbook import Logbook
from alpaca_broker.bus.redis_client import RedisError, connect
from alpaca_broker.bus.registrar import Registrar
from alpaca_broker.core.answers import FeedView
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.messages import Gap, Status
from alpaca_broker.settings import RedisTarget
from alpaca_broker.telemetry import RecordQueue

GOODBYE_WITHIN_S = 1.0

MakeRest = Callable[[aiohttp.ClientSession], TradingRest]


class Control:
    """Runs the registrar's desk, the heartbeat and the logbook until cancelled."""

    def __init__(
        self,
        *,
        target: RedisTarget,
        channels: Channels,
        leader: str,
        records: RecordQueue,
        registrar: Registrar,
        compose: Callable[[], Status],
        on_lead: Callable[[int, dict[str, float]], None],
        rest: MakeRest | None,
    ) -> None:
        self._on_lead, self._rest = on_lead, rest
        # Nothing is opened before `run`; the loop that first uses a client is the one that owns it.
        self._client: Redis = connect(target, "alpaca-broker:control")
        self.registrar = registrar
        self.desk = Desk(self._client, channels, registrar)
        self.heartbeat = Heartbeat(
            self._client,
            channels,
            target,
            leader=leader,
            compose=compose,
            on_lead=self._lead,
        )
        self.logbook = Logbook(self._client, channels.logs, records)

    def view(self, view: FeedView) -> None:
        """In our loop: the feed has decided something about symbols."""
        self.registrar.view(view)
        self.desk.work()

    def announce(self, gap: Gap) -> None:
        """In our loop: something was missed."""
        self.heartbeat.announce(gap)

    async def run(self) -> None:
        """Run all of it until cancelled; then say goodbye.

        Raises:
            ExceptionGroup of Superseded: another broker leads.
        """
        try:
            async with http_session() as http, asyncio.TaskGroup() as tasks:
                tasks.create_task(self.desk.listen(), name="registrations")
                tasks.create_task(self.desk.write(), name="answers")
                tasks.create_task(self.desk.look(), name="listeners")
                if self._rest is not None:
                    assets = Assets(self._rest(http))
                    tasks.create_task(self.desk.verify(assets.unknown), name="assets")
                tasks.create_task(self.heartbeat.run(), name="heartbeat")
                tasks.create_task(self.logbook.run(), name="logbook")
        finally:
            await self._say_goodbye()

    async def _lead(self, epoch: int, received: dict[str, float]) -> None:
        """We lead: take up what bots wanted before anything is asked of Alpaca."""
        self.registrar.epoch = epoch
        await self.desk.restore()
        self._on_lead(epoch, received)

    async def _say_goodbye(self) -> None:
        try:
            async with asyncio.timeout(GOODBYE_WITHIN_S):
                await self.heartbeat.last_words()
                await self.logbook.flush()
        except (RedisError, OSError):
            pass  # without Redis there is nobody to tell; the log lines were on the terminal, too
        finally:
            await self._client.aclose()
