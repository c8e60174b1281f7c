"""What is neither prices nor orders: registrations, the heartbeat, the log records.

Owns the third loop, so that a saturated feed delays no sign of life and no registration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from redis.asyncio import Redis

from alpaca_broker.bus.heartbeat import Heartbeat
from alpaca_broker.bus.logbook import Logbook
from alpaca_broker.bus.redis_client import RedisError, connect
from alpaca_broker.bus.registrar import OnChange, Registrar
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.messages import Status
from alpaca_broker.settings import RedisTarget
from alpaca_broker.telemetry import RecordQueue

GOODBYE_WITHIN_S = 1.0


class Control:
    """Runs the registrar, the heartbeat and the logbook until cancelled."""

    def __init__(
        self,
        *,
        target: RedisTarget,
        channels: Channels,
        leader: str,
        records: RecordQueue,
        compose: Callable[[], Status],
        on_wishes: OnChange,
        on_epoch: Callable[[int], None],
    ) -> None:
        self._target = target
        # Nothing is opened before `run`; the loop that first uses a client is the one that owns it.
        self._client: Redis = connect(target, "alpaca-broker:control")
        self.registrar = Registrar(self._client, channels.registration, on_wishes)
        self.heartbeat = Heartbeat(
            self._client,
            channels,
            target,
            leader=leader,
            compose=compose,
            on_epoch=on_epoch,
        )
        self.logbook = Logbook(self._client, channels.logs, records)

    async def run(self) -> None:
        """Run all three until cancelled; then say goodbye.

        Raises:
            ExceptionGroup of Superseded: another broker leads.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.registrar.run(), name="registrar")
                tasks.create_task(self.heartbeat.run(), name="heartbeat")
                tasks.create_task(self.logbook.run(), name="logbook")
        finally:
            await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        try:
            async with asyncio.timeout(GOODBYE_WITHIN_S):
                await self.heartbeat.last_words()
                await self.logbook.flush()
        except (RedisError, OSError):
            pass  # without Redis there is nobody to tell; the log lines were on the terminal, too
        finally:
            await self._client.aclose()
